import torch

from models.lr_a2v import LRA2V
from models.presets import tiny
from tests.models.conftest import fill_zero_weights


def make() -> tuple[LRA2V, dict]:
    torch.manual_seed(0)
    model = LRA2V(tiny().lr_a2v).eval().requires_grad_(False)
    fill_zero_weights(model)
    inputs = {
        "window": torch.randn(2, 16, 5, 4, 4),
        "timesteps": torch.tensor([[1.0, 1, 0.3, 0.3, 0.3]]).expand(2, -1),
        "new": 3,
        "text": torch.randn(2, 2, 8),
        "audio": torch.randn(2, 1, 5, 8, 16),
        "motion": torch.randn(2, 5, 4, 11),
    }
    return model, inputs


def test_two_equal_streams_are_as_one():
    model, inputs = make()
    alone = model(**inputs)
    index = torch.tensor([[0, 1, 0, 1]]).expand(2, -1)
    inputs["audio"] = inputs["audio"].expand(-1, 2, -1, -1, -1)
    assert torch.allclose(model(**inputs, stream_index=index), alone, atol=1e-5)


def test_each_person_hears_their_own_stream():
    model, inputs = make()
    del model.blocks[1:]
    model.blocks[0].attention.out.weight.zero_()  # what is left of a token depends on its own conditions
    inputs["window"] = torch.randn(2, 16, 5, 24, 4)
    inputs["audio"] = inputs["audio"].expand(-1, 2, -1, -1, -1).clone()
    index = torch.arange(24).ge(12).long().expand(2, -1)  # upper half: stream 0
    before = model(**inputs, stream_index=index)
    inputs["audio"][:, 1] += 1
    change = (model(**inputs, stream_index=index) - before).abs().amax(dim=(0, 1, 2, 4))
    reach = 5  # rows that the convolutions of the head carry over
    assert change[: 12 - reach].max() < 1e-6
    assert change[12:].min() > 1e-6


def test_sound_and_prompt_and_motion_all_matter():
    model, inputs = make()
    before = model(**inputs)
    for name in ("audio", "text", "motion"):
        changed = {**inputs, name: torch.randn_like(inputs[name])}
        assert not torch.allclose(model(**changed), before, atol=1e-4), name
