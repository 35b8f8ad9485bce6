from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.portrait.doctor import examine, is_refused
from models.portrait.face_mesh import load_face_mesh
from models.portrait.landmarks import Face


def face(scale: float = 90.0, middle: tuple[float, float] = (256, 230), yaw: float = 0.0) -> Face:
    """The canonical face, turned and placed."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]], np.float32)
    landmarks = load_face_mesh().canonical @ turn.T * scale
    landmarks[:, :2] += middle
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    return Face((*low, *high), 0.9, landmarks.astype(np.float32), np.zeros((2, 3), np.float32), turn, scale)


def picture(level: float = 128.0, size: int = 512) -> np.ndarray:
    """Even light with detail."""
    noise = np.random.default_rng(0).normal(0, 25, (size, size, 1))
    return np.clip(level + noise, 0, 255).astype(np.uint8).repeat(3, axis=2)


def blurred() -> np.ndarray:
    """Soft shapes, and no edge."""
    waves = 128 + 60 * np.sin(np.linspace(0, 9, 512))
    return np.add.outer(waves, waves / 4)[..., None].repeat(3, axis=2).clip(0, 255).astype(np.uint8)


def warned(shown: np.ndarray, *faces: Face) -> set[str]:
    return {check.name for check in examine(shown, faces) if check.verdict != "ok"}


def test_a_good_picture_has_nothing_to_be_said_against() -> None:
    checks = examine(picture(), [face()])
    assert not is_refused(checks) and warned(picture(), face()) == set()
    assert [check.name for check in checks] == [
        "face", "several", "size", "turn", "mouth", "blur", "light", "crop"
    ]  # fmt: skip


def test_a_picture_without_a_face_is_refused_in_words() -> None:
    checks = examine(picture(), [])
    assert is_refused(checks) and "No face was found" in checks[0].advice


@pytest.mark.parametrize(
    ("shown", "found", "name", "is_final"),
    [
        (picture(), [face(), face(70)], "several", False),
        (picture(), [face(40)], "size", False),
        (picture(), [face(9)], "size", True),
        (picture(), [face(yaw=0.6)], "turn", False),
        (picture(), [face(yaw=1.1)], "turn", True),
        (blurred(), [face()], "blur", False),
        (picture(20), [face()], "light", False),
        (picture(245), [face()], "light", False),
        (picture(), [face(middle=(256, 100))], "crop", False),
    ],
)
def test_what_is_wrong_is_said(shown: np.ndarray, found: list[Face], name: str, is_final: bool) -> None:
    wrong = {check.name: check for check in examine(shown, found) if check.verdict != "ok"}
    assert name in wrong and wrong[name].advice.endswith(".")
    assert (wrong[name].verdict == "refused") == is_final


def test_an_open_mouth_and_light_from_the_side_are_seen() -> None:
    shut = face()
    opened = shut.landmarks.copy()
    opened[load_face_mesh().loops["lip_inner_lower"], 1] += 15
    assert warned(picture(), replace(shut, landmarks=opened)) == {"mouth"}
    lit = picture().astype(float)
    lit[:, :256] *= 0.3
    assert warned(lit.astype(np.uint8), shut) == {"light"}


def test_one_pixel_is_no_reason_to_fail() -> None:
    assert examine(np.zeros((1, 1, 3), np.uint8), [face()])
