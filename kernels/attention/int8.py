"""The definition of 8-bit scores: rows of q and k as int8 with one scale each, k freed of its mean first.

Taking the same vector off every key adds the same number to all scores of a query, which softmax does not see; and
it takes away the part that keys share, which is what makes a few of their channels large (SageAttention, 2024).
"""

import torch
from torch import Tensor

INT8_MAX = 127.0
SMALLEST_SCALE = 1e-30  # of a row of zeros


def key_mean(k: Tensor) -> Tensor:
    """Mean over the tokens of k [B, N, Lk, d], fp32 [B, N, 1, d]; all of them count, masked ones too."""
    return k.mean(dim=2, keepdim=True, dtype=torch.float32)


def quantise_rows(x: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x [B, N, L, d] - mean as int8 of the same shape and fp32 scales [B, N, L]; x ≈ mean + int8 · scale.

    The scale makes the largest magnitude of a row 127; halves are rounded up.
    """
    rows = x.float() if mean is None else x.float() - mean
    scales = (rows.abs().amax(dim=-1) / INT8_MAX).clamp_min(SMALLEST_SCALE)
    return torch.floor(rows / scales[..., None] + 0.5).to(torch.int8), scales


def quantised(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """q and k - mean(k) as fp32 numbers that int8 and a scale a row can hold."""
    q_int, q_scales = quantise_rows(q)
    k_int, k_scales = quantise_rows(k, key_mean(k))
    return q_int.float() * q_scales[..., None], k_int.float() * k_scales[..., None]
