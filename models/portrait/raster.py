"""Triangles → backward map: where in the picture at rest each pixel of a frame comes from.

The work of a frame that no library does fast enough: OpenCV's own rasteriser takes four times as long, numba as long as
this but 200 MB and seconds of compiling. So it is C, built where there is a compiler when the package is installed
(`setup.py`), and OpenCV's where there was none.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

_FAR = -1e9
Rasteriser = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


def rasterise(
    points: np.ndarray,
    values: np.ndarray,
    triangles: np.ndarray,
    background: np.ndarray,
    rasteriser: Rasteriser | None = None,
) -> np.ndarray:
    """Values over a frame's pixels, those of the nearest triangle; the background where there is none.

    Args:
        points: float32 [N, 3], x and y in pixels of the map (pixel centres are whole numbers), z nearer is greater.
        values: float32 [N, 2], interpolated between the corners.
        triangles: int32 [F, 3]; both sides of a triangle are seen.
        background: float32 [h, w, 2].
        rasteriser: `compiled` or `by_opencv`; the former where it was built.

    Returns:
        float32 [h, w, 2].
    """
    out = background.copy()
    depth = np.full(background.shape[:2], _FAR, np.float32)
    (rasteriser or compiled() or by_opencv)(
        np.ascontiguousarray(points, np.float32), np.ascontiguousarray(values, np.float32), triangles, out, depth
    )
    return out


@functools.cache
def compiled() -> Rasteriser | None:
    """The C one; None where it was not built."""
    built = sorted(Path(__file__).parent.glob("_raster*.so"))
    if not built:
        return None
    function = ctypes.CDLL(str(built[0])).rasterise
    floats = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    corners = np.ctypeslib.ndpointer(np.int32, flags="C_CONTIGUOUS")
    size = ctypes.c_int32
    function.argtypes = [floats, floats, corners, size, floats, floats, size, size]
    function.restype = None

    def run(points: np.ndarray, values: np.ndarray, triangles: np.ndarray, out: np.ndarray, depth: np.ndarray) -> None:
        function(points, values, triangles, len(triangles), out, depth, *depth.shape)

    return run


def by_opencv(
    points: np.ndarray, values: np.ndarray, triangles: np.ndarray, out: np.ndarray, depth: np.ndarray
) -> None:
    """The same by OpenCV, which wants a camera: one so far away that its perspective does not show."""
    height, width = depth.shape
    far = 100.0 * max(height, width)
    distance = far - points[:, 2]
    centred = points[:, :2] - (np.array([width, height], np.float32) - 1) / 2
    placed = np.concatenate([centred * (1, -1) * (distance / far)[:, None], -distance[:, None]], axis=1)
    colours = np.concatenate([values, np.zeros((len(values), 1), np.float32)], axis=1)
    settings = cv2.TriangleRasterizeSettings()
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    drawn = np.dstack([out, np.zeros_like(depth)])
    nearness = np.full_like(depth, 2 * far)
    cv2.triangleRasterize(
        placed.astype(np.float32), triangles, colours, drawn, nearness, np.eye(4, dtype=np.float32),
        2 * np.arctan(height / 2 / far), 1.0, 2 * far, settings,
    )  # fmt: skip
    out[:] = drawn[..., :2]
