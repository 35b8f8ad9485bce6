"""The definition of the low-pass filter and of the noise added to it."""

import math

import torch
from torch import Tensor

from kernels.low_pass.philox import standard_normal

RADIUS_IN_SIGMAS = 2.5
SMALLEST_SIGMA = 0.1  # below, the neighbours' weight is under 1e-21: no filter


def gaussian_taps(sigma: float, device: torch.device | str = "cpu") -> Tensor:
    """Weights of a Gaussian of `sigma` latent pixels, summing to 1: fp32 [2r + 1], r = ceil(2.5 · sigma)."""
    radius = filter_radius(sigma)
    distances = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (distances / sigma) ** 2) if radius else torch.ones(1, dtype=torch.float64)
    return (weights / weights.sum()).to(device, torch.float32)


def filter_radius(sigma: float) -> int:
    """Latent pixels the filter reaches to each side."""
    return math.ceil(RADIUS_IN_SIGMAS * sigma) if sigma >= SMALLEST_SIGMA else 0


def reflected_indices(size: int, shift: int, device: torch.device | str = "cpu") -> Tensor:
    """Where each of `size` pixels reads at `shift`: int64 [size], mirrored at the edges without repeating
    them.

    A shift that leaves the far side is mirrored again, so a filter may be wider than the frame.
    """
    period = max(2 * (size - 1), 1)
    indices = (torch.arange(size, device=device) + shift).abs() % period
    return torch.minimum(indices, period - indices) if size > 1 else torch.zeros_like(indices)


def low_pass_reference(latents: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of each frame of [B, C, T, h, w], along w and then along h, one shifted copy a tap."""
    return _filter(latents.float(), sigma).to(latents.dtype)


def low_pass_noise_reference(
    latents: Tensor, sigma: float, noise_scale: float, seed: int | Tensor, offset: int | Tensor = 0
) -> Tensor:
    """LPF(z) + α · ε (Eq. 5) in fp32, rounded once to the dtype of `latents` [B, C, T, h, w]."""
    noise = standard_normal(tuple(latents.shape), seed, offset, device=latents.device)
    return (_filter(latents.float(), sigma) + noise_scale * noise).to(latents.dtype)


def _filter(frames: Tensor, sigma: float) -> Tensor:
    for dim in (-1, -2):
        taps = gaussian_taps(sigma, frames.device)
        radius = len(taps) // 2
        shifted = (
            weight * frames.index_select(dim, reflected_indices(frames.shape[dim], shift, frames.device))
            for shift, weight in zip(range(-radius, radius + 1), taps, strict=True)
        )
        frames = sum(shifted, torch.zeros_like(frames))
    return frames
