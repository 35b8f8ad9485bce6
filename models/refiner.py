"""PG-Refiner (§3.2): low-resolution latents, pose and the reference picture → high-resolution latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.configs import RefinerConfig
from models.layers import BlockStack, KeyValues, LatentHead, LatentStem, timestep_embedding

_REFERENCE, _MOTION, _NEW = 0, 1, 2
_TIME_DIM = 128


def upsample_latents(latents: Tensor) -> Tensor:
    """Latents [B, C, T, h, w] → [B, C, T, 2h, 2w], bilinear in the picture plane."""
    flat = rearrange(latents, "b c t h w -> (b t) c h w")
    larger = F.interpolate(flat, scale_factor=2, mode="bilinear", align_corners=False)
    return rearrange(larger, "(b t) c h w -> b c t h w", b=latents.shape[0])


class PGRefiner(nn.Module):
    """Window [reference | m motion | n noisy] + degraded LR latents (Eq. 5) + pose tokens → denoised HR latents.

    Degraded latents, the reference and the base are further channels of the window; pose tokens are added to the
    tokens one to one. The output is the base plus a residual; the base is the reference moved by the animator to the
    keypoints that were read off the small frames, or the reference itself.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.stem = LatentStem(4 * config.latent_channels, config.features, width)
        self.roles = nn.Parameter(torch.randn(3, width) * 0.02)
        self.time = nn.Sequential(nn.Linear(_TIME_DIM, width), nn.SiLU(), nn.Linear(width, width))
        self.pose = nn.Linear(config.pose_token_dim, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.blocks = BlockStack(config.transformer)
        self.head = LatentHead(width, config.features, config.latent_channels)
        nn.init.zeros_(self.modulation.weight)

    def forward(
        self,
        window: Tensor,
        timesteps: Tensor,
        new: int,
        degraded: Tensor,
        pose_tokens: Tensor,
        base: Tensor | None = None,
        prefix_kv: Sequence[KeyValues] | None = None,
    ) -> Tensor:
        """Predict the clean new latents.

        Args:
            window: [B, C, 1 + m + n, H, W]; the reference, motion latents, latents at their timesteps.
            timesteps: [B, 1 + m + n] in 0 (noise) … 1 (clean).
            new: n, latents to predict at the end of the window.
            degraded: [B, C, 1 + m + n, H, W] LPF(z_lr) + α·ε on the HR grid (Eq. 5); zeros where dropped.
            pose_tokens: [B, 1 + m + n, H/2·W/2, pose_token_dim]; zeros where dropped.
            base: [B, C, n, H, W], what the new latents are a change of; None: the reference.
            prefix_kv: what `encode_prefix` gave for the first 1 + m latents, which are then not gone over again.

        Returns:
            denoised latents [B, C, n, H, W].

        Raises:
            ValueError: if prefix_kv is given without `prefix_causal`.
        """
        base = window[:, :, :1].expand(-1, -1, new, -1, -1) if base is None else base
        tokens, features, _ = self._tokens(window, timesteps, new, degraded, pose_tokens, base, prefix_kv)
        change = self.head(tokens[:, -new:], features[:, :, -new:])
        if self.config.prediction == "denoised":
            return base + change
        remaining = (1 - timesteps[:, None, -new:, None, None]).to(change.dtype)
        return window[:, :, -new:] + remaining * change

    def encode_prefix(self, prefix: Tensor, degraded: Tensor, pose_tokens: Tensor) -> tuple[KeyValues, ...]:
        """Keys and values of every layer for the clean latents [B, C, 1 + m, H, W] of a window.

        They serve all steps over that window. Arguments as in `forward`, of these latents only.

        Raises:
            ValueError: without `prefix_causal`.
        """
        timesteps = prefix.new_ones(prefix.shape[0], prefix.shape[2])
        return self._tokens(prefix, timesteps, 0, degraded, pose_tokens, prefix[:, :, :0], None)[2]

    def _tokens(
        self,
        window: Tensor,
        timesteps: Tensor,
        new: int,
        degraded: Tensor,
        pose_tokens: Tensor,
        base: Tensor,
        prefix_kv: Sequence[KeyValues] | None,
    ) -> tuple[Tensor, Tensor, tuple[KeyValues, ...]]:
        """Tokens [B, T, S, D], features [B, F, T, H, W], and where all is clean keys and values by block.

        T counts the new latents only if `prefix_kv` stands for the others.
        """
        frames, height, width = window.shape[2:]
        clean = frames - new
        first = 0 if prefix_kv is None else clean  # the latents from here on are gone over
        scaled = window * timesteps[:, None, :, None, None]  # pure noise says nothing: at t = 0 none comes in
        bases = torch.cat([window[:, :, :clean], base], dim=2)
        parts = [scaled, degraded, window[:, :, :1].expand_as(window), bases]
        tokens, features = self.stem(torch.cat([part[:, :, first:] for part in parts], dim=1))
        roles = torch.full((frames,), _MOTION, device=window.device)
        roles[0], roles[clean:] = _REFERENCE, _NEW
        tokens = tokens + self.roles[roles[first:]][None, :, None] + self.pose(pose_tokens[:, first:])
        condition = self.time(timestep_embedding(timesteps[:, first:], _TIME_DIM))
        modulation = self.modulation(F.silu(condition)).unflatten(-1, (6, -1))[:, :, None]

        grid = (frames, height // 2, width // 2)
        tokens, kept = self.blocks(tokens, modulation, grid, new, prefix_kv=prefix_kv)
        return tokens, features, kept
