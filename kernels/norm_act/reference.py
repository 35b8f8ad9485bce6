"""The definition of the VAE's norm and activation."""

import torch
from torch import Tensor


def norm_act_reference(x: Tensor, gain: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """SiLU(x / sqrt(mean over C of x² + eps) · gain + bias), in fp32, rounded once; x [B, C, ...]."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    y = x.float()
    y = y * torch.rsqrt(y.square().mean(dim=1, keepdim=True) + eps) * gain.float().view(shape)
    y = y if bias is None else y + bias.float().view(shape)
    return (y * torch.sigmoid(y)).to(x.dtype)
