import dataclasses

import pytest
import torch
import torch.nn.functional as F

from models.talking import Chunk, Rung
from models.watchdog import Action, Limits, Watchdog, WatchedModel, WatchState, as_floats


def picture(seed=0):
    small = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(small, size=(64, 64), mode="nearest") * 0.6 + 0.2


def chunk(of=None, noise=0.01):
    still = picture() if of is None else of
    generator = torch.Generator().manual_seed(1)
    return (still.expand(4, -1, -1, -1) + noise * torch.randn(4, 3, 64, 64, generator=generator)).clamp(0, 1)


def blurred(frames, pixels=15):
    return F.avg_pool2d(frames, pixels, 1, pixels // 2, count_include_pad=False)


def test_a_picture_that_stays_calls_for_nothing():
    frames, state, health = Watchdog().watch(chunk(), WatchState(picture()))
    assert health.action is Action.NONE and state.bad_chunks == 0
    assert torch.equal(frames, chunk())
    assert health.likeness > 0.98 and health.delta_e < 1 and health.sharpness == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("kind", ["float", "bytes"])
def test_colours_that_wander_are_brought_back(kind):
    tinted = chunk() * torch.tensor([1.0, 0.85, 0.7]).view(3, 1, 1)
    given = tinted if kind == "float" else (tinted * 255).to(torch.uint8).permute(0, 2, 3, 1)
    frames, _, health = Watchdog().watch(given, WatchState(picture()))
    assert health.action is Action.COLOUR and health.delta_e > 4
    assert frames.dtype == given.dtype and frames.shape == given.shape
    before, after = ((as_floats(x).mean((0, 2, 3)) - picture().mean((0, 2, 3))).abs().max() for x in (given, frames))
    assert after < 0.02 < before


def test_a_picture_that_blurs_is_started_anew_before_it_is_gone():
    dog, state, actions = Watchdog(), WatchState(picture()), []
    for pixels in (1, 1, 9, 15, 21):
        _, state, health = dog.watch(blurred(chunk(), pixels), state)
        actions.append(health.action)
    assert Action.RESTART in actions and actions[0] is Action.NONE
    assert actions.index(Action.RESTART) == 3  # the second bad one in a row


def test_another_picture_is_noticed():
    dog, state = Watchdog(), WatchState(picture())
    _, state, first = dog.watch(chunk(of=picture(5)), state)
    _, state, second = dog.watch(chunk(of=picture(5)), state)
    assert first.likeness < 0.5 and second.action is Action.RESTART and state.bad_chunks == 0


def test_one_bad_chunk_is_forgiven():
    dog, state = Watchdog(), WatchState(picture())
    for frames in (blurred(chunk()), chunk(), blurred(chunk()), chunk()):
        _, state, health = dog.watch(frames, state)
        assert health.action is not Action.RESTART


def test_numbers_that_are_not_finite_are_bad():
    _, _, health = Watchdog(Limits(patience=1)).watch(torch.full((2, 3, 64, 64), float("nan")), WatchState(picture()))
    assert health.action is Action.RESTART


def test_a_recognition_network_can_be_asked():
    seen = []

    def describe(frames):
        seen.append(len(frames))
        return torch.tensor([[1.0, 0.0]]) if len(seen) == 1 else torch.tensor([[0.0, 1.0]])

    _, _, health = Watchdog(describe=describe).watch(chunk(), WatchState(picture()))
    assert seen == [1, 1] and health.likeness == 0


def test_limits_out_of_range_are_refused():
    with pytest.raises(ValueError, match="patience"):
        Limits(patience=0)


class Melting:
    """A model that shows its picture, and from its third chunk on one that is nothing."""

    fps, sample_rate, frame_size, delay_frames, fixed_latents = 25, 16_000, (64, 64), 0, 1
    device, rungs = torch.device("cpu"), (Rung.FULL,)

    def prepare(self, picture):
        return picture

    def still(self, state):
        return state.picture[None]

    def start(self, reference, **_):
        return MeltingState(reference, 0, 0)

    def step_batch(self, samples, states, rung):
        made = []
        for state in states:
            frames = chunk(state.picture[None]) if state.age < 2 else torch.full((4, 3, 64, 64), 0.4)
            made.append(Chunk(frames, MeltingState(state.picture, state.age + 1, state.frame_index + 4), {"all": 1.0}))
        return made

    def hold(self, samples, state):
        return MeltingState(state.picture, state.age, state.frame_index + 4)

    def set_prompt(self, state, prompt, motion_energy):
        return state

    def set_reference(self, state, reference):
        return MeltingState(reference, 0, state.frame_index)

    def to_i420(self, frames):
        return frames


@dataclasses.dataclass(frozen=True)
class MeltingState:
    picture: torch.Tensor
    age: int
    frame_index: int


def test_a_watched_model_goes_on_from_its_reference():
    model = WatchedModel(Melting())
    state, actions = model.start(picture()[0]), []
    for _ in range(6):
        frames, state, stage_ms = model.step(torch.zeros(2560), state)
        actions.append(state.health.action)
    assert actions.count(Action.RESTART) == 1 and actions.index(Action.RESTART) == 3
    assert actions[4:] == [Action.NONE, Action.NONE] and state.frame_index == 24
    assert stage_ms.keys() == {"all", "watchdog"}


def test_a_watched_stream_can_be_held_and_shown_another_picture():
    model = WatchedModel(Melting())
    state = model.hold(torch.zeros(2560), model.set_prompt(model.start(picture()[0]), "calm"))
    assert state.frame_index == 4
    other = model.set_reference(state, picture(3)[0])
    assert torch.equal(model.still(other), picture(3)) and torch.equal(other.watch.picture, picture(3))
