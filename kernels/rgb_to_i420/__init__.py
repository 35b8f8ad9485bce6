"""Decoded frames to the planes that video encoders take."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import require_dtype, select_backend
from kernels.rgb_to_i420.reference import STANDARDS, conversion_rows, rgb_to_i420_reference

__all__ = ["rgb_to_i420"]

BT601_MAX_LINES = 576
Standard = Literal["bt601", "bt709"]


def rgb_to_i420(
    frames: Tensor, *, standard: Standard | None = None, out: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """Frames to I420 in limited range: Y 16 … 235, U and V 16 … 240.

    Args:
        frames: [T, 3, H, W] in 0 … 1 (clipped to it), fp32, bf16 or fp16, any strides; H and W even.
        standard: "bt601" or "bt709"; default BT.601 up to 576 lines, BT.709 above.
        out: uint8 [T, H·3/2, W], contiguous, on the device of the frames; default a new one.
        backend: see `kernels`.

    Returns uint8 [T, H·3/2, W]: of every frame the planes Y, U and V in order.

    Rounding: sums are fp32 and halves go up, once a sample; the backends differ by at most 1 where fp32 sums do.
    Chroma lies in the middle of its 2×2 pixels (as in JPEG and libyuv) and is their mean, taken before rounding.

    Raises `ValueError` for what does not fit.
    """
    chosen = select_backend(backend, frames)
    _check(frames, standard, out)
    count, _, height, width = frames.shape
    if standard is None:
        standard = "bt601" if height <= BT601_MAX_LINES else "bt709"
    if chosen == "reference":
        planes = rgb_to_i420_reference(frames, standard)
        return planes if out is None else out.copy_(planes)
    if out is None:
        out = torch.empty(count, height * 3 // 2, width, dtype=torch.uint8, device=frames.device)
    if chosen == "triton":
        from kernels.rgb_to_i420.triton_kernel import rgb_to_i420_triton

        return rgb_to_i420_triton(frames, standard, out)
    return _rgb_to_i420_torch(frames, standard, out)


def _rgb_to_i420_torch(frames: Tensor, standard: Standard, out: Tensor) -> Tensor:
    """Weighted sums of planes; numbers above 0 lose their fraction when they become uint8, so halves go up."""
    count, _, height, width = frames.shape
    rgb = frames.float().clamp(0.0, 1.0)
    to_y, to_u, to_v = conversion_rows(standard)
    luma = _weighted(rgb, to_y, 16.5)
    small = F.avg_pool2d(rgb, 2)
    out[:, :height] = luma.to(torch.uint8)
    quarter = height // 2 * (width // 2)
    chroma = out[:, height:].view(count, 2, quarter)
    chroma[:, 0] = _weighted(small, to_u, 128.5).to(torch.uint8).flatten(1)
    chroma[:, 1] = _weighted(small, to_v, 128.5).to(torch.uint8).flatten(1)
    return out


def _weighted(rgb: Tensor, weights: tuple[float, float, float], offset: float) -> Tensor:
    red, green, blue = rgb.unbind(1)
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2]).add_(offset)


def _check(frames: Tensor, standard: str | None, out: Tensor | None) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames must be [T, 3, H, W], got {list(frames.shape)}")
    count, _, height, width = frames.shape
    if height % 2 or width % 2 or not height or not width:
        raise ValueError(f"height and width must be even and above 0, got {height} and {width}")
    require_dtype("frames", frames)
    if standard is not None and standard not in STANDARDS:
        raise ValueError(f"standard must be one of {', '.join(STANDARDS)} or None, got {standard!r}")
    if out is not None and (
        out.dtype != torch.uint8
        or out.device != frames.device
        or tuple(out.shape) != (count, height * 3 // 2, width)
        or not out.is_contiguous()
    ):
        raise ValueError(
            f"out must be contiguous uint8 [{count}, {height * 3 // 2}, {width}] on {frames.device},"
            f" got {out.dtype} {list(out.shape)} on {out.device}"
        )
