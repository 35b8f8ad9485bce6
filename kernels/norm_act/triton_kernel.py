"""RMSNorm over the channels and SiLU as one Triton kernel: each number is read once and written once.

One program handles a few pixels with all their channels. The strides of channels and pixels tell which of the two
lie side by side in memory (Triton makes a constant of the stride that is 1), so one kernel serves channels first and
channels last; only the shape of the tile differs. All arithmetic is fp32; the result is rounded once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

CHANNELS_LAST_TILE = 2048  # numbers a program holds
CHANNELS_FIRST_TILE = 4096
MIN_PIXELS = 32  # channels first: pixels side by side that make whole memory transactions
WIDE_TILE = 8192  # from this many on, eight warps


def norm_act_triton(x: Tensor, gain: Tensor, bias: Tensor | None, eps: float, out: Tensor | None) -> Tensor:
    """Launch the kernel; arguments as in `kernels.norm_act.norm_act`, already checked."""
    flat = x.flatten(2)
    if flat.data_ptr() != x.data_ptr():  # pixels at no one distance: this was a copy
        x = x.contiguous()
        flat = x.flatten(2)
    output = torch.empty_like(x) if out is None else out
    flat_output = output.flatten(2)
    if flat_output.data_ptr() != output.data_ptr():
        output = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        flat_output = output.flatten(2)
    batch, channels, pixels = flat.shape
    if x.numel() == 0:
        return output
    block, tile = choose_tile(channels, is_last=flat.stride(1) == 1)
    with torch.cuda.device_of(x):
        _norm_act_kernel[(triton.cdiv(pixels, tile), batch)](
            flat,
            gain,
            bias,
            flat_output,
            *flat.stride(),
            *flat_output.stride(),
            gain.stride(0),
            bias.stride(0) if bias is not None else 0,
            pixels,
            eps,
            CHANNELS=channels,
            BLOCK_C=block,
            PIXELS=tile,
            HAS_BIAS=bias is not None,
            num_warps=8 if block * tile > WIDE_TILE else 4,
        )
    return output


def choose_tile(channels: int, is_last: bool) -> tuple[int, int]:
    """Padded channels and pixels a program."""
    block = triton.next_power_of_2(channels)
    if is_last:
        return block, max(1, CHANNELS_LAST_TILE // block)
    return block, max(MIN_PIXELS, CHANNELS_FIRST_TILE // block)


@triton.jit
def _norm_act_kernel(
    x_ptr,
    gain_ptr,
    bias_ptr,
    output_ptr,
    stride_b,
    stride_c,
    stride_p,
    output_stride_b,
    output_stride_c,
    output_stride_p,
    gain_stride,
    bias_stride,
    pixel_count,
    eps,
    CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PIXELS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channels = tl.arange(0, BLOCK_C)
    is_channel = channels < CHANNELS
    mask = (pixels < pixel_count)[:, None] & is_channel[None, :]
    pixels = pixels.to(tl.int64)[:, None]
    channels_along = channels.to(tl.int64)[None, :]
    x_ptrs = x_ptr + batch * stride_b + pixels * stride_p + channels_along * stride_c
    x = tl.load(x_ptrs, mask=mask, other=0.0).to(tl.float32)
    y = x / tl.sqrt(tl.sum(x * x, 1) / CHANNELS + eps)[:, None]
    y *= tl.load(gain_ptr + channels * gain_stride, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        y += tl.load(bias_ptr + channels * bias_stride, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    y = y / (1.0 + tl.exp(-y))
    output_ptrs = output_ptr + batch * output_stride_b + pixels * output_stride_p + channels_along * output_stride_c
    tl.store(output_ptrs, y.to(output_ptr.dtype.element_ty), mask=mask)
