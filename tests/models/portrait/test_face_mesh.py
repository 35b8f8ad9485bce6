"""The shipped face mesh."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from models.portrait.face_mesh import FACE_ACTIONS, FACE_DIM, FACE_INDEX, load_face_mesh

OPENINGS = (
    ("lip_inner_upper", "lip_inner_lower"),
    ("lid_upper_left", "lid_lower_left"),
    ("lid_upper_right", "lid_lower_right"),
)


@pytest.fixture(scope="module")
def mesh():
    return load_face_mesh()


def posed(mesh, **actions):
    return mesh.canonical + sum(value * mesh.actions[FACE_INDEX[name]] for name, value in actions.items())


def opening(mesh, points, pair):
    """Mean height between the middles of two edges."""
    upper, lower = (mesh.loops[name] for name in pair)
    return points[lower[len(lower) // 2], 1] - points[upper[len(upper) // 2], 1]


def test_shapes_and_index_ranges(mesh):
    count = mesh.count
    assert 300 <= count <= 450
    assert mesh.canonical.shape == (count, 3) and mesh.canonical.dtype == np.float32
    assert mesh.actions.shape == (FACE_DIM, count, 3) and len(FACE_ACTIONS) == FACE_DIM
    assert mesh.base_vertices.shape == mesh.mirror.shape == (count,)
    assert np.array_equal(np.unique(mesh.triangles), np.arange(count))  # every vertex is part of the skin


def test_canonical_face_is_in_face_units(mesh):
    left = mesh.canonical[mesh.loops["lid_upper_left"]].mean(0)
    right = mesh.canonical[mesh.loops["lid_upper_right"]].mean(0)
    assert 0.9 < left[0] - right[0] < 1.1
    nose, ear = mesh.canonical[mesh.loops["nose_bridge"][-1]], mesh.canonical[mesh.loops["jaw"][0]]
    assert nose[2] > ear[2] + 0.8  # nearer
    assert mesh.canonical[mesh.loops["jaw"][len(mesh.loops["jaw"]) // 2], 1] > 1.5  # the chin is below


def test_mirror_is_an_involution_that_reflects_the_face(mesh):
    assert np.array_equal(mesh.mirror[mesh.mirror], np.arange(mesh.count))
    assert np.allclose(mesh.canonical[mesh.mirror] * (-1, 1, 1), mesh.canonical, atol=2e-3)


def test_triangles_face_the_viewer_and_leave_eyes_and_mouth_open(mesh):
    corners = mesh.canonical[mesh.triangles][..., :2]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    turn = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    assert (turn > 0).mean() > 0.93  # lips and nostrils turn away in places
    sides = Counter(frozenset(pair) for t in mesh.triangles.tolist() for pair in zip(t, t[1:] + t[:1], strict=True))
    assert set(sides.values()) == {1, 2}
    for name in (name for pair in OPENINGS for name in pair):
        loop = mesh.loops[name].tolist()
        assert all(sides[frozenset(side)] == 1 for side in zip(loop, loop[1:], strict=False))


@pytest.mark.parametrize("pair", OPENINGS)
def test_edges_of_an_opening_share_their_corners_and_run_to_the_right(mesh, pair):
    upper, lower = (mesh.loops[name] for name in pair)
    assert (upper[0], upper[-1]) == (lower[0], lower[-1])
    assert mesh.canonical[upper[-1], 0] - mesh.canonical[upper[0], 0] > 0.4


def test_actions_move_what_their_names_say(mesh):
    lips, left, right = OPENINGS
    rest = mesh.canonical
    assert abs(opening(mesh, rest, lips)) < 0.01
    assert opening(mesh, posed(mesh, jawOpen=1), lips) > 0.4
    assert opening(mesh, rest, left) > 0.1
    shut = posed(mesh, eyeBlinkLeft=1)
    assert opening(mesh, shut, left) < 0.02 and opening(mesh, shut, right) == opening(mesh, rest, right)
    corners = mesh.loops["lip_outer_upper"][[0, -1]]
    width = [np.ptp(points[corners, 0]) for points in (rest, posed(mesh, mouthPucker=1))]
    assert width[1] < 0.85 * width[0]
    smile = posed(mesh, mouthSmileLeft=1)
    assert smile[corners[1], 1] < rest[corners[1], 1] - 0.02
    assert np.allclose(smile[corners[0]], rest[corners[0]], atol=5e-3)


def test_arrays_cannot_be_changed(mesh):
    with pytest.raises(ValueError, match="read-only"):
        mesh.canonical[0] = 0


def test_a_missing_file_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no face mesh"):
        load_face_mesh(tmp_path / "none.safetensors")
