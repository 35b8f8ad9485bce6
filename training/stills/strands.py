"""Hair cards to strands: lines along the cards, as a comb would leave them.

MakeHuman's hair is a few hundred textured sheets whose strands run along v. A strand here is the line of one u over an
island of the texture, as far as the texture shows hair there, a little apart from its neighbours.

Letters: V vertices, T triangles, S strands, K points of a strand.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

SOFT_TEXELS = (31, 9)  # isolated wisps of a texture would hang in the air
SOFT_LEAST = 0.42
ALPHA_LEAST = (0.35, 0.75)  # drawn for every strand: thin places get fewer
APART_M, WAVE_M = 0.0016, 0.0008
LONGEST_STEP_M = 0.06  # a longer one jumps between sheets


@dataclass(frozen=True)
class Cards:
    """Textured sheets of hair.

    vertices, canonical: float [V, 3], posed, and on the neutral body; triangles: int [T, 3]; uv: float [T, 3, 2];
    alpha: float [H, W] in 0 … 1, row 0 at v = 1.
    """

    vertices: np.ndarray
    canonical: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    alpha: np.ndarray


def is_above_fringe(canonical: np.ndarray, fringe_m: float) -> np.ndarray:
    """bool [N]: whether points [N, 3] of the neutral body lie where a trimmed fringe keeps hair; all for 0.

    The line is that of `shaders/fringe.glsl`.
    """
    if not fringe_m:
        return np.ones(len(canonical), bool)
    x, y, z = canonical.T
    line = 0.7215 + fringe_m + 1.6 * x**2 - np.maximum(0, np.abs(x) - 0.048) * 10
    return (y > -0.055) | (z <= 0.60) | (z > line)


def strands(cards: Cards, count: int, points: int, fringe_m: float, seed: int) -> np.ndarray:
    """About `count` strands float32 [S, points, 3], from root to tip, spread evenly over the cards' area."""
    rng = np.random.default_rng(seed)
    soft = cv2.blur(cards.alpha.astype(np.float32), SOFT_TEXELS)
    alpha = np.where(soft > SOFT_LEAST, cards.alpha, 0.0)
    both = np.concatenate([cards.vertices, cards.canonical], axis=1)[cards.triangles]
    sides = both[:, 1:, :3] - both[:, :1, :3]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    island = _islands(cards)
    crown = np.array([0, np.percentile(cards.vertices[:, 1], 60), cards.vertices[:, 2].max()])
    grown = []
    for number in range(island.max() + 1):
        rows = island == number
        uv, corners = cards.uv[rows], both[rows]
        low, high = uv[..., 0].min() + 1e-4, uv[..., 0].max() - 1e-4
        for u in rng.uniform(low, high, max(2, round(count * area[rows].sum() / area.sum()))):
            line = _line(uv, corners, u)
            combed = None if line is None else _combed(*line, alpha, u, points, rng)
            if combed is None:
                continue
            if np.linalg.norm(combed[0, :3] - crown) > np.linalg.norm(combed[-1, :3] - crown):
                combed = combed[::-1]
            strand = _trimmed(combed, fringe_m, points, rng)
            if strand is not None:
                grown.append(strand)
    return np.array(grown, np.float32).reshape(-1, points, 3)


def _islands(cards: Cards) -> np.ndarray:
    """Number [T] of the island of the texture that each triangle belongs to."""
    corners = np.concatenate([cards.triangles.reshape(-1, 1), np.round(cards.uv.reshape(-1, 2) * 8192)], axis=1)
    _, corner = np.unique(corners.astype(np.int64), axis=0, return_inverse=True)
    corner = corner.reshape(-1, 3)
    ends = np.r_[corner[:, 0], corner[:, 1]], np.r_[corner[:, 1], corner[:, 2]]
    graph = sp.coo_matrix((np.ones(len(ends[0])), ends), shape=(corner.max() + 1,) * 2)
    return connected_components(graph, directed=False)[1][corner[:, 0]]


def _line(uv: np.ndarray, corners: np.ndarray, u: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the line of one u crosses the edges of triangles: v [N], sorted, and values [N, 6] there."""
    side = uv[..., 0] - u
    found_v, found = [], []
    for a, b in ((0, 1), (1, 2), (2, 0)):
        rows = np.nonzero((side[:, a] > 0) != (side[:, b] > 0))[0]
        share = (side[rows, a] / (side[rows, a] - side[rows, b]))[:, None]
        found_v.append(uv[rows, a, 1] + share[:, 0] * (uv[rows, b, 1] - uv[rows, a, 1]))
        found.append(corners[rows, a] + share * (corners[rows, b] - corners[rows, a]))
    v, values = np.concatenate(found_v), np.concatenate(found)
    order = np.argsort(v)
    return (v[order], values[order]) if len(v) > 2 and np.ptp(v) > 1e-3 else None


def _combed(
    v: np.ndarray, values: np.ndarray, alpha: np.ndarray, u: float, points: int, rng: np.random.Generator
) -> np.ndarray | None:
    """The part [points, 6] of a line where the texture shows hair; None if that is short."""
    height, width = alpha.shape
    fine = np.linspace(v[0], v[-1], 3 * points)
    rows = np.clip(((1 - fine) * height).astype(int), 0, height - 1)
    shown = np.nonzero(alpha[rows, int(np.clip(u * width, 0, width - 1))] > rng.uniform(*ALPHA_LEAST))[0]
    if len(shown) < 6:
        return None
    return _resampled(values, v, np.linspace(fine[shown[0]], fine[shown[-1]], points))


def _trimmed(line: np.ndarray, fringe_m: float, points: int, rng: np.random.Generator) -> np.ndarray | None:
    """A strand [points, 3] of a line [points, 6] from root to tip: cut at the fringe, unevenly long, on its own way."""
    kept = is_above_fringe(line[:, 3:], fringe_m)
    length = len(kept) if kept.all() else int(np.argmin(kept))
    if length < 4:
        return None
    along = np.linspace(0, 1, points)
    end = (length - 1) * (1 - rng.integers(0, 3) / points)
    strand = _resampled(line[:, :3], np.arange(points), along * end)
    strand += rng.normal(0, APART_M, 3) * (0.3 + 0.7 * along[:, None])
    strand += WAVE_M * np.sin(along[:, None] * 3 * rng.uniform(2, 5) + rng.uniform(0, 2 * np.pi, 3)) * along[:, None]
    steps = np.linalg.norm(np.diff(strand, axis=0), axis=1)
    return strand if steps.max() < LONGEST_STEP_M else None


def _resampled(values: np.ndarray, at: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(wanted, at, column) for column in values.T], axis=1)
