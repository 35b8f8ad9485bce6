import pytest
import torch
from torch import nn

from models.configs import ExpressionPlannerConfig
from models.motion import MOTION_CHANNELS, listening_frames, motion_frames
from models.portrait.face_mesh import FACE_ACTIONS, FACE_INDEX
from models.portrait.planner import HEAD_LIMIT_RAD, MOODS, ExpressionActor, ExpressionPlanner, Speech

JAW, PRESS, SMILE = (FACE_INDEX[name] for name in ("jawOpen", "mouthPressLeft", "mouthSmileLeft"))
BROW = FACE_INDEX["browInnerUp"]


@pytest.fixture
def planner() -> ExpressionPlanner:
    torch.manual_seed(0)
    config = ExpressionPlannerConfig(audio_width=16, width=16, text_tokens=2, text_width=8)
    planner = ExpressionPlanner(config).eval().requires_grad_(False)
    nn.init.normal_(planner.face.weight)
    planner.closed_face[PRESS] = 0.45
    planner.mood_faces[MOODS.index("happy"), SMILE] = 0.6
    return planner


def talking(frames: int = 20) -> torch.Tensor:
    return torch.randn(1, frames, 16, generator=torch.Generator().manual_seed(3))


def opened(planner: ExpressionPlanner, closure: float, silence: float) -> torch.Tensor:
    """A wide mouth [1, 20, 52] whose gates have the given log odds."""
    nn.init.zeros_(planner.face.weight)
    nn.init.zeros_(planner.gates.weight)
    planner.face.bias[JAW] = 0.8
    planner.gates.bias.copy_(torch.tensor([closure, silence]))
    return planner.speech(talking()).face


def planned(frames: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(f(3, 0, frames))[None] for f in (motion_frames, listening_frames))


def speech_of(face: torch.Tensor, shut: torch.Tensor) -> Speech:
    nothing = torch.zeros(face.shape[:2])
    return Speech(face, closure=nothing, silence=nothing, shut=shut, accent=nothing, listening=nothing)


def test_actions_and_turns_are_within_their_range(planner):
    plan, listening = planned()
    actions, turned = planner(10 * talking(), torch.randn(1, 2, 8), 5 * plan, listening)
    assert actions.shape == (1, 20, len(FACE_ACTIONS))
    assert actions.min() >= 0 and actions.max() <= 1
    assert turned[..., :3].abs().max() <= HEAD_LIMIT_RAD < (5 * plan)[..., :3].abs().max()
    assert torch.equal(turned[..., 3:], 5 * plan[..., 3:])


def test_a_frame_does_not_depend_on_its_neighbours(planner):
    (plan, listening), text = planned(), torch.randn(1, 2, 8)
    whole = planner(talking(), text, plan, listening)
    alone = planner(talking()[:, 7:8], text, plan[:, 7:8], listening[:, 7:8])
    for together, single in zip(whole, alone, strict=True):
        assert torch.allclose(together[:, 7:8], single, atol=1e-6)


def test_a_listener_nods_and_smiles_and_a_speaker_does_neither(planner):
    nn.init.zeros_(planner.manner.weight)
    still, listening = torch.zeros(1, 20, len(MOTION_CHANNELS)), torch.tensor([0.07, 1.0]).expand(1, 20, 2)
    shown = {}
    for name, odds in (("speaks", -9.0), ("listens", 9.0)):
        planner.manner.bias.copy_(torch.tensor([-9.0, odds]))
        actions, plan = planner(talking(), torch.zeros(1, 2, 8), still, listening)
        shown[name] = float(plan[0, 0, 1]), float(actions[0, 0, SMILE])
    assert shown["listens"][0] > 0.05 > 0.001 > shown["speaks"][0]
    assert shown["listens"][1] > shown["speaks"][1] + 0.1


def test_the_head_dips_on_a_stressed_syllable(planner):
    nn.init.zeros_(planner.manner.weight)
    still = torch.zeros(1, 20, len(MOTION_CHANNELS))
    planner.manner.bias.copy_(torch.tensor([3.0, -9.0]))
    _, plan = planner(talking(), torch.zeros(1, 2, 8), still, torch.zeros(1, 20, 2))
    assert plan[0, 0, 1] > 0.03


def test_the_closure_gate_shuts_an_open_mouth(planner):
    face = opened(planner, closure=6.0, silence=-6.0)
    assert face[..., JAW].abs().max() < 1e-6
    assert torch.allclose(face[..., PRESS], torch.tensor(0.45))


def test_the_silence_gate_shuts_an_open_mouth_without_pressing_it(planner):
    face = opened(planner, closure=-6.0, silence=6.0)
    assert face.abs().max() < 1e-6


def test_open_gates_leave_the_mouth_alone(planner):
    assert torch.allclose(opened(planner, closure=-6.0, silence=-6.0)[..., JAW], torch.tensor(0.8))


def test_actions_that_speech_does_not_use_stay_at_rest(planner):
    planner.moves_in_speech[BROW] = 0
    assert planner.speech(talking()).face[..., BROW].abs().max() == 0


def test_a_smile_gives_way_to_speech_and_more_to_shut_lips(planner):
    mood = torch.zeros(1, len(MOODS))
    mood[0, MOODS.index("happy")] = 1.0
    face = torch.zeros(1, 3, len(FACE_ACTIONS))
    face[0, 1:, JAW] = 0.5
    shown = planner.with_mood(speech_of(face, torch.tensor([[0.0, 0.0, 1.0]])), mood)
    at_rest, speaking, shut = shown[0, :, SMILE].tolist()
    assert at_rest == pytest.approx(0.6)
    assert at_rest > speaking > shut > 0


def test_a_neutral_mood_changes_nothing(planner):
    face = torch.rand(1, 4, len(FACE_ACTIONS))
    shown = planner.with_mood(speech_of(face, torch.zeros(1, 4)), torch.zeros(1, len(MOODS)))
    assert torch.allclose(shown, face)


def test_a_gate_that_does_not_rise_is_refused():
    with pytest.raises(ValueError, match="closure_gate must rise"):
        ExpressionPlannerConfig(closure_gate=(0.6, 0.5))


@pytest.fixture(scope="module")
def shipped() -> ExpressionActor:
    return ExpressionActor.load()


def test_the_shipped_planner_keeps_still_in_silence(shipped):
    tokens, _ = shipped.ears.step(torch.zeros(40 * 640), shipped.ears.start())
    plan, listening = torch.zeros(1, 40, len(MOTION_CHANNELS)), torch.zeros(1, 40, 2)
    actions, turned = shipped.act(tokens[None], shipped.encode_text(""), plan, listening)
    mouth = [index for name, index in FACE_INDEX.items() if name.startswith(("mouth", "jaw"))]
    assert actions[..., JAW].max() == 0
    assert actions[..., mouth].std(1).max() < 0.01
    assert turned.abs().max() < 0.02


def test_the_shipped_planner_smiles_when_asked(shipped):
    def smile(prompt: str) -> float:
        return float(shipped.planner.moods(shipped.encode_text(prompt))[0, MOODS.index("happy")])

    assert smile("a happy presenter, smiling") > 0.6
    assert max(smile("a friendly presenter, neutral"), smile("very angry"), smile("")) < 0.25
