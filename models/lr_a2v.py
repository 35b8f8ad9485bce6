"""LR-A2V (§3.1): the low-resolution audio-to-video diffusion transformer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.configs import LRA2VConfig
from models.layers import (
    Block,
    Conditions,
    LatentHead,
    LatentStem,
    rope_3d,
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
        self.blocks = nn.ModuleList(
            Block(config.transformer, index, config.text_width, audio_width)
            for index in range(config.transformer.layers)
        )
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

        Returns:
            denoised latents [B, C, n, H, W].
        """
        frames, height, width = window.shape[2:]
        reference = window[:, :, :1]
        audio = audio + self.audio_position
        condition = self.audio_norm(self.audio_pool(rearrange(audio, "b a t k d -> b a t (k d)")))
        if self.motion_pool is not None and motion is not None:
            plan = self.motion_norm(self.motion_pool((motion / self.motion_scale).flatten(2)))
            condition = condition + plan[:, None]
        condition = F.silu(condition + self.time(timestep_embedding(timesteps, _TIME_DIM))[:, None])
        modulation = select_stream(self.modulation(condition).unflatten(-1, (6, -1)), stream_index)

        # Scaled by t: pure noise says nothing about the data, so at t = 0 nothing of it comes in.
        before = window[:, :, frames - new - 1 : frames - new]  # the last motion latent; the reference at the start
        scaled = window * timesteps[:, None, :, None, None]
        base = reference.expand(-1, -1, new, -1, -1) if base is None else base
        bases = torch.cat([window[:, :, : frames - new], base], dim=2)
        latents = torch.cat([scaled, reference.expand_as(window), before.expand_as(window), bases], dim=1)
        tokens, features = self.stem(latents)
        roles = torch.full((frames,), _MOTION, device=window.device)
        roles[0], roles[frames - new :] = _REFERENCE, _NEW
        tokens = tokens + self.roles[roles][None, :, None]
        tokens = tokens + select_stream(self.condition_tokens(condition), stream_index)

        grid = (frames, height // 2, width // 2)
        rope = rope_3d(grid, self.config.transformer.head_dim, window.device)
        conditions = Conditions(text, audio, stream_index)
        for block in self.blocks:
            tokens = block(tokens, modulation, rope, grid, frames - new, conditions)
        change = self.head(tokens[:, frames - new :], features[:, :, frames - new :])
        if self.config.prediction == "denoised":
            return base + change
        remaining = (1 - timesteps[:, None, frames - new :, None, None]).to(change.dtype)
        return window[:, :, frames - new :] + remaining * change
