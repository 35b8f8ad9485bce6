import json

import pytest
import torch

from models import checkpoints
from models.errors import CheckpointError
from models.pipeline import AvatarPipeline
from models.presets import preset, tiny


@pytest.fixture
def folder(tmp_path, pipeline):
    checkpoints.write_config(tmp_path, tiny())
    for component in checkpoints.COMPONENTS:
        checkpoints.save_component(tmp_path, component, getattr(pipeline, component))
    return tmp_path


def test_weights_come_back_in_half_precision(folder, pipeline):
    loaded = AvatarPipeline.load("tiny", folder)
    for name, tensor in pipeline.refiner.state_dict().items():
        assert torch.equal(loaded.refiner.state_dict()[name], tensor.half().float()), name


def test_missing_component_is_named(folder):
    (folder / "refiner.safetensors").unlink()
    with pytest.raises(CheckpointError, match="refiner"):
        AvatarPipeline.load("tiny", folder)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x80\x04K\x01.", b"\xff" * 64])
def test_broken_file_is_one_clear_error(folder, content):
    (folder / "vae.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="vae.safetensors"):
        AvatarPipeline.load("tiny", folder)


def test_weights_of_another_preset_are_refused(folder):
    with pytest.raises(CheckpointError, match="tiny"):
        AvatarPipeline.load("presenter-256", folder)


def test_changed_configuration_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["refiner"]["transformer"]["layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="refiner"):
        AvatarPipeline.load("tiny", folder)


@pytest.mark.parametrize("content", ["{", "[]", '"x"', ""])
def test_broken_configuration_is_one_clear_error(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError):
        AvatarPipeline.load("tiny", folder)


def test_weights_that_are_not_finite_are_refused(folder, pipeline):
    broken = torch.nn.Linear(2, 2)
    with torch.no_grad():
        broken.weight.fill_(float("nan"))
    checkpoints.save_component(folder, "broken", broken)
    with pytest.raises(CheckpointError, match="not finite"):
        checkpoints.load_component(folder, "broken", torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["presenter-512", "paper-720p"])
def test_large_presets_stand_on_the_meta_device(name):
    pipeline = AvatarPipeline(preset(name), device="meta")
    parameters = sum(p.numel() for p in pipeline.refiner.parameters())
    assert parameters > (1.0e9 if name == "paper-720p" else 1e7)


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="presenter-256"):
        preset("presenter-257")
