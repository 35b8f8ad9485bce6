"""Sampling by the flow-matching path of Eq. 1: z_t = (1 - t)·ε + t·z, velocity v = z - ε, t from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


def noised(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Eq. 1 for latents [B, C, T, H, W] and timesteps [B] in 0 … 1."""
    t = timesteps[:, None, None, None, None]
    return (1 - t) * noise + t * clean


def euler(denoise: Denoiser, noise: Tensor, steps: int) -> Tensor:
    """Integrate from noise to data in equal Euler steps; one step returns the denoiser's answer to pure noise.

    Args:
        denoise: (latents at t [B, C, T, H, W], t [B]) → denoised latents.
        noise: [B, C, T, H, W], unit normal.
        steps: ≥ 1.

    Raises:
        ValueError: if steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    latents = noise
    for step in range(steps):
        t = step / steps
        denoised = denoise(latents, torch.full((len(noise),), t, device=noise.device, dtype=noise.dtype))
        latents = latents + (denoised - latents) / (1 - t) / steps
    return latents


def guided(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance on denoised latents (the same line as on velocities, at one t)."""

    def denoise(latents: Tensor, t: Tensor) -> Tensor:
        without = unconditional(latents, t)
        return without + scale * (conditional(latents, t) - without)

    return denoise
