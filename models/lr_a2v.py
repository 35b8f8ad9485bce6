"""LR-A2V (§3.1): the low-resolution audio-to-video diffusion transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.configs import LRA2VConfig
from models.layers import (
    BlockStack,
    Conditions,
    KeyValues,
    LatentHead,
    LatentStem,
    select_stream,
    start_at_zero,
    timestep_embedding,
)
from models.motion import MOTION_SCALE

_REFERENCE, _MOTION, _NEW = 0, 1, 2
_TIME_DIM = 128


class LRA2V(nn.Module):
    """Window [reference | m motion latents | n noisy latents] + sound + prompt + motion plan → denoised latents.

    The reference and the latent before enter twice: as the prefix that attention reads, and on the channels of every
    latent, where they are seen without having been found. The output is a base plus a residual: the base is the
    reference moved by the animator, or the reference itself.
    """

    motion_scale: Tensor

    def __init__(self, config: LRA2VConfig) -> None:
        super().__init__()
        self.config = config
        width, audio_width = config.transformer.width, config.audio_width
        self.stem = LatentStem(4 * config.latent_channels, config.features, width)
        self.roles = nn.Parameter(torch.randn(3, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(_TIME_DIM, width), nn.SiLU(), nn.Linear(width, width))
        self.audio_position = nn.Parameter(torch.randn(config.audio_window, audio_width) * 0.02)
        self.audio_pool = nn.Linear(config.audio_window * audio_width, width)
        self.motion_pool = (
            nn.Sequential(nn.Linear(4 * config.motion_dim, width), nn.SiLU(), nn.Linear(width, width))
            if config.motion_dim
            else None
        )
        self.register_buffer("motion_scale", torch.tensor(MOTION_SCALE[: config.motion_dim]), persistent=False)
        self.modulation = nn.Linear(width, 6 * width)
        self.audio_norm, self.motion_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.condition_tokens = nn.Linear(width, width)
        self.blocks = BlockStack(config.transformer, config.text_width, audio_width)
        self.head = LatentHead(width, config.features, config.latent_channels)
        for layer in (self.modulation, self.condition_tokens):
            start_at_zero(layer)

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
    ) -> Tensor:
        """Predict the clean new latents.

        Args:
            window: [B, C, 1 + m + n, H, W]; the reference, motion latents, latents at their timesteps.
            timesteps: [B, 1 + m + n] in 0 (noise) … 1 (clean).
            new: n, latents to predict at the end of the window.
            text: [B, Lt, text_width] prompt tokens.
            audio: [B, A, 1 + m + n, audio_window, audio_width] sound tokens around each latent, of A streams.
            motion: [B, 1 + m + n, 4, motion_dim], the motion plan of each latent's frames.
            stream_index: [B, H/2·W/2] int64, the sound stream of each place in the picture; None when A is 1.
            base: [B, C, n, H, W], what the new latents are a change of; None: the reference.
            prefix_kv: what `encode_prefix` gave for the first 1 + m latents, which are then not gone over again.

        Returns:
            denoised latents [B, C, n, H, W].

        Raises:
            ValueError: if prefix_kv is given without `prefix_causal`.
        """
        base = window[:, :, :1].expand(-1, -1, new, -1, -1) if base is None else base
        tokens, features, _ = self._tokens(window, timesteps, new, text, audio, motion, stream_index, base, prefix_kv)
        change = self.head(tokens[:, -new:], features[:, :, -new:])
        if self.config.prediction == "denoised":
            return base + change
        remaining = (1 - timesteps[:, None, -new:, None, None]).to(change.dtype)
        return window[:, :, -new:] + remaining * change

    def encode_prefix(
        self,
        prefix: Tensor,
        text: Tensor,
        audio: Tensor,
        motion: Tensor | None = None,
        stream_index: Tensor | None = None,
    ) -> tuple[KeyValues, ...]:
        """Keys and values of every layer for the clean latents [B, C, 1 + m, H, W] of a window.

        They serve all steps over that window. Arguments as in `forward`, of these latents only.

        Raises:
            ValueError: without `prefix_causal`.
        """
        timesteps = prefix.new_ones(prefix.shape[0], prefix.shape[2])
        return self._tokens(prefix, timesteps, 0, text, audio, motion, stream_index, prefix[:, :, :0], None)[2]

    def _tokens(
        self,
        window: Tensor,
        timesteps: Tensor,
        new: int,
        text: Tensor,
        audio: Tensor,
        motion: Tensor | None,
        stream_index: Tensor | None,
        base: Tensor,
        prefix_kv: Sequence[KeyValues] | None,
    ) -> tuple[Tensor, Tensor, tuple[KeyValues, ...]]:
        """Tokens [B, T, S, D], features [B, F, T, H, W], and where all is clean keys and values by block.

        T counts the new latents only if `prefix_kv` stands for the others.
        """
        frames, height, width = window.shape[2:]
        clean = frames - new
        first = 0 if prefix_kv is None else clean  # the latents from here on are gone over
        audio = audio[:, :, first:] + self.audio_position
        condition = self.audio_norm(self.audio_pool(rearrange(audio, "b a t k d -> b a t (k d)")))
        if self.motion_pool is not None and motion is not None:
            plan = self.motion_norm(self.motion_pool((motion[:, first:] / self.motion_scale).flatten(2)))
            condition = condition + plan[:, None]
        condition = F.silu(condition + self.time(timestep_embedding(timesteps[:, first:], _TIME_DIM))[:, None])
        modulation = select_stream(self.modulation(condition).unflatten(-1, (6, -1)), stream_index)

        # Scaled by t: pure noise says nothing about the data, so at t = 0 nothing of it comes in.
        before = window[:, :, clean - 1 : clean]  # the last motion latent; the reference at the start
        bases = torch.cat([window[:, :, :clean], base], dim=2)
        scaled = window * timesteps[:, None, :, None, None]
        parts = [scaled, window[:, :, :1].expand_as(window), before.expand_as(window), bases]
        tokens, features = self.stem(torch.cat([part[:, :, first:] for part in parts], dim=1))
        roles = torch.full((frames,), _MOTION, device=window.device)
        roles[0], roles[clean:] = _REFERENCE, _NEW
        tokens = tokens + self.roles[roles[first:]][None, :, None]
        tokens = tokens + select_stream(self.condition_tokens(condition), stream_index)

        grid, conditions = (frames, height // 2, width // 2), Conditions(text, audio, stream_index)
        tokens, kept = self.blocks(tokens, modulation, grid, new, conditions, prefix_kv)
        return tokens, features, kept
