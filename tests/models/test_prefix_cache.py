"""Keys and values of a window's clean latents, kept for all steps over it, change nothing."""

from dataclasses import replace

import pytest
import torch

from models.configs import SamplingConfig, TransformerConfig
from models.lr_a2v import LRA2V
from models.pipeline import AvatarPipeline
from models.presets import tiny
from models.refiner import PGRefiner
from tests.models.conftest import fill_zero_weights

CHUNK = 4 * 640
CLEAN, NEW = 3, 2
SHAPES = {
    "whole": TransformerConfig(width=32, layers=3, heads=2, prefix_causal=True),
    "windows": TransformerConfig(width=32, layers=3, heads=2, prefix_causal=True, attention_window=2),
}


def inputs(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A window [2, 16, 5, size, size] and its timesteps."""
    timesteps = torch.tensor([[1.0] * CLEAN + [0.3] * NEW]).expand(2, -1)
    return torch.randn(2, 16, CLEAN + NEW, size, size), timesteps


@pytest.mark.parametrize("has_streams", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_lr_a2v_is_the_same_behind_a_kept_prefix(name, has_streams):
    torch.manual_seed(0)
    model = LRA2V(replace(tiny().lr_a2v, transformer=SHAPES[name])).eval().requires_grad_(False)
    fill_zero_weights(model)
    window, timesteps = inputs(8)
    streams = 2 if has_streams else 1
    index = torch.randint(2, (2, 16)) if has_streams else None
    text, motion = torch.randn(2, 2, 8), torch.randn(2, CLEAN + NEW, 4, 11)
    audio = torch.randn(2, streams, CLEAN + NEW, 8, 16)
    whole = model(window, timesteps, NEW, text, audio, motion, index)
    kept = model.encode_prefix(window[:, :, :CLEAN], text, audio[:, :, :CLEAN], motion[:, :CLEAN], index)
    assert torch.allclose(model(window, timesteps, NEW, text, audio, motion, index, prefix_kv=kept), whole, atol=1e-5)
    other = [(2 * k, v) for k, v in kept]
    assert not torch.allclose(model(window, timesteps, NEW, text, audio, motion, index, prefix_kv=other), whole)


@pytest.mark.parametrize("name", SHAPES)
def test_refiner_is_the_same_behind_a_kept_prefix(name):
    torch.manual_seed(0)
    model = PGRefiner(replace(tiny().refiner, transformer=SHAPES[name])).eval().requires_grad_(False)
    fill_zero_weights(model)
    window, timesteps = inputs(8)
    degraded, tokens = torch.randn_like(window), torch.randn(2, CLEAN + NEW, 16, 512)
    whole = model(window, timesteps, NEW, degraded, tokens)
    kept = model.encode_prefix(window[:, :, :CLEAN], degraded[:, :, :CLEAN], tokens[:, :CLEAN])
    assert torch.allclose(model(window, timesteps, NEW, degraded, tokens, prefix_kv=kept), whole, atol=1e-5)


def test_prefix_that_sees_what_follows_cannot_be_kept():
    model = PGRefiner(tiny().refiner)
    window, timesteps = inputs(8)
    tokens = torch.randn(2, CLEAN + NEW, 16, 512)
    with pytest.raises(ValueError, match="prefix_causal"):
        model.encode_prefix(window[:, :, :CLEAN], window[:, :, :CLEAN], tokens[:, :CLEAN])
    with pytest.raises(ValueError, match="prefix_causal"):
        model(window, timesteps, NEW, window, tokens, prefix_kv=[])


def test_steps_of_a_chunk_go_over_its_prefix_once(reference, sound):
    torch.manual_seed(0)
    config = tiny()
    lr_a2v = replace(config.lr_a2v, transformer=replace(config.lr_a2v.transformer, prefix_causal=True))
    refiner = replace(config.refiner, transformer=replace(config.refiner.transformer, prefix_causal=True))
    pipeline = AvatarPipeline(replace(config, lr_a2v=lr_a2v, refiner=refiner))
    for component in (pipeline.lr_a2v, pipeline.refiner):
        fill_zero_weights(component)
    sampling = SamplingConfig(lr_steps=3, refiner_steps=2, audio_guidance=2.0, text_guidance=1.5, pose_guidance=1.5)
    _, state, _ = pipeline.step(sound[: 2 * CHUNK], pipeline.start(reference))
    latents: dict[str, list[int]] = {"lr_a2v": [], "refiner": []}
    for name, seen in latents.items():
        stem = getattr(pipeline, name).stem
        stem.register_forward_hook(lambda _, given, __, seen=seen: seen.append(given[0].shape[2]))
    frames, _, _ = pipeline.step(sound[2 * CHUNK : 4 * CHUNK], state, sampling)
    assert sorted(latents["lr_a2v"]) == [2] * (2 + 9 + 1)  # 3 conditions: a prefix of 2 and 3 steps of 2 new ones
    assert sorted(latents["refiner"]) == [2] * (2 + 4)
    pipeline.keeps_prefix = False
    every_time, _, _ = pipeline.step(sound[2 * CHUNK : 4 * CHUNK], state, sampling)
    assert latents["lr_a2v"][-1] == latents["refiner"][-1] == 4
    assert (every_time - frames).abs().max() < 1e-4
