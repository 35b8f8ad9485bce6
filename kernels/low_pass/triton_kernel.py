"""Low-pass filter and noise as one Triton kernel: each latent is read from memory once and written once.

One program writes a tile of a few rows of one latent frame. It walks down the rows that the tile reads; each is
filtered along the row once and added to the rows of the tile that it reaches. Neighbouring taps come from the
first-level cache. The noise words come from `tl.philox` (10 rounds, 32-bit words), equal to `philox.philox_4x32`
bit for bit; where rows are multiples of four wide and the offset is one, a counter's four numbers are used in one
go. All arithmetic is fp32; the result is rounded once.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.low_pass.philox import as_rows, wrap_int64
from kernels.low_pass.reference import filter_radius

ROWS = 8
MAX_COLUMNS = 128
WARPS = 1  # more would share the columns of a row among them and filter it once each


def low_pass_triton(latents: Tensor, sigma: float) -> Tensor:
    """The filter alone; `latents` [B, C, T, h, w], already checked."""
    return _launch(latents, sigma, 0.0, 0, 0, has_noise=False)


def low_pass_noise_triton(
    latents: Tensor, sigma: float, noise_scale: float, seed: int | Tensor, offset: int | Tensor
) -> Tensor:
    """Filter and noise; arguments as in `kernels.low_pass.low_pass_noise`, already checked."""
    return _launch(latents, sigma, noise_scale, seed, offset, has_noise=True)


def choose_columns(width: int) -> int:
    """Columns of the tile of a program, for frames of `width`."""
    return min(MAX_COLUMNS, max(16, triton.next_power_of_2(width)))


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
    # Aligned: four numbers side by side in a row are the four lanes of one counter.
    is_aligned = width % 4 == 0 and isinstance(offset, int) and offset % 4 == 0
    radius = filter_radius(sigma)
    columns = choose_columns(width)
    tiles = triton.cdiv(width, columns)
    grid = (batch * channels * frames, triton.cdiv(height, ROWS) * tiles)
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
            tiles,
            -0.5 / sigma**2 if radius else 0.0,
            _centre_weight(sigma, radius),
            float(noise_scale),
            RADIUS=radius,
            HAS_NOISE=has_noise,
            IS_PER_ROW=is_per_row,
            IS_ALIGNED=is_aligned,
            ROWS=ROWS,
            COLUMNS=columns,
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
def _box_muller(first, second):
    """Two normals from two words, as `philox._box_muller`.

    The angle is kept in turns, where taking off quarters is exact; what is left, within an eighth of a turn, goes
    into polynomials (S. L. Moshier's of the Cephes library, to 1e-7).
    """
    radius = tl.sqrt(-2.0 * tl.log(_uniform(first)))
    quarters = _uniform(second) * 4.0
    whole = tl.floor(quarters + 0.5)
    angle = (quarters - whole) * 1.5707963267948966
    square = angle * angle
    sine = ((-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1) * square * angle + angle
    cosine = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square + 4.166664568298827e-2
    cosine = cosine * square * square - 0.5 * square + 1.0
    turn = whole.to(tl.int32)
    is_odd = (turn & 1) != 0
    x = tl.where(is_odd, sine, cosine)
    y = tl.where(is_odd, cosine, sine)
    x = tl.where(((turn + 1) & 2) != 0, -x, x)
    y = tl.where((turn & 2) != 0, -y, y)
    return radius * x, radius * y


@triton.jit
def _words(seed, counter):
    low = (counter & 0xFFFFFFFF).to(tl.uint32)
    high = (counter >> 32).to(tl.uint32)
    zero = tl.zeros_like(low)
    return tl.philox(seed, low, high, zero, zero)


@triton.jit
def _standard_normal(seed, index):
    """Number `index` (int64) of `seed` (int64): the lane `index % 4` of Philox counter `index // 4`."""
    word0, word1, word2, word3 = _words(seed, index >> 2)
    lane = (index & 3).to(tl.int32)
    is_first_pair = lane < 2
    x, y = _box_muller(tl.where(is_first_pair, word0, word2), tl.where(is_first_pair, word1, word3))
    return tl.where(lane % 2 == 0, x, y)


@triton.jit
def _standard_normal_of_four(seed, counter):
    """All numbers of Philox counters [R, C]: [R, 4 C]."""
    word0, word1, word2, word3 = _words(seed, counter)
    first, second = _box_muller(word0, word1)
    third, fourth = _box_muller(word2, word3)
    return tl.interleave(tl.interleave(first, third), tl.interleave(second, fourth))


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
    tiles,
    exponent_scale,
    centre_weight,
    noise_scale,
    RADIUS: tl.constexpr,
    HAS_NOISE: tl.constexpr,
    IS_PER_ROW: tl.constexpr,
    IS_ALIGNED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """`seed` and `offset` are numbers, or pointers to one a row when IS_PER_ROW. `tiles`: side by side."""
    plane = tl.program_id(0)
    batch = (plane // (channels * frames)).to(tl.int64)
    channel = (plane // frames % channels).to(tl.int64)
    frame = (plane % frames).to(tl.int64)
    first_row = tl.program_id(1) // tiles * ROWS
    first_column = tl.program_id(1) % tiles * COLUMNS
    rows = tl.arange(0, ROWS)
    columns = first_column + tl.arange(0, COLUMNS)

    frame_ptr = latents_ptr + batch * stride_b + channel * stride_c + frame * stride_t
    filtered = tl.zeros([ROWS, COLUMNS], dtype=tl.float32)
    for step in range(-RADIUS, ROWS + RADIUS):
        row_ptr = frame_ptr + _reflect(first_row + step, height).to(tl.int64) * stride_h
        row = tl.zeros([COLUMNS], dtype=tl.float32)
        for dx in tl.static_range(-RADIUS, RADIUS + 1):  # unrolled: the places do not depend on the row
            values = tl.load(row_ptr + _reflect(columns + dx, width) * stride_w)
            row += tl.exp(dx * dx * exponent_scale) * values.to(tl.float32)
        distance = step - rows
        weights = tl.where(tl.abs(distance) <= RADIUS, tl.exp(distance * distance * exponent_scale), 0.0)
        filtered += weights[:, None] * row[None, :]
    filtered *= centre_weight * centre_weight

    first = plane.to(tl.int64) * (height * width)
    inside = (first_row + rows)[:, None] * width
    if HAS_NOISE:
        start = first
        if IS_PER_ROW:
            start = first - batch * channels * frames * height * width + tl.load(offset + batch)
            key = tl.load(seed + batch)
        else:
            start = first + offset
            key = seed
        if IS_ALIGNED:
            fours = first_column // 4 + tl.arange(0, COLUMNS // 4)
            counters = (start >> 2) + (inside >> 2) + fours[None, :]
            filtered += noise_scale * _standard_normal_of_four(key, counters)
        else:
            filtered += noise_scale * _standard_normal(key, start + inside + columns[None, :])
    mask = (first_row + rows < height)[:, None] & (columns < width)[None, :]
    tl.store(output_ptr + first + inside + columns[None, :], filtered.to(output_ptr.dtype.element_ty), mask=mask)
