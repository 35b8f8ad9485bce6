"""InfiniteTalk and SoulX-FlashTalk 14B: Wan2.1 I2V that hears, 32 audio tokens a latent frame.

A Wan block with one more cross-attention behind that of prompt and first frame; tokens of a latent frame hear the sound
of that frame. Names are the published ones: `infinitetalk.safetensors` holds what is added and lies over
Wan2.1-I2V-14B, FlashTalk is one whole. One person a picture: the second one's rotary classes are not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from kernels.attention import attention
from kernels.modulate import residual_modulate
from models.public.audio_tokens import AudioProjection
from models.public.chunk_loop import AutoEncoder
from models.public.sampling import Draw, Velocity, euler, few_steps
from models.public.wan import PUBLISHED, Block, Context, Wan, WanConfig
from models.public.wan_files import load_wan
from models.public.wan_layers import KeyValues

NOISE = 1000.0  # the time step of pure noise


@dataclass(frozen=True)
class InfiniteTalkConfig:
    """The base, and how wide sound is after and inside its projection."""

    wan: WanConfig = field(default_factory=lambda: PUBLISHED["Wan2.1-I2V-14B"])
    audio_width: int = 768
    audio_hidden: int = 512
    vae_stride: int = 4

    def __post_init__(self) -> None:
        if self.wan.image_dim is None or self.wan.in_dim != 2 * self.wan.out_dim + 4:
            raise ValueError(f"the base must be an I2V model: noise, 4 of mask, reference; got {self.wan}")


@dataclass(frozen=True)
class Guidance:
    """Steps and guidance: the defaults are FlashTalk's, distilled and without any; `INFINITETALK` has both."""

    steps: int = 4
    shift: float = 5.0
    text: float = 1.0
    audio: float = 1.0
    is_distilled: bool = True

    def timesteps(self) -> Tensor:
        """[steps + 1] fp32 from 1000 to 0, more of them near the noise the larger the shift."""
        if self.is_distilled:
            even = torch.linspace(NOISE, 0, self.steps + 1, dtype=torch.float64)
        else:
            even = torch.cat([torch.linspace(NOISE, 1, self.steps, dtype=torch.float64), torch.zeros(1)])
        u = even / NOISE
        return (NOISE * self.shift * u / (1 + (self.shift - 1) * u)).float()


INFINITETALK = Guidance(steps=40, shift=7.0, text=5.0, audio=4.0, is_distilled=False)  # at 480p; shift 11 at 720p


@dataclass(frozen=True)
class TalkContext(Context):
    """And the sound: keys and values [B, f, N, K, d]."""

    audio: KeyValues | None = None


class AudioCrossAttention(nn.Module):
    """Tokens of a latent frame see the audio tokens of that frame; no norm of queries and keys."""

    def __init__(self, config: WanConfig, audio_width: int) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q_linear = nn.Linear(config.dim, config.dim)
        self.kv_linear = nn.Linear(audio_width, 2 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def keys_values(self, audio: Tensor) -> KeyValues:
        """Audio tokens [B, f, K, audio_width] → [B, f, N, K, d] each, the same in all steps of a chunk."""
        k, v = self.kv_linear(audio).unflatten(-1, (2, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        return k, v

    def forward(self, x: Tensor, keys_values: KeyValues) -> Tensor:
        """x [B, f, S, D] → the same shape."""
        q = self.q_linear(x).unflatten(-1, (self.heads, -1)).transpose(2, 3)
        heard = attention(q.flatten(0, 1), *(part.flatten(0, 1) for part in keys_values))
        return self.proj(heard.transpose(1, 2).reshape(x.shape))


class TalkBlock(Block):
    """A block of Wan that hears, after it has looked."""

    def __init__(self, config: WanConfig, audio_width: int) -> None:
        super().__init__(config)
        self.norm_x = nn.LayerNorm(config.dim, eps=config.eps)
        self.audio_cross_attn = AudioCrossAttention(config, audio_width)

    def cross(self, x: Tensor, y: Tensor, context: Context, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(context, TalkContext) and context.audio is not None
        norm = self.norm_x
        x, y = residual_modulate(x, self.cross_attn(y, context), None, weight=norm.weight, bias=norm.bias, eps=self.eps)
        return residual_modulate(x, self.audio_cross_attn(y, context.audio), None, scale, shift, eps=self.eps)


class InfiniteTalk(Wan):
    """The denoiser. What prompt, picture and sound give is made once a chunk, and serves all its steps."""

    def __init__(self, config: InfiniteTalkConfig) -> None:
        super().__init__(config.wan, partial(TalkBlock, audio_width=config.audio_width))
        self.talk = config
        self.audio_proj = AudioProjection(config.vae_stride, config.audio_width, config.audio_hidden)

    def hear(self, seen: tuple[Context, ...], audio: Tensor) -> tuple[TalkContext, ...]:
        """Windows of sound [B, F, 5, 12, 768] beside what `look` has seen.

        Raises:
            ValueError: if F is not 1 + 4k.
        """
        tokens = self.audio_proj(audio)
        layers = [cast(TalkBlock, block).audio_cross_attn for block in self.blocks]
        return tuple(
            TalkContext(what.text, what.image, layer.keys_values(tokens))
            for layer, what in zip(layers, seen, strict=True)
        )

    def velocity(self, reference: Tensor, contexts: tuple[TalkContext, ...]) -> Velocity:
        """Of noisy latents [B, C, f, h, w] at a time step [B], with what `reference_input` made of the picture."""
        return lambda latents, t: self(torch.cat([latents, reference], dim=1), t, contexts)


def reference_input(picture: Tensor, coder: AutoEncoder, frames: int) -> Tensor:
    """Picture [B, 3, 1, H, W] in -1 … 1 → [B, 4 + C, f, h, w]: what is known, and latents of it with grey after it."""
    grey = torch.zeros_like(picture).expand(-1, -1, frames - 1, -1, -1)
    latents = coder.encode(torch.cat([picture, grey], dim=2))
    mask = torch.zeros_like(latents[:, :1]).repeat(1, 4, 1, 1, 1)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def guided_velocity(
    model: InfiniteTalk,
    reference: Tensor,
    audio: Tensor,
    text: tuple[Context, ...],
    null_text: tuple[Context, ...] | None,
    guidance: Guidance,
) -> Velocity:
    """Velocity under guidance by prompt and sound, each of up to three passes a step.

    Args:
        reference: of `reference_input`.
        audio: windows [B, F, 5, 12, 768]; zeros are no sound.
        text, null_text: what `look` gave for the prompt and for the negative one; the latter only for text guidance.

    Raises:
        ValueError: if there is text guidance and no null_text.
    """
    heard = model.velocity(reference, model.hear(text, audio))
    if guidance.text == 1 and guidance.audio == 1:
        return heard
    silence = torch.zeros_like(audio)
    if guidance.text == 1:
        silent = model.velocity(reference, model.hear(text, silence))
        return lambda x, t: (without := silent(x, t)) + guidance.audio * (heard(x, t) - without)
    if null_text is None:
        raise ValueError("text guidance needs what look() gave for the negative prompt")
    wordless = model.velocity(reference, model.hear(null_text, audio))
    nothing = model.velocity(reference, model.hear(null_text, silence))

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        without_text, without = wordless(x, t), nothing(x, t)
        return without + guidance.text * (heard(x, t) - without_text) + guidance.audio * (without_text - without)

    return velocity


def sample(velocity: Velocity, draw: Draw, prefix: Tensor, guidance: Guidance) -> Tensor:
    """Latents [B, C, f, h, w] of a chunk that start with the prefix [B, C, p, h, w].

    FlashTalk puts fresh noise on what each step predicts, InfiniteTalk goes by Euler's steps. Its re-noised motion
    latents are written over with clean ones before anything sees them, so they are left out here.
    """
    return (few_steps if guidance.is_distilled else euler)(velocity, draw, prefix, guidance.timesteps())


def load_talk(model: InfiniteTalk, *paths: Path) -> None:
    """Load FlashTalk's one folder, or Wan2.1-I2V-14B and InfiniteTalk's file over it.

    Raises:
        CheckpointError: if a file cannot be read, or they are not this model together.
    """
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in InfiniteTalk(model.talk).state_dict().items()}
    load_wan(model, expected, *paths)
