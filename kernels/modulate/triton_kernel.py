"""Residual, norm, scale and shift as one Triton kernel: every input is read once and every output written once.

One program handles a few whole tokens. All arithmetic is fp32; the new x is rounded to its dtype before the norm
(what a later layer reads back is what was normalised), the result once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_TILE = 2048  # numbers a program holds of each input, unless one token has more
WIDE_TOKEN = 1024  # from this padded width on, eight warps

Strides = tuple[int, int, int, int]


def choose_rows(width: int) -> tuple[int, int]:
    """Tokens and warps a program for tokens of `width` channels."""
    padded = triton.next_power_of_2(width)
    return max(1, MAX_TILE // padded), 8 if padded > WIDE_TOKEN else 4


def modulate_triton(
    x: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    norm: str,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor | None, Tensor]:
    """(x + gate · branch or None without a branch, modulated); arguments as in `kernels.modulate`, already checked."""
    batch, frames, tokens, width = x.shape
    output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    total = None if branch is None else torch.empty(x.shape, dtype=x.dtype, device=x.device)
    count = batch * frames * tokens
    if count == 0:
        return total, output
    rows, warps = choose_rows(width)
    with torch.cuda.device_of(x):
        _modulate_kernel[(triton.cdiv(count, rows),)](
            x,
            branch,
            gate,
            scale,
            shift,
            weight,
            bias,
            total,
            output,
            *x.stride(),
            *_strides(branch, x),
            *_strides(gate, x),
            *_strides(scale, x),
            *_strides(shift, x),
            weight.stride(0) if weight is not None else 0,
            bias.stride(0) if bias is not None else 0,
            frames,
            tokens,
            count,
            eps,
            WIDTH=width,
            BLOCK=triton.next_power_of_2(width),
            ROWS=rows,
            IS_LAYER=norm == "layer",
            HAS_BRANCH=branch is not None,
            HAS_GATE=gate is not None,
            HAS_SCALE=scale is not None,
            HAS_SHIFT=shift is not None,
            HAS_WEIGHT=weight is not None,
            HAS_BIAS=bias is not None,
            num_warps=warps,
        )
    return total, output


def _strides(vector: Tensor | None, x: Tensor) -> Strides:
    """Strides with which `vector` is read at the places of x: 0 where it is broadcast."""
    if vector is None:
        return (0, 0, 0, 0)
    b, t, s, d = vector.expand(x.shape).stride()
    return (b, t, s, d)


@triton.jit
def _load_rows(ptr, row_offsets, channels, stride_d, mask):
    return tl.load(ptr + row_offsets[:, None] + channels[None, :] * stride_d, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _modulate_kernel(
    x_ptr,
    branch_ptr,
    gate_ptr,
    scale_ptr,
    shift_ptr,
    weight_ptr,
    bias_ptr,
    total_ptr,
    output_ptr,
    x_stride_b,
    x_stride_t,
    x_stride_s,
    x_stride_d,
    branch_stride_b,
    branch_stride_t,
    branch_stride_s,
    branch_stride_d,
    gate_stride_b,
    gate_stride_t,
    gate_stride_s,
    gate_stride_d,
    scale_stride_b,
    scale_stride_t,
    scale_stride_s,
    scale_stride_d,
    shift_stride_b,
    shift_stride_t,
    shift_stride_s,
    shift_stride_d,
    weight_stride_d,
    bias_stride_d,
    frames,
    tokens,
    count,
    eps,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    IS_LAYER: tl.constexpr,
    HAS_BRANCH: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    HAS_SHIFT: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.arange(0, BLOCK)
    mask = (rows < count)[:, None] & (channels < WIDTH)[None, :]
    token = (rows % tokens).to(tl.int64)
    frame = (rows // tokens % frames).to(tl.int64)
    batch = (rows // tokens // frames).to(tl.int64)
    places = rows.to(tl.int64)[:, None] * WIDTH + channels[None, :]

    x_rows = batch * x_stride_b + frame * x_stride_t + token * x_stride_s
    x = _load_rows(x_ptr, x_rows, channels, x_stride_d, mask)
    if HAS_BRANCH:
        branch_rows = batch * branch_stride_b + frame * branch_stride_t + token * branch_stride_s
        branch = _load_rows(branch_ptr, branch_rows, channels, branch_stride_d, mask)
        if HAS_GATE:
            gate_rows = batch * gate_stride_b + frame * gate_stride_t + token * gate_stride_s
            branch *= _load_rows(gate_ptr, gate_rows, channels, gate_stride_d, mask)
        rounded = (x + branch).to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + places, rounded, mask=mask)
        x = rounded.to(tl.float32)
    if IS_LAYER:
        x = tl.where(mask, x - (tl.sum(x, 1) / WIDTH)[:, None], 0.0)
    y = x / tl.sqrt(tl.sum(x * x, 1) / WIDTH + eps)[:, None]
    if HAS_WEIGHT:
        y *= tl.load(weight_ptr + channels * weight_stride_d, mask=channels < WIDTH, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y += tl.load(bias_ptr + channels * bias_stride_d, mask=channels < WIDTH, other=0.0).to(tl.float32)[None, :]
    if HAS_SCALE:
        scale_rows = batch * scale_stride_b + frame * scale_stride_t + token * scale_stride_s
        y *= 1.0 + _load_rows(scale_ptr, scale_rows, channels, scale_stride_d, mask)
    if HAS_SHIFT:
        shift_rows = batch * shift_stride_b + frame * shift_stride_t + token * shift_stride_s
        y += _load_rows(shift_ptr, shift_rows, channels, shift_stride_d, mask)
    tl.store(output_ptr + places, y.to(output_ptr.dtype.element_ty), mask=mask)
