"""The definition of norms with adaptive scale and shift, and of the residual before them."""

import torch
from torch import Tensor


def normalised(x: Tensor, norm: str, eps: float) -> Tensor:
    """LayerNorm ("layer") or RMSNorm ("rms") over the last dimension, without parameters, in fp32."""
    x = x.float()
    if norm == "layer":
        x = x - x.mean(dim=-1, keepdim=True)
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


def modulate_reference(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    norm: str,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """(norm(x) · weight + bias) · (1 + scale) + shift in fp32, rounded once to the dtype of x [B, T, S, D]."""
    y = normalised(x, norm, eps)
    y = y if weight is None else y * weight.float()
    y = y if bias is None else y + bias.float()
    y = y if scale is None else y * (1 + scale.float())
    y = y if shift is None else y + shift.float()
    return y.to(x.dtype)


def residual_modulate_reference(
    x: Tensor,
    branch: Tensor,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    norm: str,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """x + gate · branch, rounded to the dtype of x, and `modulate_reference` of what was rounded."""
    gated = branch.float() if gate is None else branch.float() * gate.float()
    total = (x.float() + gated).to(x.dtype)
    return total, modulate_reference(total, scale, shift, norm=norm, weight=weight, bias=bias, eps=eps)
