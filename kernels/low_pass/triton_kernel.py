"""Low-pass filter and noise as one Triton kernel: each latent is read from memory once and written once.

One program writes a run of pixels of one latent frame. Frames are small (at most 88 x 160 pixels here),
so the taps of neighbouring pixels come from the first-level cache and both passes of the separable filter
run in one. The noise words come from `tl.philox` (10 rounds, 32-bit words), equal to `philox.philox_4x32`
bit for bit. All arithmetic is fp32; the result is rounded once.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.low_pass.philox import as_rows, wrap_int64
from kernels.low_pass.reference import filter_radius

MAX_BLOCK = 256
WARPS = 4


def low_pass_triton(latents: Tensor, sigma: float) -> Tensor:
    """The filter alone; `latents` [B, C, T, h, w], already checked."""
    return _launch(latents, sigma, 0.0, 0, 0, has_noise=False)


def low_pass_noise_triton(
    latents: Tensor, sigma: float, noise_scale: float, seed: int | Tensor, offset: int | Tensor
) -> Tensor:
    """Filter and noise; arguments as in `kernels.low_pass.low_pass_noise`, already checked."""
    return _launch(latents, sigma, noise_scale, seed, offset, has_noise=True)


def choose_block(pixels: int) -> int:
    """Pixels a program for frames of `pixels`."""
    return min(MAX_BLOCK, max(32, triton.next_power_of_2(pixels)))


def _launch(
    latents: Tensor,
    sigma: float,
    noise_scale: float,
    seed: int | Tensor,
    offset: int | Tensor,
    has_noise: bool,
) -> Tensor:
    batch, channels, frames, height, width = latents.shape
    output = torch.empty(latents.shape, dtype=latents.dtype, device=latents.device)
    is_per_row = isinstance(seed, Tensor) or isinstance(offset, Tensor)
    seeds: int | Tensor
    offsets: int | Tensor
    if is_per_row:
        seeds = as_rows(seed, batch, latents.device).contiguous()
        offsets = as_rows(offset, batch, latents.device).contiguous()
    else:
        assert isinstance(seed, int) and isinstance(offset, int)
        seeds, offsets = wrap_int64(seed), offset
    radius = filter_radius(sigma)
    block = choose_block(height * width)
    grid = (batch * channels * frames, triton.cdiv(height * width, block))
    with torch.cuda.device_of(latents):
        _low_pass_kernel[grid](
            latents,
            output,
            seeds,
            offsets,
            *latents.stride(),
            channels,
            frames,
            height,
            width,
            -0.5 / sigma**2 if radius else 0.0,
            _centre_weight(sigma, radius),
            float(noise_scale),
            RADIUS=radius,
            HAS_NOISE=has_noise,
            IS_PER_ROW=is_per_row,
            BLOCK=block,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    return output


def _centre_weight(sigma: float, radius: int) -> float:
    """The middle one of `gaussian_taps`, without a tensor."""
    return 1.0 / (1.0 + 2.0 * sum(math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(1, radius + 1)))


@triton.jit
def _reflect(index, size):
    """`index` mirrored at 0 and at size - 1 until it lies inside."""
    period = tl.maximum(2 * (size - 1), 1)
    folded = tl.abs(index) % period
    return tl.minimum(tl.minimum(folded, period - folded), size - 1)


@triton.jit
def _uniform(word):
    return ((word >> 9).to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2^-23


@triton.jit
def _standard_normal(seed, index):
    """Number `index` (int64) of `seed` (int64): the lane `index % 4` of Philox counter `index // 4`."""
    counter = index >> 2
    low = (counter & 0xFFFFFFFF).to(tl.uint32)
    high = (counter >> 32).to(tl.uint32)
    zero = tl.zeros_like(low)
    word0, word1, word2, word3 = tl.philox(seed, low, high, zero, zero)
    lane = (index & 3).to(tl.int32)
    is_first_pair = lane < 2
    radius = tl.sqrt_rn(-2.0 * tl.log(_uniform(tl.where(is_first_pair, word0, word2))))
    angle = _uniform(tl.where(is_first_pair, word1, word3)) * 6.283185307179586
    return radius * tl.where(lane % 2 == 0, tl.cos(angle), tl.sin(angle))


@triton.jit(do_not_specialize=["seed", "offset"])
def _low_pass_kernel(
    latents_ptr,
    output_ptr,
    seed,
    offset,
    stride_b,
    stride_c,
    stride_t,
    stride_h,
    stride_w,
    channels,
    frames,
    height,
    width,
    exponent_scale,
    centre_weight,
    noise_scale,
    RADIUS: tl.constexpr,
    HAS_NOISE: tl.constexpr,
    IS_PER_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`seed` and `offset` are numbers, or pointers to one a row when IS_PER_ROW."""
    plane = tl.program_id(0)
    batch = (plane // (channels * frames)).to(tl.int64)
    channel = (plane // frames % channels).to(tl.int64)
    frame = (plane % frames).to(tl.int64)
    pixels = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_inside = pixels < height * width
    y = pixels // width
    x = pixels % width

    frame_ptr = latents_ptr + batch * stride_b + channel * stride_c + frame * stride_t
    filtered = tl.zeros([BLOCK], dtype=tl.float32)
    for dy in range(-RADIUS, RADIUS + 1):
        row_ptrs = frame_ptr + _reflect(y + dy, height) * stride_h
        row = tl.zeros([BLOCK], dtype=tl.float32)
        for dx in range(-RADIUS, RADIUS + 1):
            values = tl.load(row_ptrs + _reflect(x + dx, width) * stride_w, mask=is_inside, other=0.0)
            row += tl.exp(dx * dx * exponent_scale) * values.to(tl.float32)
        filtered += tl.exp(dy * dy * exponent_scale) * row
    filtered *= centre_weight * centre_weight

    element = plane.to(tl.int64) * (height * width) + pixels
    if HAS_NOISE:
        if IS_PER_ROW:
            index = element - batch * channels * frames * height * width + tl.load(offset + batch)
            filtered += noise_scale * _standard_normal(tl.load(seed + batch), index)
        else:
            filtered += noise_scale * _standard_normal(seed, element + offset)
    tl.store(output_ptr + element, filtered.to(output_ptr.dtype.element_ty), mask=is_inside)
