from __future__ import annotations

import numpy as np
import pytest

from training.stills.strands import Cards, is_above_fringe, strands


def card(alpha: np.ndarray | None = None) -> Cards:
    """One sheet, 10 cm wide and 20 cm long, hanging down; v grows downwards in space."""
    vertices = np.array([[0, 0, 0.9], [0.1, 0, 0.9], [0, 0, 0.7], [0.1, 0, 0.7]])
    uv = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
    triangles = np.array([[0, 1, 2], [1, 3, 2]])
    shown = np.ones((64, 64)) if alpha is None else alpha
    return Cards(vertices, np.full((4, 3), 0.5), triangles, uv[triangles], shown)


def test_strands_run_along_the_card_from_the_crown() -> None:
    grown = strands(card(), count=50, points=10, fringe_m=0, seed=1)
    assert grown.shape[1:] == (10, 3) and 45 <= len(grown) <= 55
    assert np.abs(np.diff(grown[..., 0], axis=1)).max() < 0.003
    assert (np.diff(grown[..., 2], axis=1) < 0).all()
    assert np.ptp(grown[:, 0, 0]) > 0.08


def test_where_the_texture_shows_no_hair_none_grows() -> None:
    half = np.ones((64, 64))
    half[:, :32] = 0
    grown = strands(card(half), count=60, points=10, fringe_m=0, seed=1)
    assert len(grown) and grown[..., 0].min() > 0.04


def test_a_fringe_is_trimmed_above_the_brows_only() -> None:
    assert is_above_fringe(np.array([[0, -0.2, 0.65]]), 0.0).all()
    line = 0.7215 - 0.003
    points = np.array([[0, -0.1, line - 0.01], [0, -0.1, line + 0.01], [0, 0, line - 0.01], [0, -0.1, 0.55]])
    assert is_above_fringe(points, -0.003).tolist() == [False, True, True, True]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_seed_gives_the_same_hair(seed: int) -> None:
    first, again = (strands(card(), 20, 8, 0, seed) for _ in range(2))
    assert np.array_equal(first, again)
