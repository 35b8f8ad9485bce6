"""Rows to int8 as a Triton kernel: each row is read once and written once as bytes and one scale."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.int8 import INT8_MAX, SMALLEST_SCALE

ROWS = 16
WARPS = 4


def quantise_rows_triton(x: Tensor, mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As `int8.quantise_rows`; mean fp32 [B, N, 1, d], contiguous."""
    batch, heads, length, head_dim = x.shape
    rows = torch.empty(x.shape, dtype=torch.int8, device=x.device)
    scales = torch.empty(x.shape[:3], dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _quantise_kernel[(triton.cdiv(length, ROWS), batch * heads)](
            x,
            mean,
            rows,
            scales,
            *x.stride(),
            heads,
            length,
            1.0 / INT8_MAX,
            SMALLEST_SCALE,
            HEAD_DIM=head_dim,
            BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
            ROWS=ROWS,
            HAS_MEAN=mean is not None,
            num_warps=WARPS,
        )
    return rows, scales


@triton.jit
def _quantise_kernel(
    x_ptr,
    mean_ptr,
    rows_ptr,
    scales_ptr,
    stride_b,
    stride_n,
    stride_l,
    stride_d,
    heads,
    length,
    per_step,
    smallest,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_MEAN: tl.constexpr,
):
    tokens = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    line = tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, BLOCK_D)
    mask = (tokens < length)[:, None] & (channels < HEAD_DIM)[None, :]
    x_head = x_ptr + line // heads * stride_b + line % heads * stride_n
    x = tl.load(x_head + tokens.to(tl.int64)[:, None] * stride_l + channels[None, :] * stride_d, mask=mask, other=0.0)
    x = x.to(tl.float32)
    if HAS_MEAN:
        mean = tl.load(mean_ptr + line * HEAD_DIM + channels, mask=channels < HEAD_DIM, other=0.0)
        x = tl.where(mask, x - mean[None, :], 0.0)
    scales = tl.maximum(tl.max(tl.abs(x), 1) * per_step, smallest)
    steps = tl.floor(x / scales[:, None] + 0.5)
    places = line * length + tokens
    tl.store(rows_ptr + places[:, None] * HEAD_DIM + channels[None, :], steps.to(tl.int8), mask=mask)
    tl.store(scales_ptr + places, scales, mask=tokens < length)
