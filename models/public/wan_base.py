"""A Wan transformer as the base of LR-A2V (§3.1) and of PG-Refiner (§3.2) at the paper's scale.

What Wan lacks is added beside its weights, at zero: keys and values for sound (Eq. 4), degraded LR latents, pose
tokens. So before training the loaded model gives exactly what its base gives.

Wan's time runs from 1000 (noise) to 0 (data), ours from 0 to 1. Clean latents of the window have the time step 0: there
is one a latent frame, as TI2V-5B has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kernels.attention import attention
from kernels.dual_cross_attention import dual_cross_attention
from models.configs import LRA2VConfig, RefinerConfig
from models.layers import KeyValues, start_at_zero
from models.public.wan import Block, Context, CrossAttention, Wan, WanConfig
from models.public.wan_files import load_wan


@dataclass(frozen=True)
class WanLRA2VConfig(LRA2VConfig):
    """LR-A2V on a Wan transformer; its transformer settings and `features` are not used."""

    wan: WanConfig = field(default_factory=WanConfig)
    text_width: int = 4096
    audio_width: int = 768
    motion_dim: int = 0
    prediction: str = "velocity"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_base(self.wan, self.latent_channels)
        if self.text_width != self.wan.text_dim:
            raise ValueError(f"text_width must be the base's {self.wan.text_dim}, got {self.text_width}")


@dataclass(frozen=True)
class WanRefinerConfig(RefinerConfig):
    """PG-Refiner on a Wan transformer; its transformer settings and `features` are not used."""

    wan: WanConfig = field(default_factory=WanConfig)
    prediction: str = "velocity"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_base(self.wan, self.latent_channels)


def _check_base(wan: WanConfig, latent_channels: int) -> None:
    wanted = latent_channels if wan.image_dim is None else 2 * latent_channels + 4
    if wan.out_dim != latent_channels or wan.in_dim != wanted:
        raise ValueError(
            f"a base of latents of {latent_channels} channels has {wanted} in and {latent_channels} out,"
            f" got {wan.in_dim} and {wan.out_dim}"
        )


@dataclass(frozen=True)
class HearingContext(Context):
    """And the sound: keys and values [B, A, N, f, K, d], the stream [B, S] of each token of the picture."""

    audio: KeyValues | None = None
    stream_index: Tensor | None = None


class HearingAttention(CrossAttention):
    """Decoupled cross-attention, Eq. 4: sound is added with keys and values of its own, which start at zero."""

    def __init__(self, config: WanConfig, audio_width: int) -> None:
        super().__init__(config)
        self.k_audio, self.v_audio = nn.Linear(audio_width, config.dim), nn.Linear(audio_width, config.dim)
        self.norm_k_audio = nn.RMSNorm(config.dim, eps=config.eps)
        start_at_zero(self.v_audio)

    def hear(self, seen: Context, audio: Tensor, stream_index: Tensor | None) -> HearingContext:
        """Tokens of sound [B, A, f, K, audio_width] beside what has been seen."""
        keys, values = self.k_audio(audio), self.v_audio(audio)
        gain = self.norm_k_audio.weight.to(keys.dtype)  # in fp32 while it is trained
        keys = F.rms_norm(keys, gain.shape, gain, self.eps)
        heard = [rearrange(part, "b a f k (n d) -> b a n f k d", n=self.heads) for part in (keys, values)]
        return HearingContext(seen.text, seen.image, (heard[0], heard[1]), stream_index)

    def attend(self, x: Tensor, context: Context) -> Tensor:
        if not isinstance(context, HearingContext) or context.audio is None:
            return super().attend(x, context)
        q = rearrange(self.norm_q(self.q(x)), "b f s (n d) -> b n f s d", n=self.heads)
        answer = dual_cross_attention(q, *context.text, *context.audio, stream_index=context.stream_index).flatten(2, 3)
        return answer if context.image is None else answer + attention(q.flatten(2, 3), *context.image)


class HearingBlock(Block):
    """A block of the base that hears."""

    def __init__(self, config: WanConfig, audio_width: int) -> None:
        super().__init__(config)
        self.cross_attn = HearingAttention(config, audio_width)


class WanLRA2V(nn.Module):
    """`LRA2V` with a Wan transformer inside. `wan` without the audio parameters is the base, as published."""

    def __init__(self, config: WanLRA2VConfig) -> None:
        super().__init__()
        self.config = config
        self.wan = Wan(config.wan, partial(HearingBlock, audio_width=config.audio_width))
        self.audio_position = nn.Parameter(torch.randn(config.audio_window, config.audio_width) * 0.02)

    def forward(
        self,
        window: Tensor,
        timesteps: Tensor,
        new: int,
        text: Tensor,
        audio: Tensor,
        motion: Tensor | None = None,
        stream_index: Tensor | None = None,
        base: Tensor | None = None,
        prefix_kv: Sequence[KeyValues] | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """Predict the clean new latents.

        Args:
            window: [B, C, 1 + m + n, H, W]; the reference, motion latents, latents at their timesteps.
            timesteps: [B, 1 + m + n] in 0 (noise) … 1 (clean).
            new: n, latents to predict at the end of the window.
            text: [B, Lt, text_width] of UMT5, filled up with zeros.
            audio: [B, A, 1 + m + n, audio_window, audio_width] sound tokens around each latent, of A streams.
            stream_index: [B, H/2·W/2] int64, the sound stream of each place in the picture; None when A is 1.
            image: [B, 257, image_dim], CLIP's view of the reference, for a base that wants it.
            motion, base, prefix_kv: of the small models; must be None.

        Returns:
            denoised latents [B, C, n, H, W].

        Raises:
            ValueError: for what a Wan base does not take.
        """
        if motion is not None or base is not None or prefix_kv is not None:
            raise ValueError("LR-A2V on a Wan base takes no motion plan, base or kept prefix")
        audio = audio + self.audio_position
        layers = cast(list[HearingAttention], self.wan.cross_attentions)
        seen = self.wan.look(text, image)
        contexts = tuple(layer.hear(what, audio, stream_index) for layer, what in zip(layers, seen, strict=True))
        velocity = self.wan(base_input(window, timesteps, self.config.wan), 1000 * (1 - timesteps), contexts)
        return denoised(window, timesteps, velocity, new)


class WanRefiner(nn.Module):
    """`PGRefiner` with a Wan transformer inside; the prompt is learned, from that of nothing."""

    def __init__(self, config: WanRefinerConfig) -> None:
        super().__init__()
        self.config, wan = config, config.wan
        self.wan = Wan(wan)
        self.degraded = nn.Conv3d(config.latent_channels, wan.dim, wan.patch_size, stride=wan.patch_size, bias=False)
        self.pose = nn.Linear(config.pose_token_dim, wan.dim)
        self.prompt = nn.Parameter(torch.zeros(1, 1, wan.text_dim))
        for layer in (self.degraded, self.pose):
            start_at_zero(layer)

    def forward(
        self,
        window: Tensor,
        timesteps: Tensor,
        new: int,
        degraded: Tensor,
        pose_tokens: Tensor,
        base: Tensor | None = None,
        prefix_kv: Sequence[KeyValues] | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        """Predict the clean new latents.

        Args:
            window: [B, C, 1 + m + n, H, W]; the reference, motion latents, latents at their timesteps.
            timesteps: [B, 1 + m + n] in 0 (noise) … 1 (clean).
            new: n, latents to predict at the end of the window.
            degraded: [B, C, 1 + m + n, H, W] LPF(z_lr) + α·ε on the HR grid (Eq. 5); zeros where dropped.
            pose_tokens: [B, 1 + m + n, H/2·W/2, pose_token_dim]; zeros where dropped.
            image: [B, 257, image_dim], CLIP's view of the reference, for a base that wants it.
            base, prefix_kv: of the small models; must be None.

        Returns:
            denoised latents [B, C, n, H, W].

        Raises:
            ValueError: for what a Wan base does not take.
        """
        if base is not None or prefix_kv is not None:
            raise ValueError("the refiner on a Wan base takes no base and no kept prefix")
        patches = self.wan.patch_embedding(base_input(window, timesteps, self.config.wan)) + self.degraded(degraded)
        patches = patches + rearrange(self.pose(pose_tokens), "b f (y x) d -> b d f y x", y=patches.shape[3])
        contexts = self.wan.look(self.prompt.expand(window.shape[0], -1, -1), image)
        return denoised(window, timesteps, self.wan.run(patches, 1000 * (1 - timesteps), contexts), new)


def base_input(window: Tensor, timesteps: Tensor, config: WanConfig) -> Tensor:
    """What the base takes of a window [B, C, T, H, W]: itself; for I2V also which latents are known, and those.

    I2V has four channels of mask, one for each frame of a latent, and the known latents; zeros elsewhere.
    """
    if config.image_dim is None:
        return window
    known = (timesteps == 1)[:, None, :, None, None].to(window.dtype)
    return torch.cat([window, known.expand(-1, 4, -1, *window.shape[3:]), window * known], dim=1)


def denoised(window: Tensor, timesteps: Tensor, velocity: Tensor, new: int) -> Tensor:
    """Clean new latents from Wan's velocity (noise minus data)."""
    remaining = (1 - timesteps[:, None, -new:, None, None]).to(window.dtype)
    return window[:, :, -new:] - remaining * velocity[:, :, -new:]


def load_base(model: Wan, path: Path) -> None:
    """Load a published Wan transformer, Wan's names or diffusers', whole or in shards; what is added stays as it is.

    Raises:
        CheckpointError: if it cannot be read or is another model.
    """
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in Wan(model.config).state_dict().items()}
    load_wan(model, expected, path)
