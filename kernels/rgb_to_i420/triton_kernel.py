"""RGB to I420 as one Triton kernel: each colour is read once, each sample written once.

One program handles a run of pixels of two rows: it writes the luma of both and the chroma of the pairs between them.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.rgb_to_i420.reference import conversion_rows

MAX_BLOCK = 512
WARPS = 4


def choose_block(width: int) -> int:
    """Pixels of a row a program for rows of `width`."""
    return min(MAX_BLOCK, max(32, triton.next_power_of_2(width)))


def rgb_to_i420_triton(frames: Tensor, standard: str, out: Tensor) -> Tensor:
    """Launch the kernel; arguments as in `kernels.rgb_to_i420.rgb_to_i420`, already checked."""
    count, _, height, width = frames.shape
    if count == 0:
        return out
    block = choose_block(width)
    rows = conversion_rows(standard)
    with torch.cuda.device_of(frames):
        _rgb_to_i420_kernel[(triton.cdiv(width, block), height // 2, count)](
            frames,
            out,
            *frames.stride(),
            height,
            width,
            *(weight for row in rows for weight in row),
            BLOCK=block,
            num_warps=WARPS,
        )
    return out


@triton.jit
def _load_colour(ptr, mask):
    return tl.minimum(tl.maximum(tl.load(ptr, mask=mask, other=0.0).to(tl.float32), 0.0), 1.0)


@triton.jit
def _pair_means(upper, lower, BLOCK: tl.constexpr):
    """Means of 2×2 pixels: [BLOCK // 2]."""
    return tl.sum(tl.reshape(upper + lower, [BLOCK // 2, 2]), 1) * 0.25


@triton.jit
def _rgb_to_i420_kernel(
    frames_ptr,
    out_ptr,
    stride_t,
    stride_c,
    stride_h,
    stride_w,
    height,
    width,
    y_red,
    y_green,
    y_blue,
    u_red,
    u_green,
    u_blue,
    v_red,
    v_green,
    v_blue,
    BLOCK: tl.constexpr,
):
    start = tl.program_id(0) * BLOCK
    row = tl.program_id(1)
    frame = tl.program_id(2).to(tl.int64)
    columns = start + tl.arange(0, BLOCK)
    mask = columns < width
    upper_ptr = frames_ptr + frame * stride_t + (2 * row).to(tl.int64) * stride_h + columns.to(tl.int64) * stride_w
    lower_ptr = upper_ptr + stride_h
    upper_red = _load_colour(upper_ptr, mask)
    upper_green = _load_colour(upper_ptr + stride_c, mask)
    upper_blue = _load_colour(upper_ptr + 2 * stride_c, mask)
    lower_red = _load_colour(lower_ptr, mask)
    lower_green = _load_colour(lower_ptr + stride_c, mask)
    lower_blue = _load_colour(lower_ptr + 2 * stride_c, mask)

    # All samples are above 0: to lose the fraction after adding a half rounds halves up.
    picture = out_ptr + frame * (height * 3 // 2) * width
    luma = picture + 2 * row * width + columns
    upper_luma = upper_red * y_red + upper_green * y_green + upper_blue * y_blue + 16.5
    lower_luma = lower_red * y_red + lower_green * y_green + lower_blue * y_blue + 16.5
    tl.store(luma, upper_luma.to(tl.int32).to(tl.uint8), mask=mask)
    tl.store(luma + width, lower_luma.to(tl.int32).to(tl.uint8), mask=mask)

    red = _pair_means(upper_red, lower_red, BLOCK)
    green = _pair_means(upper_green, lower_green, BLOCK)
    blue = _pair_means(upper_blue, lower_blue, BLOCK)
    half_width = width // 2
    pairs = start // 2 + tl.arange(0, BLOCK // 2)
    is_pair = pairs < half_width
    chroma = picture + height * width + row * half_width + pairs
    u = red * u_red + green * u_green + blue * u_blue + 128.5
    v = red * v_red + green * v_green + blue * v_blue + 128.5
    tl.store(chroma, u.to(tl.int32).to(tl.uint8), mask=is_pair)
    tl.store(chroma + (height // 2) * half_width, v.to(tl.int32).to(tl.uint8), mask=is_pair)
