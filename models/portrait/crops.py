"""Square crops of a picture, turned and mirrored: what the networks look at, and the way back to the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Crop:
    """A square of a picture. Crop coordinates run from -0.5 to 0.5, x right and y down in the turned square.

    x, y: its centre, pixels; side: pixels; roll: radians by which it is turned clockwise; is_mirrored: whether crop
    x runs to the square's left.
    """

    x: float
    y: float
    side: float
    roll: float = 0.0
    is_mirrored: bool = False

    @property
    def matrix(self) -> np.ndarray:
        """float64 [2, 2]: crop coordinates to pixels from the centre."""
        cosine, sine = np.cos(self.roll), np.sin(self.roll)
        sign = -1.0 if self.is_mirrored else 1.0
        return self.side * np.array([[cosine * sign, -sine], [sine * sign, cosine]])

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2 or 3] in crop coordinates (z in crop sides) to pixels."""
        out = np.array(points, np.float64)
        out[..., :2] = points[..., :2] @ self.matrix.T + (self.x, self.y)
        out[..., 2:] = points[..., 2:] * self.side
        return out.astype(np.float32)

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Pixels [..., 2 or 3] to crop coordinates."""
        out = np.array(points, np.float64)
        out[..., :2] = (points[..., :2] - (self.x, self.y)) @ np.linalg.inv(self.matrix).T
        out[..., 2:] = points[..., 2:] / self.side
        return out.astype(np.float32)


def cut(picture: Tensor, crop: Crop, size: int) -> Tensor:
    """What a crop shows, float [C, size, size]; beyond the picture its border goes on.

    Args:
        picture: float [C, H, W].
    """
    height, width = picture.shape[1:]
    shrink = min(1.0, 1.2 * size / crop.side)  # a large crop is averaged down first: no aliasing
    small = picture[None]
    if shrink < 0.8:
        shape = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        small = F.interpolate(small, shape, mode="bilinear", antialias=True, align_corners=False)
    cell = (torch.arange(size, dtype=torch.float32) + 0.5) / size - 0.5
    v, u = torch.meshgrid(cell, cell, indexing="ij")
    at = torch.stack([u, v], dim=-1) @ torch.from_numpy(crop.matrix.T).float() + torch.tensor([crop.x, crop.y])
    grid = at / torch.tensor([width, height]) * 2 - 1
    return F.grid_sample(small, grid[None].to(small.dtype), padding_mode="border", align_corners=False)[0]
