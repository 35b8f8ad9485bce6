"""Colours of frames: CIE Lab, its statistics a frame, and giving frames the colours of a reference picture.

Everything is done in the dtype of what is given, rounding where it rounds: the talking models that were trained behind
such a match saw it in bf16, where it is up to 0.06 of the range -1 … 1 away from fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# sRGB with white D65, as Lindbloom gives them.
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_TO_RGB = ((3.2404542, -1.5371385, -0.4985314), (-0.9692660, 1.8760108, 0.0415560), (0.0556434, -0.2040259, 1.0572252))
_WHITE = (0.95047, 1.0, 1.08883)
_EPSILON, _KAPPA = 0.008856, 903.3  # where Lab turns from a cube root into a line
_SMALLEST_DEVIATION = 1e-8


@dataclass(frozen=True)
class LabStatistics:
    """Mean and deviation of a picture's Lab channels, [B, 1, 1, 1, 3] each."""

    mean: Tensor
    deviation: Tensor


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB […, 3] in 0 … 1 → Lab […, 3]; colours above white are cut off."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = (linear @ rgb.new_tensor(_TO_XYZ).T / rgb.new_tensor(_WHITE)).clamp(1e-8, 1.0)
    x, y, z = torch.where(xyz > _EPSILON, xyz ** (1 / 3), (_KAPPA * xyz + 16) / 116).unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab […, 3] → sRGB […, 3] in 0 … 1, what lies outside cut off."""
    light, a, b = lab.unbind(-1)
    y = (light + 16) / 116
    x, z = a / 500 + y, y - b / 200
    relative = torch.stack(
        [
            torch.where(x**3 > _EPSILON, x**3, (116 * x - 16) / _KAPPA),
            torch.where(light > _KAPPA * _EPSILON, y**3, light / _KAPPA),
            torch.where(z**3 > _EPSILON, z**3, (116 * z - 16) / _KAPPA),
        ],
        dim=-1,
    )
    linear = (relative * lab.new_tensor(_WHITE)) @ lab.new_tensor(_TO_RGB).T
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)


def to_lab(frames: Tensor) -> Tensor:
    """Frames [B, 3, T, H, W] in -1 … 1 → Lab [B, T, H, W, 3]."""
    return rgb_to_lab(((frames + 1) / 2).movedim(1, -1))


def lab_statistics(picture: Tensor) -> LabStatistics:
    """Statistics of one picture a stream, [B, 3, 1, H, W] in -1 … 1."""
    lab = to_lab(picture)
    return LabStatistics(*_statistics(lab))


def match_colours(frames: Tensor, reference: LabStatistics, strength: float = 1.0) -> Tensor:
    """Give every frame the mean and deviation of a reference's Lab channels.

    Args:
        frames: [B, 3, T, H, W] around -1 … 1.
        strength: 0 … 1, how much of the corrected frame there is in the result.

    Returns:
        frames of the same shape; at strength 1 within -1 … 1.
    """
    lab = to_lab(frames)
    mean, deviation = _statistics(lab)
    matched = lab_to_rgb((lab - mean) * (reference.deviation / deviation) + reference.mean).movedim(-1, 1)
    return ((1 - strength) * ((frames + 1) / 2) + strength * matched) * 2 - 1


def _statistics(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the pixels of [B, T, H, W, 3]; a flat channel's deviation counts as 1."""
    mean = lab.mean(dim=(2, 3), keepdim=True)
    deviation = lab.std(dim=(2, 3), keepdim=True, correction=0)
    return mean, torch.where(deviation < _SMALLEST_DEVIATION, torch.ones_like(deviation), deviation)
