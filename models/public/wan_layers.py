"""What all Wan-shaped transformers here are made of: attention over published names, rotary embedding, time steps.

The two channels that rotary embedding turns together lie half a head apart in memory, where the published ones are
neighbours: `half_split` moves them when weights are loaded, and nothing else changes, for queries and keys are moved
alike. So the kernels serve it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, nn

from kernels.attention import attention
from kernels.qk_norm_rope import qk_norm_rope

KeyValues = tuple[Tensor, Tensor]


class Shape(Protocol):
    """What attention must know of a configuration."""

    @property
    def dim(self) -> int: ...

    @property
    def num_heads(self) -> int: ...

    @property
    def eps(self) -> float: ...


class Attention(nn.Module):
    """Projections, and RMSNorms of queries and keys over all heads at once."""

    def __init__(self, config: Shape) -> None:
        super().__init__()
        self.heads, self.eps = config.num_heads, config.eps
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.dim, eps=config.eps) for _ in range(2))

    def heads_of(self, x: Tensor) -> Tensor:
        """[…, L, N·d] → […, N, L, d]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


class SelfAttention(Attention):
    """Every token sees every token, at its place."""

    def forward(self, x: Tensor, rope: KeyValues) -> Tensor:
        """x [B, f, S, D], rope of its tokens → the same shape."""
        q, k, v = (self.heads_of(project(x.flatten(1, 2))) for project in (self.q, self.k, self.v))
        q_gain, k_gain = (norm.weight.unflatten(0, (self.heads, -1)) for norm in (self.norm_q, self.norm_k))
        q, k = qk_norm_rope(q, k, q_gain, k_gain, rope, eps=self.eps)
        return self.o(attention(q, k, v).transpose(1, 2).reshape(x.shape))


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    """Embedding [..., width] of time steps in 0 … 1000, cosines before sines, float64."""
    places = torch.arange(width // 2, dtype=torch.float64, device=timesteps.device)
    angles = timesteps.double()[..., None] * 10000 ** (-places / (width // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@lru_cache(maxsize=16)
def rope_angles(grid: tuple[int, ...], head_dim: int, device: torch.device) -> KeyValues:
    """Cosines and sines [f·y·x, d / 2] fp32 of 3D rotary embedding: time first, then rows, then columns.

    Rows and columns take a third of the channels each, rounded down to pairs, and time the rest.
    """
    space = 2 * (head_dim // 6)
    with torch.inference_mode(False):
        axes = [torch.arange(size, dtype=torch.float64, device=device) for size in grid]
        angles = []
        widths = (head_dim - 2 * space, space, space)
        for places, width in zip(torch.meshgrid(*axes, indexing="ij"), widths, strict=True):
            powers = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
            angles.append(places.flatten()[:, None] * 10000**-powers)
        joined = torch.cat(angles, dim=1)
        return joined.cos().float(), joined.sin().float()


def half_split(rows: Tensor, heads: int) -> Tensor:
    """Rows [N·d, …] in which neighbours are the pairs of rotary embedding → the same with the pairs d / 2 apart."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)
