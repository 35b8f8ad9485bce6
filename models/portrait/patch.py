"""Small parts of a frame that are drawn over the moved picture: where they lie, and soft shapes in them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_FRACTION_BITS = 4


@dataclass(frozen=True)
class Patch:
    """A rectangle of a frame: rows top … bottom, columns left … right, the last ones excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, points: np.ndarray, margin: int, size: tuple[int, int]) -> Patch:
        """The rectangle around points [P, 2], at least two pixels within a frame of height and width `size`."""
        low, high = np.floor(points.min(0)).astype(int) - margin, np.ceil(points.max(0)).astype(int) + margin + 1
        height, width = size
        left, top = int(low[0].clip(0, width - 2)), int(low[1].clip(0, height - 2))
        right, bottom = int(high[0].clip(left + 2, width)), int(high[1].clip(top + 2, height))
        return cls(top, left, bottom, right)

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    @property
    def origin(self) -> np.ndarray:
        """x and y of its first pixel."""
        return np.array([self.left, self.top], np.float32)

    def of(self, picture: np.ndarray) -> np.ndarray:
        """A view of a frame [H, W, …]."""
        return picture[self.top : self.bottom, self.left : self.right]

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """x [h, w] and y [h, w] of its pixels in the frame, float32."""
        x, y = np.meshgrid(
            np.arange(self.left, self.right, dtype=np.float32), np.arange(self.top, self.bottom, dtype=np.float32)
        )
        return x, y


def soft_polygon(points: np.ndarray, patch: Patch, blur: float) -> np.ndarray:
    """A filled polygon with corners [P, 2] in frame pixels, float32 [h, w] in 0 … 1, its edge `blur` pixels soft."""
    mask = np.zeros(patch.shape, np.uint8)
    cv2.fillPoly(mask, [_fixed(points, patch)], 255, cv2.LINE_AA, _FRACTION_BITS)
    return cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32) / 255


def soft_line(points: np.ndarray, patch: Patch, thickness: int, blur: float) -> np.ndarray:
    """A line through points [P, 2] in frame pixels, float32 [h, w] in 0 … 1."""
    mask = np.zeros(patch.shape, np.uint8)
    cv2.polylines(mask, [_fixed(points, patch)], False, 255, thickness, cv2.LINE_AA, _FRACTION_BITS)
    return cv2.GaussianBlur(mask, (0, 0), blur).astype(np.float32) / 255


def _fixed(points: np.ndarray, patch: Patch) -> np.ndarray:
    return np.round((points - patch.origin) * (1 << _FRACTION_BITS)).astype(np.int32)


def smooth(x: np.ndarray | float, start: float, end: float) -> np.ndarray:
    """0 below `start`, 1 above `end`, smooth between."""
    t = np.clip((np.asarray(x) - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)
