"""The definition of q/k RMSNorm and rotary embedding."""

import torch
from torch import Tensor


def norm_rope_reference(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """RMSNorm of x [B, N, L, d] with `gain`, then its halves rotated by the angles of the tokens.

    A gain [d] is a norm over the channels of each head; [N, d] is one norm over all heads of a token. Everything
    is fp32, rounded once to the dtype of x.
    """
    values = x.float()
    dims = (-1,) if gain.ndim == 1 else (1, 3)
    values = values * torch.rsqrt(values.square().mean(dim=dims, keepdim=True) + eps)
    values = values * (gain if gain.ndim == 1 else gain[:, None]).float()
    first, second = values.chunk(2, dim=-1)
    cos, sin = cos.float(), sin.float()
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1).to(x.dtype)
