"""Backward maps: the nearest triangle's values, whatever draws them."""

import numpy as np
import pytest

from models.portrait import raster

DRAWERS = [raster.by_opencv, *([raster.compiled()] if raster.compiled() else [])]
NOWHERE = np.full((24, 40, 2), -7, np.float32)


def test_the_compiled_one_is_here_where_there_is_a_compiler():
    from shutil import which

    if which("cc") is None:
        pytest.skip("no compiler")
    assert raster.compiled() is not None, "build it: python setup.py build_ext --inplace"


@pytest.mark.parametrize("drawer", DRAWERS)
def test_values_are_interpolated_within_a_triangle_and_nowhere_else(drawer):
    points = np.array([[4, 4, 0], [20, 4, 0], [4, 20, 0]], np.float32)
    out = raster.rasterise(points, points[:, :2] * 2, np.array([[0, 1, 2]], np.int32), NOWHERE, drawer)
    assert out[8, 10] == pytest.approx([20, 16], abs=1e-2)
    assert (out[:, 22:] == -7).all() and (out[22:] == -7).all()
    assert (NOWHERE == -7).all()


@pytest.mark.parametrize("drawer", DRAWERS)
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]])
def test_the_nearer_triangle_wins_in_any_order_and_both_sides_are_seen(drawer, order):
    far = [[0, 0, -1], [30, 0, -1], [0, 20, -1]]
    near = [[0, 0, 1], [0, 20, 1], [30, 0, 1]]  # turned the other way
    points = np.array([*far, *near], np.float32)
    values = np.repeat(np.array([[1, 1], [2, 2]], np.float32), 3, axis=0)
    out = raster.rasterise(points, values, np.array(order, np.int32).reshape(2, 3), NOWHERE, drawer)
    assert out[5, 5] == pytest.approx([2, 2], abs=1e-4)


@pytest.mark.skipif(len(DRAWERS) < 2, reason="no compiled rasteriser")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_draw_the_same_map_without_seams(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-2:26:3, -3:44:4].astype(np.float32)
    wobble = rng.normal(0, 0.5, (*x.shape, 3))
    points = np.stack([x, y, 0 * x], -1) + wobble
    place = np.arange(x.size).reshape(x.shape)
    corners = [place[:-1, :-1], place[:-1, 1:], place[1:, :-1], place[1:, 1:]]
    a, b, c, d = (corner.ravel() for corner in corners)
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)]).astype(np.int32)
    drawn = [
        raster.rasterise(points.reshape(-1, 3), np.stack([x, y], -1).reshape(-1, 2), triangles, NOWHERE, drawer)
        for drawer in DRAWERS
    ]
    assert all((out > -7).all() for out in drawn)
    assert np.abs(drawn[0] - drawn[1]).max() < 0.02
