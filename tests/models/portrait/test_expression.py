"""Face actions on the face of a picture: its own lids and lips."""

import numpy as np
import pytest

from models.portrait.bones import head_turns
from models.portrait.expression import Expression, eye_middle, face_axes
from models.portrait.face_mesh import FACE_ACTIONS, FACE_INDEX
from tests.models.portrait.conftest import UNIT, laid


def actions_of(**values: float) -> np.ndarray:
    out = np.zeros((1, len(FACE_ACTIONS)), np.float32)
    for name, value in values.items():
        for side in (name,) if name in FACE_INDEX else (f"{name}Left", f"{name}Right"):
            out[0, FACE_INDEX[side]] = value
    return out


def gap(mesh, points: np.ndarray, part: str) -> float:
    """Vertical distance of the middles of two edges."""
    upper, lower = (mesh.loops[name] for name in part.split())
    return points[lower[len(lower) // 2], 1] - points[upper[len(upper) // 2], 1]


LIPS = "lip_inner_upper lip_inner_lower"


def test_axes_of_a_turned_face_are_found(mesh):
    turn = head_turns(np.array([0.4]), np.array([0.1]), np.array([-0.1]))[0]
    found, unit = face_axes(mesh, laid(mesh, turn=turn))
    assert np.allclose(found, turn, atol=1e-3) and unit == pytest.approx(UNIT, rel=1e-3)
    assert np.abs(eye_middle(mesh, laid(mesh))[:2] - (96, 0.43 * 192)).max() < 0.1 * UNIT


def test_a_face_at_rest_stays(mesh):
    assert np.abs(Expression(mesh, laid(mesh)).displacements(actions_of())).max() < 0.3


@pytest.mark.parametrize("narrow", [1.0, 0.5, 1.5])
def test_lids_meet_at_a_blink_however_wide_the_eye_is(mesh, narrow):
    landmarks = laid(mesh)
    for side in ("left", "right"):
        middle = landmarks[mesh.loops[f"lid_lower_{side}"], 1].mean()
        for part in ("upper", "lower"):
            loop = mesh.loops[f"lid_{part}_{side}"][1:-1]
            landmarks[loop, 1] = middle + narrow * (landmarks[loop, 1] - middle)
    expression = Expression(mesh, landmarks)
    blink = actions_of(eyeBlink=1)
    assert expression.lid_shares(blink).max() == 0
    shut = landmarks + expression.displacements(blink)[0]
    for side in ("left", "right"):
        assert abs(gap(mesh, shut, f"lid_upper_{side} lid_lower_{side}")) < 0.02 * UNIT


def test_half_a_blink_leaves_the_eye_half_open(mesh):
    expression = Expression(mesh, laid(mesh))
    shares = np.concatenate([expression.lid_shares(actions_of(eyeBlink=value)) for value in (0, 0.3, 0.6)])[:, 0]
    assert shares[0] == 1 and 0.4 < shares[1] < 0.8 and shares[2] < shares[1]


def test_the_jaw_opens_by_the_width_of_the_lips(mesh):
    opened = actions_of(jawOpen=0.5)
    landmarks = laid(mesh)
    wide = landmarks.copy()
    lips = np.concatenate(
        [mesh.loops[f"lip_{ring}_{part}"] for ring in ("inner", "outer") for part in ("upper", "lower")]
    )
    wide[lips, 0] = 96 + 1.3 * (wide[lips, 0] - 96)
    gaps = [gap(mesh, points + Expression(mesh, points).displacements(opened)[0], LIPS) for points in (landmarks, wide)]
    assert gaps[0] > 0.15 * UNIT and 1.1 * gaps[0] < gaps[1] < 1.5 * gaps[0]


def test_a_mouth_that_is_open_in_the_picture_is_shut(mesh):
    landmarks = laid(mesh)
    opened = landmarks + Expression(mesh, landmarks).displacements(actions_of(jawOpen=0.4))[0]
    assert gap(mesh, opened, LIPS) > 0.1 * UNIT
    shut = opened + Expression(mesh, opened).displacements(actions_of())[0]
    assert abs(gap(mesh, shut, LIPS)) < 0.05 * UNIT


def test_pressed_lips_do_not_cross(mesh):
    landmarks = laid(mesh)
    pressed = actions_of(mouthPress=1, mouthRollLower=1, mouthRollUpper=1)
    moved = landmarks + Expression(mesh, landmarks).displacements(pressed)[0]
    assert gap(mesh, moved, LIPS) > -0.01 * UNIT


def test_frames_do_not_depend_on_each_other(mesh):
    expression = Expression(mesh, laid(mesh))
    several = np.concatenate([actions_of(jawOpen=0.4), actions_of(eyeBlink=0.5), actions_of(mouthSmile=1)])
    together = expression.displacements(several)
    assert np.array_equal(together, np.concatenate([expression.displacements(row[None]) for row in several]))
