"""PG-Refiner (§3.2): low-resolution latents, pose and the reference picture → high-resolution latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.configs import RefinerConfig
from models.layers import Block, LatentHead, LatentStem, rope_3d, timestep_embedding

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
        self.blocks = nn.ModuleList(Block(config.transformer, index) for index in range(config.transformer.layers))
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
    ) -> Tensor:
        """Predict the clean new latents.

        Args:
            window: [B, C, 1 + m + n, H, W]; the reference, motion latents, latents at their timesteps.
            timesteps: [B, 1 + m + n] in 0 (noise) … 1 (clean).
            new: n, latents to predict at the end of the window.
            degraded: [B, C, 1 + m + n, H, W] LPF(z_lr) + α·ε on the HR grid (Eq. 5); zeros where dropped.
            pose_tokens: [B, 1 + m + n, H/2·W/2, pose_token_dim]; zeros where dropped.
            base: [B, C, n, H, W], what the new latents are a change of; None: the reference.

        Returns:
            denoised latents [B, C, n, H, W].
        """
        frames, height, width = window.shape[2:]
        reference = window[:, :, :1]
        scaled = window * timesteps[:, None, :, None, None]  # pure noise says nothing: at t = 0 none comes in
        base = reference.expand(-1, -1, new, -1, -1) if base is None else base
        bases = torch.cat([window[:, :, : frames - new], base], dim=2)
        tokens, features = self.stem(torch.cat([scaled, degraded, reference.expand_as(window), bases], dim=1))
        roles = torch.full((frames,), _MOTION, device=window.device)
        roles[0], roles[frames - new :] = _REFERENCE, _NEW
        tokens = tokens + self.roles[roles][None, :, None] + self.pose(pose_tokens)
        condition = self.time(timestep_embedding(timesteps, _TIME_DIM))
        modulation = self.modulation(F.silu(condition)).unflatten(-1, (6, -1))[:, :, None]

        grid = (frames, height // 2, width // 2)
        rope = rope_3d(grid, self.config.transformer.head_dim, window.device)
        for block in self.blocks:
            tokens = block(tokens, modulation, rope, grid, frames - new)
        change = self.head(tokens[:, frames - new :], features[:, :, frames - new :])
        if self.config.prediction == "denoised":
            return base + change
        remaining = (1 - timesteps[:, None, frames - new :, None, None]).to(change.dtype)
        return window[:, :, frames - new :] + remaining * change
