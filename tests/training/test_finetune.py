"""Fine-tuning by LoRA from a tiny random base: it learns, its file loads, and what it gave before was the base's."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from models.errors import CheckpointError
from models.public.catalog import wan_config
from models.public.folders import read_weights
from models.public.wan import Wan, WanConfig
from models.public.wan_base import WanLRA2V, WanLRA2VConfig, load_base
from training.config import build
from training.finetune import FinetuneConfig, draw_windows, finetune, load_model, loss_of, read_clip
from training.lora import add_lora, load_trained, lora_norm, merge, save_trained

BASE = WanConfig(dim=32, ffn_dim=48, num_layers=2, num_heads=2, in_dim=4, out_dim=4, text_dim=12, freq_dim=16)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A base, and clips that a model can learn: each latent is a pattern as strong as its sound and pose say."""
    root = tmp_path_factory.mktemp("finetune")
    base, clips = root / "base", root / "clips"
    base.mkdir(), clips.mkdir()
    torch.manual_seed(0)
    save_file(Wan(BASE).state_dict(), base / "model.safetensors")
    names = ("dim", "ffn_dim", "num_layers", "num_heads", "in_dim", "out_dim", "text_dim", "freq_dim", "eps")
    (base / "config.json").write_text(json.dumps({name: getattr(BASE, name) for name in names}))
    pattern = torch.randn(4, 1, 4, 4)
    for index in range(2):
        strength = torch.randn(8)
        clip = {
            "latents": pattern * strength.view(1, -1, 1, 1),
            "audio": strength.view(-1, 1, 1).expand(-1, 8, 6).contiguous(),
            "text": torch.randn(3, 12),
            "degraded": pattern * strength.view(1, -1, 1, 1) + 0.3 * torch.randn(4, 8, 4, 4),
            "pose": strength.view(-1, 1, 1).expand(-1, 4, 10).contiguous(),
        }
        save_file(clip, clips / f"{index}.safetensors")
    return base, clips


@pytest.fixture
def config(places, tmp_path) -> FinetuneConfig:
    base, clips = places
    return FinetuneConfig(
        "lr_a2v", base, clips, tmp_path / "out", steps=30, rank=4, learning_rate=5e-3, warmup_steps=3, batch=4
    )


def held_loss(model, config) -> float:
    """Of the same windows, noise and time steps for every model."""
    import random

    clips = sorted(config.clips.glob("*.safetensors"))
    windows = draw_windows(clips, replace(config, batch=16, drop=0.0), random.Random(1))
    with torch.no_grad():
        return loss_of(model, windows, config.shift, torch.Generator().manual_seed(1)).item()


@pytest.mark.parametrize("kind", ["lr_a2v", "refiner"])
def test_it_learns_and_its_file_loads(kind, config):
    config = replace(config, model=kind)
    example = read_clip(next(config.clips.glob("*.safetensors")), kind)
    before = held_loss(load_model(config, example), config)
    path = finetune(config)
    trained = load_model(config, example)
    load_trained(path, trained)
    assert held_loss(trained, config) < 0.8 * before
    assert not any("lora" in name for name, _ in trained.named_parameters())


def test_before_training_lora_changes_nothing(config):
    example = read_clip(next(config.clips.glob("*.safetensors")), "lr_a2v")
    model = load_model(config, example)
    before = held_loss(model, config)
    trained = add_lora(model, 4)
    assert held_loss(model, config) == before and lora_norm(trained) == 0
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert "wan.patch_embedding.weight" in frozen and "wan.blocks.0.self_attn.q.base_layer.weight" in frozen
    assert "wan.blocks.0.cross_attn.v_audio.weight" in trained and "audio_position" in trained


def test_merged_layers_answer_as_their_lora_did(config):
    model = load_model(config, read_clip(next(config.clips.glob("*.safetensors")), "lr_a2v"))
    for name, parameter in add_lora(model, 4).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    apart = held_loss(model, config)
    merge(model)
    assert held_loss(model, config) == pytest.approx(apart, rel=1e-5)


def test_gradients_are_the_same_with_checkpointing(config):
    gradients = []
    for is_checkpointed in (True, False):
        changed = replace(config, is_checkpointed=is_checkpointed)
        torch.manual_seed(0)
        model = load_model(changed, read_clip(next(config.clips.glob("*.safetensors")), "lr_a2v"))
        trained = add_lora(model, 4)
        import random

        windows = draw_windows(sorted(config.clips.glob("*.safetensors")), changed, random.Random(2))
        loss_of(model, windows, 5.0, torch.Generator().manual_seed(2)).backward()
        gradients.append({name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_bf16_base_is_trained_in_fp32(config):
    path = finetune(replace(config, steps=2, batch=1, bf16=True, device="cpu"))
    assert {header.dtype for header in read_weights(path).tensors.values()} == {"F32"}


def test_a_file_of_another_model_is_refused(config, tmp_path):
    example = read_clip(next(config.clips.glob("*.safetensors")), "lr_a2v")
    model = load_model(config, example)
    save_trained(tmp_path / "lora.safetensors", add_lora(model, 4), 4)
    other = WanLRA2V(WanLRA2VConfig(wan=replace(BASE, num_layers=1), latent_channels=4, text_width=12, audio_width=6))
    with pytest.raises(CheckpointError, match="was trained on another model"):
        load_trained(tmp_path / "lora.safetensors", other)
    (tmp_path / "text.safetensors").write_text("LoRA")
    with pytest.raises(CheckpointError, match="is not a file of trained LoRA weights"):
        load_trained(tmp_path / "text.safetensors", model)


def test_clips_that_do_not_fit_are_one_clear_error(config, tmp_path):
    for tensors, message in (({"latents": torch.zeros(4, 8, 4, 4)}, "lacks audio"), (None, "holds no clips")):
        folder = tmp_path / message.replace(" ", "_")
        folder.mkdir()
        if tensors is not None:
            save_file(tensors, folder / "a.safetensors")
        with pytest.raises(CheckpointError, match=message):
            finetune(replace(config, clips=folder))
    with pytest.raises(CheckpointError, match="has 8 latents, 13 are needed"):
        finetune(replace(config, new_latents=10))


def test_shipped_runs_are_configurations():
    from pathlib import Path

    import yaml

    import training

    for path in (Path(training.__file__).parent / "configs").glob("finetune_*.yaml"):
        assert build(FinetuneConfig, yaml.safe_load(path.read_text())).rank == 64


def test_a_base_says_its_own_shape(places):
    assert wan_config(read_weights(places[0])) == BASE
    model = Wan(BASE)
    load_base(model, places[0])
