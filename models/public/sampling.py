"""How the families of FlashHead come from noise, or from the reference itself, to latents.

Time steps t run from 1000 (noise) to 0 (data); a network predicts v = noise - data. The first latents of a chunk, its
prefix, are those of the frames before: they are written over the noisy ones before every step and once after the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # latents [B, C, f, h, w], time step [B] fp32 → v
Draw = Callable[[int], Tensor]  # which draw of the chunk → unit normal noise like the latents

SHIFT = 5.0
LAST_BRIDGE_STEP = -1.0  # where LeapTalk's bridge ends: one step past the data


def shifted(times: Sequence[float]) -> Tensor:
    """Even time steps u → t = 1000·5u' / (1 + 4u') with u' = u / 1000, fp32: more of them near the noise."""
    u = torch.tensor(times, dtype=torch.float64) / 1000
    return (1000 * SHIFT * u / (1 + (SHIFT - 1) * u)).float()


def few_timesteps(steps: int) -> Tensor:
    """Time steps [steps + 1] of the distilled models: 4 are 1000, 937.5, 833.3, 625, 0.

    Raises:
        ValueError: if steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return shifted([1000 * (steps - i) / steps for i in range(steps + 1)])


def teacher_timesteps(steps: int) -> Tensor:
    """Time steps [steps + 1] of the models before distillation."""
    return shifted([*torch.linspace(1000, 1, steps, dtype=torch.float64).tolist(), 0.0])


def few_steps(velocity: Velocity, draw: Draw, prefix: Tensor, timesteps: Tensor) -> Tensor:
    """The distilled models' sampler: predict the data, and put fresh noise of the next time step on it.

    Args:
        velocity: the network, bound to a chunk.
        draw: noise; 0 is the start, i + 1 what follows step i. The last is not asked for: nothing of it would be left.
        prefix: [B, C, p, h, w].
        timesteps: [steps + 1] fp32, the last 0.

    Returns:
        latents [B, C, f, h, w] in the dtype of the draws.
    """
    latents = draw(0)
    parts = (timesteps / 1000).to(latents.dtype).to(latents.device)
    for i, t in enumerate(timesteps[:-1]):
        latents = with_prefix(latents, prefix)
        denoised = latents - velocity(latents, t.expand(len(latents))) * parts[i]
        if i + 2 < len(timesteps):
            latents = (1 - parts[i + 1]) * denoised + parts[i + 1] * draw(i + 1)
        else:
            latents = denoised
    return with_prefix(latents, prefix)


def euler(velocity: Velocity, draw: Draw, prefix: Tensor, timesteps: Tensor) -> Tensor:
    """The sampler of a model before distillation: plain Euler steps. Arguments as in `few_steps`; one draw."""
    latents = draw(0)
    for t, following in zip(timesteps, timesteps[1:], strict=False):
        latents = with_prefix(latents, prefix)
        part = ((following - t) / 1000).to(latents.dtype).to(latents.device)
        latents = latents + velocity(latents, t.expand(len(latents))) * part
    return with_prefix(latents, prefix)


def bridge(velocity: Velocity, draw: Draw, prefix: Tensor, timesteps: Tensor, reference: Tensor) -> Tensor:
    """LeapTalk's sampler: a Brownian bridge from the reference's latents to those of the frames.

    Args:
        draw: noise of each step but the last, which takes none; so one step takes no noise at all.
        timesteps: [steps] fp32; the last step ends at -1.
        reference: [B, C, f, h, w], of the picture as a still video.
    """
    latents = with_prefix(reference, prefix)
    times = [*timesteps.tolist(), LAST_BRIDGE_STEP]
    for i, (t, following) in enumerate(zip(times, times[1:], strict=False)):
        step, place = (following - t) / 1000, (t - LAST_BRIDGE_STEP) / 1000
        spread = math.sqrt(max(0.0, -step * (place + step) / place))
        latents = latents + step * velocity(latents, timesteps[i].expand(len(latents)))
        if spread:
            latents = latents + spread * draw(i)
        latents = with_prefix(latents, prefix)
    return latents


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance on velocities."""

    def velocity(latents: Tensor, t: Tensor) -> Tensor:
        without = unconditional(latents, t)
        return without + scale * (conditional(latents, t) - without)

    return velocity


def with_prefix(latents: Tensor, prefix: Tensor) -> Tensor:
    """Latents with the first ones replaced."""
    return torch.cat([prefix, latents[:, :, prefix.shape[2] :]], dim=2)
