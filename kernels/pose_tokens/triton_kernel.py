"""Pose tokens as one Triton kernel: the maps stay in registers, only tokens are written.

One program draws a tile of cells of one channel of one frame, as a product of the blobs along the rows and along the
columns, sixteen points at a time; so exponentials are taken once a row or column and point. Each cell goes straight
to its place in a token; 32 or 64 bytes of a token lie together.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.pose_tokens.reference import Channels

BLOCK_Y, BLOCK_X = 16, 64
POINTS = 16
WARPS = 4


def pose_tokens_triton(
    keypoints: Tensor, height: int, width: int, channels: Channels, ceiling: float, dtype: torch.dtype
) -> Tensor:
    """Launch the kernel; arguments as in `kernels.pose_tokens.pose_tokens`, already checked."""
    batch, frames = keypoints.shape[:2]
    count = len(channels)
    output = torch.empty(batch, frames // 4, height * width, 64 * count, dtype=dtype, device=keypoints.device)
    if output.numel() == 0:
        return output
    ranges, radii = _channel_tables(channels, keypoints.device)
    columns = triton.cdiv(4 * width, BLOCK_X)
    with torch.cuda.device_of(keypoints):
        _pose_tokens_kernel[(triton.cdiv(4 * height, BLOCK_Y) * columns, count, batch * frames)](
            keypoints,
            ranges,
            radii,
            output,
            *keypoints.stride(),
            frames,
            4 * height,
            4 * width,
            columns,
            count,
            ceiling,
            BLOCK_Y=BLOCK_Y,
            BLOCK_X=BLOCK_X,
            POINTS=POINTS,
            num_warps=WARPS,
        )
    return output


@lru_cache(maxsize=16)
def _channel_tables(channels: Channels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Points int32 [C, 2] and -1 / (2 · radius²) fp32 [C] of the channels."""
    with torch.inference_mode(False):
        ranges = torch.tensor([channel[:2] for channel in channels], dtype=torch.int32)
        factors = torch.tensor([-0.5 / radius**2 for _, _, radius in channels], dtype=torch.float32)
        return ranges.to(device), factors.to(device)


@triton.jit
def _pose_tokens_kernel(
    keypoints_ptr,
    ranges_ptr,
    factors_ptr,
    output_ptr,
    stride_b,
    stride_f,
    stride_p,
    stride_c,
    frames,
    height,
    width,
    tile_columns,
    channels,
    ceiling,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
    POINTS: tl.constexpr,
):
    """`height` and `width` in cells."""
    y = tl.program_id(0) // tile_columns * BLOCK_Y + tl.arange(0, BLOCK_Y)
    x = tl.program_id(0) % tile_columns * BLOCK_X + tl.arange(0, BLOCK_X)
    channel = tl.program_id(1)
    picture = tl.program_id(2)
    batch = (picture // frames).to(tl.int64)
    frame = picture % frames

    start = tl.load(ranges_ptr + 2 * channel)
    stop = tl.load(ranges_ptr + 2 * channel + 1)
    factor = tl.load(factors_ptr + channel)
    points_ptr = keypoints_ptr + batch * stride_b + frame.to(tl.int64) * stride_f
    sums = tl.zeros([BLOCK_Y, BLOCK_X], dtype=tl.float32)
    for first in range(start, stop, POINTS):
        points = first + tl.arange(0, POINTS)
        is_point = points < stop
        place = points_ptr + points * stride_p
        point_x = tl.load(place, mask=is_point, other=0.0).to(tl.float32) * width
        point_y = tl.load(place + stride_c, mask=is_point, other=0.0).to(tl.float32) * height
        visible = tl.load(place + 2 * stride_c, mask=is_point, other=0.0).to(tl.float32)
        from_y = (y.to(tl.float32) + 0.5)[:, None] - point_y[None, :]
        from_x = (x.to(tl.float32) + 0.5)[None, :] - point_x[:, None]
        along_y = tl.exp(from_y * from_y * factor) * visible[None, :]
        along_x = tl.exp(from_x * from_x * factor)
        sums = tl.dot(along_y, along_x, sums, input_precision="ieee")
    sums = tl.minimum(sums, ceiling)

    tokens_a_row = width // 4
    latent = (picture // 4).to(tl.int64)
    token = latent * (height // 4) * tokens_a_row + (y // 4)[:, None] * tokens_a_row + (x // 4)[None, :]
    inside = ((frame % 4) * channels + channel) * 16 + (y % 4)[:, None] * 4 + (x % 4)[None, :]
    mask = (y < height)[:, None] & (x < width)[None, :]
    tl.store(output_ptr + token * (64 * channels) + inside, sums.to(output_ptr.dtype.element_ty), mask=mask)
