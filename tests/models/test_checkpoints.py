import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import checkpoints
from models.errors import CheckpointError
from models.pipeline import AvatarPipeline
from models.presets import preset, tiny


@pytest.fixture
def folder(tmp_path, pipeline):
    checkpoints.write_config(tmp_path, tiny())
    for component in checkpoints.components(tiny()):
        checkpoints.save_component(tmp_path, component, getattr(pipeline, component))
    return tmp_path


def test_weights_come_back_in_half_precision(folder, pipeline):
    loaded = AvatarPipeline.load("tiny", folder, precision="fp32")
    for name, tensor in pipeline.refiner.state_dict().items():
        assert torch.equal(loaded.refiner.state_dict()[name], tensor.half().float()), name


def test_bf16_rounds_weights_of_products_and_leaves_norms(folder, pipeline):
    loaded = AvatarPipeline.load("tiny", folder, precision="bf16")
    block = loaded.lr_a2v.blocks[0]
    assert torch.equal(block.mlp[0].weight, pipeline.lr_a2v.blocks[0].mlp[0].weight.half().bfloat16())
    assert block.attention.q_norm.gain.dtype == block.scale_shift_table.dtype == torch.float32
    assert next(loaded.vae.parameters()).dtype == torch.float32  # it also runs outside autocast


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


def test_large_transformers_read_nothing_on_the_host():
    """On the meta device a value read is an error; so is it while a CUDA graph is captured."""
    pipeline = AvatarPipeline(preset("paper-720p"), device="meta")
    h, w, t = 44, 80, torch.ones(1, 6, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        text, audio = torch.empty(1, 512, 4096, device="meta"), torch.empty(1, 1, 6, 8, 768, device="meta")
        assert pipeline.lr_a2v(torch.empty(1, 16, 6, h, w, device="meta"), t, 3, text, audio).shape == (1, 16, 3, h, w)
        window = torch.empty(1, 16, 6, 2 * h, 2 * w, device="meta")
        tokens = torch.empty(1, 6, h * w, 512, device="meta")
        assert pipeline.refiner(window, t, 3, window, tokens).shape == (1, 16, 3, 2 * h, 2 * w)
        small = torch.empty(1, 16, 6, h, w, device="meta")
        kept = pipeline.lr_a2v.encode_prefix(small[:, :, :3], text, audio[:, :, :3])
        assert pipeline.lr_a2v(small, t, 3, text, audio, prefix_kv=kept).shape == (1, 16, 3, h, w)
        frames, _ = pipeline.frame_decoder.decode_chunk(torch.empty(1, 16, 3, 2 * h, 2 * w, device="meta"), None)
        assert frames.shape == (1, 9, 3, 704, 1280)
    assert counter.get_total_flops() > 1e14


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="presenter-256"):
        preset("presenter-257")
