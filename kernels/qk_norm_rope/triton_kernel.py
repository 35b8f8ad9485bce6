"""RMSNorm and rotary embedding of q and k as one Triton kernel.

One program handles one token of one row, all heads of both tensors: its angles are read once, and a norm over all
heads is a sum inside the program. It reads a token whole before it writes it, so it may write in place.
All arithmetic is fp32; the result is rounded once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 4


def qk_norm_rope_triton(
    q: Tensor,
    k: Tensor,
    q_gain: Tensor,
    k_gain: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    out: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Launch the kernel; arguments as in `kernels.qk_norm_rope.qk_norm_rope`, already checked."""
    batch, heads, length, head_dim = q.shape
    q_out, k_out = (torch.empty_like(q), torch.empty_like(k)) if out is None else out
    if q.numel() == 0:
        return q_out, k_out
    with torch.cuda.device_of(q):
        _qk_norm_rope_kernel[(length, batch)](
            q,
            k,
            q_gain.contiguous(),
            k_gain.contiguous(),
            cos,
            sin,
            q_out,
            k_out,
            *q.stride(),
            *k.stride(),
            *q_out.stride(),
            *k_out.stride(),
            *cos.stride(),
            *sin.stride(),
            eps,
            HEADS=heads,
            HALF=head_dim // 2,
            BLOCK_N=triton.next_power_of_2(heads),
            BLOCK_H=triton.next_power_of_2(head_dim // 2),
            IS_ACROSS_HEADS=q_gain.ndim == 2,
            num_warps=WARPS,
        )
    return q_out, k_out


@triton.jit
def _norm_rope(
    x_ptr,
    gain_ptr,
    out_ptr,
    stride_n,
    stride_d,
    out_stride_n,
    out_stride_d,
    cos,
    sin,
    eps,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    IS_ACROSS_HEADS: tl.constexpr,
):
    heads = tl.arange(0, BLOCK_N)[:, None]
    channels = tl.arange(0, BLOCK_H)[None, :]
    mask = (heads < HEADS) & (channels < HALF)
    places = heads * stride_n + channels * stride_d
    first = tl.load(x_ptr + places, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(x_ptr + places + HALF * stride_d, mask=mask, other=0.0).to(tl.float32)
    squares = tl.sum(first * first + second * second, 1)
    if IS_ACROSS_HEADS:
        factor = 1.0 / tl.sqrt(tl.sum(squares, 0) / (HEADS * 2 * HALF) + eps)
        gains = gain_ptr + heads * (2 * HALF) + channels
    else:
        factor = (1.0 / tl.sqrt(squares / (2 * HALF) + eps))[:, None]
        gains = gain_ptr + heads * 0 + channels
    first *= factor * tl.load(gains, mask=mask, other=0.0).to(tl.float32)
    second *= factor * tl.load(gains + HALF, mask=mask, other=0.0).to(tl.float32)
    targets = out_ptr + heads * out_stride_n + channels * out_stride_d
    tl.store(targets, (first * cos - second * sin).to(out_ptr.dtype.element_ty), mask=mask)
    rotated = first * sin + second * cos
    tl.store(targets + HALF * out_stride_d, rotated.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _qk_norm_rope_kernel(
    q_ptr,
    k_ptr,
    q_gain_ptr,
    k_gain_ptr,
    cos_ptr,
    sin_ptr,
    q_out_ptr,
    k_out_ptr,
    q_stride_b,
    q_stride_n,
    q_stride_l,
    q_stride_d,
    k_stride_b,
    k_stride_n,
    k_stride_l,
    k_stride_d,
    q_out_stride_b,
    q_out_stride_n,
    q_out_stride_l,
    q_out_stride_d,
    k_out_stride_b,
    k_out_stride_n,
    k_out_stride_l,
    k_out_stride_d,
    cos_stride_l,
    cos_stride_d,
    sin_stride_l,
    sin_stride_d,
    eps,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_H: tl.constexpr,
    IS_ACROSS_HEADS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, BLOCK_H)
    is_inside = channels < HALF
    cos = tl.load(cos_ptr + token * cos_stride_l + channels * cos_stride_d, mask=is_inside, other=0.0)
    sin = tl.load(sin_ptr + token * sin_stride_l + channels * sin_stride_d, mask=is_inside, other=0.0)
    cos = cos.to(tl.float32)[None, :]
    sin = sin.to(tl.float32)[None, :]
    _norm_rope(
        q_ptr + batch * q_stride_b + token * q_stride_l, q_gain_ptr,
        q_out_ptr + batch * q_out_stride_b + token * q_out_stride_l,
        q_stride_n, q_stride_d, q_out_stride_n, q_out_stride_d, cos, sin, eps,
        HEADS, HALF, BLOCK_N, BLOCK_H, IS_ACROSS_HEADS,
    )  # fmt: skip
    _norm_rope(
        k_ptr + batch * k_stride_b + token * k_stride_l, k_gain_ptr,
        k_out_ptr + batch * k_out_stride_b + token * k_out_stride_l,
        k_stride_n, k_stride_d, k_out_stride_n, k_out_stride_d, cos, sin, eps,
        HEADS, HALF, BLOCK_N, BLOCK_H, IS_ACROSS_HEADS,
    )  # fmt: skip
