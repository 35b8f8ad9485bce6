"""Checks of the denoisers: FlashHead Pro and Lite, and LeapTalk's LoRA on Pro."""

from __future__ import annotations

import json
from typing import cast

import torch
from torch import Tensor, nn

from models.public.conformance import rule
from models.public.conformance.fixture import Fixture
from models.public.flashhead import (
    Block,
    FlashHead,
    FlashHeadConfig,
    half_split,
    published_shapes,
    rope_angles,
    to_own_layout,
)
from models.public.leaptalk import merge_lora, with_audio_projection

# LeapTalk's item is on pro_denoiser's network and does not say so in numbers.
LORA_BASE = FlashHeadConfig(
    dim=1536, ffn_dim=64, in_dim=32, out_dim=16, text_dim=64, freq_dim=256, num_heads=12, num_layers=2,
    patch_size=(1, 2, 2), vae_stride=(4, 8, 8),
)  # fmt: skip
LIMIT = 1e-5
# The reference's bf16 is 8e-3 rms from its fp32 at the time step that bf16 rounds to, and 0.15 at any other.
BF16_LIMIT = 0.02


def flashhead(fixture: Fixture, dtype: torch.dtype = torch.float32) -> FlashHead:
    """The item's denoiser, with the rule's weights."""
    config = config_of(fixture)
    weights = rule.weights(published_shapes(config), fixture.seed)
    return build(config, {name: tensor.to(dtype) for name, tensor in weights.items()})


def config_of(fixture: Fixture) -> FlashHeadConfig:
    return FlashHeadConfig.from_json(json.dumps(fixture.about["config"]))


def build(config: FlashHeadConfig, published: dict[str, Tensor]) -> FlashHead:
    with torch.device("meta"):
        model = FlashHead(config)
    model.load_state_dict(dict(to_own_layout(published, config)), assign=True)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def check_denoiser(fixture: Fixture) -> None:
    """Whole runs at several time steps, what lies between, parts alone, and one run in bf16."""
    model = flashhead(fixture)
    noisy, y, motion, audio = (fixture.input(f"input.{name}") for name in ("noisy", "y", "motion", "audio"))
    heard = model.hear(audio)

    def run(t: float, latents: Tensor = noisy, sound: tuple = heard) -> Tensor:
        return model(latents, torch.tensor([t]), y, sound)

    fixture.compare("out.t1000", run(1000.0), LIMIT)
    fixture.compare("out.t936", run(936.0), LIMIT)
    fixture.compare("out.t625_prefix1_y", run(625.0, torch.cat([y[:, :, :1], noisy[:, :, 1:]], dim=2)), LIMIT)
    fixture.compare("out.t937.5_prefix2_motion", run(937.5, torch.cat([motion, noisy[:, :, 2:]], dim=2)), LIMIT)
    fixture.compare("out.t1000_audio0", run(1000.0, sound=model.hear(torch.zeros_like(audio))), LIMIT)
    seen = _watched(model)
    fixture.compare("out.t937.5", run(937.5), LIMIT)
    seen["audio_proj"] = model.audio_proj(audio)
    shapes = {name: described["shape"] for name, described in fixture.about["tensors"].items()}
    for name, tensor in seen.items():
        fixture.compare(f"mid.t937.5.{name}", tensor.reshape(shapes[f"mid.t937.5.{name}"]), LIMIT)
    _check_alone(fixture, model)
    model = model.to(torch.bfloat16)
    t = torch.tensor([937.5])
    latents, reference, sound = (tensor.to(torch.bfloat16) for tensor in (noisy, y, audio))
    fixture.compare("out.t937.5_bf16", model(latents, t, reference, model.hear(sound)).float(), BF16_LIMIT, "rms")


def _watched(model: FlashHead) -> dict[str, Tensor]:
    """What the parts of a model return from here on, by the reference's names."""
    seen: dict[str, Tensor] = {}
    first, second = (cast(Block, block) for block in model.blocks)
    parts: dict[str, nn.Module] = {
        "patch_embedding": model.patch_embedding,
        "time_embedding": model.time_embedding,
        "time_projection": model.time_projection,
        "block0.self_attn": first.self_attn,
        "block0.cross_attn": first.cross_attn,
        "block0": first,
        "block1": second,
        "head": model.head,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda _module, _given, result, name=name: seen.__setitem__(name, result))
    return seen


def _check_alone(fixture: Fixture, model: FlashHead) -> None:
    first, later = fixture.input("input.audio_first"), fixture.input("input.audio_latter")
    fixture.compare("alone.audio_proj", model.audio_proj.project(first, later), LIMIT)
    config, block = model.config, cast(Block, model.blocks[0])
    frames, *grid = fixture.about["token_grid"]
    x = fixture.input("input.block_x").unflatten(1, (frames, -1))
    context = fixture.input("input.block_context")
    modulation = fixture.draw("input.block_tmod", (1, 6, config.dim), std=0.5)
    rope = rope_angles((frames, *grid), config.head_dim, x.device)
    made = block(x, modulation, rope, block.cross_attn.keys_values(context))
    fixture.compare("alone.block0", made.flatten(1, 2), LIMIT)
    fixture.compare("alone.block0.self_attn", block.self_attn(x, rope).flatten(1, 2), LIMIT)
    split = half_split(x.flatten(1, 2).movedim(2, 0), config.num_heads).unflatten(0, (config.num_heads, 2, -1))
    (a, b), (cos, sin) = split.movedim(1, 0), (part.T[None, :, None] for part in rope)  # [N, d / 2, B, L] each
    turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=2)
    fixture.compare("alone.rope_q", turned.permute(3, 4, 0, 1, 2).flatten(3), LIMIT)


@torch.inference_mode()
def check_leaptalk_lora(fixture: Fixture) -> None:
    """The LoRA merged into Pro's weights, and the audio projection that comes with it."""
    about = fixture.about
    published = rule.weights(published_shapes(LORA_BASE), fixture.seed)
    merged = merge_lora(published, rule.weights(about["lora_keys"], fixture.seed), about["peft"]["scale"])
    value = "blocks.1.cross_attn.v.weight"
    fixture.compare(f"merged.{value}", merged[value], LIMIT)
    y = fixture.draw("input.y", (1, 16, 3, 4, 6))
    audio = fixture.draw("input.audio", (1, 9, 5, 12, 768))

    def run(weights: dict[str, Tensor]) -> Tensor:
        model = build(LORA_BASE, weights)
        return model(y, torch.tensor([1000.0]), y, model.hear(audio))

    result = run(merged)
    fixture.compare("out.lora_only.t1000_x_is_y", result, LIMIT)
    fixture.compare("out.lora_only.t1000_x_is_y.unmerged", result, LIMIT)
    projection = {name: shape for name, shape in published_shapes(LORA_BASE).items() if name.startswith("audio_proj.")}
    given = {name.removeprefix("audio_proj."): shape for name, shape in projection.items()}
    replaced = with_audio_projection(merged, rule.weights(given, fixture.seed, about["audio_proj_rule_key_prefix"]))
    fixture.compare("out.lora_and_audio_proj.t1000_x_is_y", run(replaced), LIMIT)
