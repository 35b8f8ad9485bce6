"""Presets by name, whatever family they are of."""

import pytest

from models.families import PORTRAIT_SIZES, frame_size, is_portrait, load_model
from models.portrait.pipeline import PortraitPipeline
from models.presets import PRESETS


def test_every_preset_has_a_size_of_even_sides():
    names = [*PRESETS, *(f"portrait-{size}" for size in PORTRAIT_SIZES)]
    assert all(side % 2 == 0 for name in names for side in frame_size(name))
    assert frame_size("portrait-720x1280") == (1280, 720) and frame_size("tiny") == (96, 96)
    assert is_portrait("portrait-512") and not is_portrait("presenter-256")


@pytest.mark.parametrize("name", ["portrait-513", "huge", "portrait-"])
def test_unknown_presets_are_refused_with_those_there_are(name):
    with pytest.raises(ValueError, match="portrait-512.*presenter-256"):
        load_model(name)


def test_a_portrait_rehearses_at_its_size():
    import torch

    model = load_model("portrait-512")
    assert isinstance(model, PortraitPipeline)
    chunk = model.step(torch.zeros(2560), model.rehearsal())
    assert chunk.frames.shape == (4, 512, 512, 3) and model.to_i420(chunk.frames).shape == (4, 768, 512)


def test_a_portrait_is_refused_where_it_cannot_run():
    with pytest.raises(ValueError, match="cpu"):
        load_model("portrait-512", device="cuda")
