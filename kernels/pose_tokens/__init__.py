"""Keypoints to the refiner's pose tokens: blobs drawn on maps that are never written, as 4×4×4 patches."""

import torch
from torch import Tensor

from kernels.dispatch import FLOAT_DTYPES, require_dtype, select_backend
from kernels.pose_tokens.reference import Channels, patches, pose_maps_reference

__all__ = ["Channels", "pose_tokens"]


def pose_tokens(
    keypoints: Tensor,
    height: int,
    width: int,
    channels: Channels,
    *,
    ceiling: float = 1.5,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor:
    """Pose tokens on a grid of `height` × `width` tokens, each 4 × 4 cells of 4 frames of all channels.

    Args:
        keypoints: [B, 4T, P, 3] of x and y as parts of the picture's width and height, and visibility; fp32, bf16 or
            fp16, any strides, four frames a latent.
        height, width: h and w of the LR latents.
        channels: of each channel its first point, the one after its last, and the radius of its blobs in cells.
        ceiling: at which sums of blobs are clipped.
        dtype: of the result; default that of the keypoints.
        backend: see `kernels`.

    Returns [B, T, h·w, 64 · channels], ordered (frame, channel, row, column). Sums are fp32, rounded once.

    Raises `ValueError` for what does not fit.
    """
    chosen = select_backend(backend, keypoints)
    _check(keypoints, height, width, channels, dtype)
    dtype = keypoints.dtype if dtype is None else dtype
    if chosen == "triton":
        from kernels.pose_tokens.triton_kernel import pose_tokens_triton

        return pose_tokens_triton(keypoints, height, width, channels, ceiling, dtype)
    draw = _pose_maps_torch if chosen == "torch" else pose_maps_reference
    return patches(draw(keypoints, 4 * height, 4 * width, channels, ceiling).to(dtype))


def _pose_maps_torch(keypoints: Tensor, height: int, width: int, channels: Channels, ceiling: float) -> Tensor:
    """The definition's maps with the exponentials of all channels taken at once."""
    counts = [stop - start for start, stop, _ in channels]
    points = torch.cat([keypoints[..., start:stop, :] for start, stop, _ in channels], dim=-2).float()
    radius = torch.tensor([radius for _, _, radius in channels], device=keypoints.device)
    radius = radius.repeat_interleave(torch.tensor(counts, device=keypoints.device), output_size=sum(counts))
    factor = (-0.5 / radius.square())[:, None]
    rows = torch.arange(height, device=keypoints.device) + 0.5
    columns = torch.arange(width, device=keypoints.device) + 0.5
    along_y = ((rows - points[..., 1:2] * height).square() * factor).exp() * points[..., 2:]
    along_x = ((columns - points[..., :1] * width).square() * factor).exp()
    maps = [
        y.transpose(-1, -2) @ x for y, x in zip(along_y.split(counts, -2), along_x.split(counts, -2), strict=True)
    ]
    return torch.stack(maps, dim=-3).clamp_max(ceiling)


def _check(keypoints: Tensor, height: int, width: int, channels: Channels, dtype: torch.dtype | None) -> None:
    if keypoints.ndim != 4 or keypoints.shape[1] % 4 or keypoints.shape[3] != 3:
        raise ValueError(f"keypoints must be [B, 4T, P, 3], got {list(keypoints.shape)}")
    require_dtype("keypoints", keypoints)
    if dtype is not None and dtype not in FLOAT_DTYPES:
        raise ValueError(f"dtype must be fp32, bf16 or fp16, got {dtype}")
    if height < 1 or width < 1 or not channels:
        raise ValueError(f"there must be tokens and channels, got {height} x {width} and {len(channels)}")
    for start, stop, radius in channels:
        if not 0 <= start <= stop <= keypoints.shape[2] or not radius > 0:
            raise ValueError(
                f"a channel must be points within 0..{keypoints.shape[2]} and a radius > 0, got {(start, stop, radius)}"
            )
