"""Eyes: the picture's own eyeballs, moved with the gaze and seen through the moved lids.

What lids are made of is a copy of the picture in which the eyes are painted over with the skin around them, so that a
shut eye never shows one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.portrait.expression import SIDES
from models.portrait.face_mesh import FaceMesh
from models.portrait.patch import Patch, smooth, soft_line, soft_polygon

_IRIS_RADIUS = 0.093  # face units: 5.9 mm where pupils are 63 mm apart
_EYEBALL_RADIUS = 0.19
_LID_REACH = 0.3  # face units around an eye that move with its lids
_SOFT = 0.7  # pixels
_LASHES = 0.6  # how dark the line is where shut lids meet
LASH_REACH = 0.035  # face units beyond the eye's edge that lashes and their shadow darken
_SHUT, _OPEN = 0.06, 0.30  # shares of the opening between which the eyeball comes into sight


@dataclass(frozen=True)
class Eye:
    """One eye of a picture.

    ring: int64 [R], vertices around it. upper: int64 [U], its upper lid from corner to corner.
    near: bool [L], vertices that move with its lids.
    iris: [2], centre in the picture, and radius in pixels. middle: [3], of its edge at rest, pixels.
    seen: float32 [h, w] of `patch`, where the eyeball is visible in the picture.
    """

    ring: np.ndarray
    upper: np.ndarray
    near: np.ndarray
    iris: np.ndarray
    radius: float
    middle: np.ndarray
    patch: Patch
    seen: np.ndarray


def make_eye(
    mesh: FaceMesh, landmarks: np.ndarray, iris: np.ndarray, unit: float, side: str, size: tuple[int, int]
) -> Eye:
    """The left or right eye of a picture of height and width `size`.

    Args:
        landmarks: float32 [L, 3], pixels. iris: its centre [≥ 2]. unit: pixels a face unit.
    """
    upper, lower = mesh.loops[f"lid_upper_{side}"], mesh.loops[f"lid_lower_{side}"]
    ring = np.concatenate([upper, lower[-2:0:-1]])
    patch = Patch.around(landmarks[ring, :2], max(4, int(0.1 * unit)), size)
    seen = soft_polygon(landmarks[ring, :2], patch, _SOFT)
    seen = cv2.dilate(seen, np.ones((3, 3)))
    near = np.linalg.norm(mesh.canonical[:, None] - mesh.canonical[ring][None], axis=2).min(1) < _LID_REACH
    middle = landmarks[ring].mean(0)
    return Eye(ring, upper, near, iris[:2].astype(np.float32), _IRIS_RADIUS * unit, middle, patch, seen)


def eye_whites(picture: np.ndarray, eyes: Sequence[Eye]) -> float:
    """How bright the whites of the eyes are, 0 … 255."""
    grey = [cv2.cvtColor(eye.patch.of(picture), cv2.COLOR_RGB2GRAY)[eye.seen > 0.9] for eye in eyes]
    found = np.concatenate(grey)
    return float(np.percentile(found, 88)) if len(found) else 160.0


def without_eyes(picture: np.ndarray, mesh: FaceMesh, landmarks: np.ndarray, beyond: int) -> np.ndarray:
    """The picture uint8 [H, W, 3] with skin in the place of its eyes, of what lies `beyond` pixels around them and
    twice as much below."""
    hole = np.zeros(picture.shape[:2], np.uint8)
    for side in SIDES:
        ring = np.concatenate([mesh.loops[f"lid_upper_{side}"], mesh.loops[f"lid_lower_{side}"][::-1]])
        cv2.fillPoly(hole, [np.round(landmarks[ring, :2]).astype(np.int32)], 1)
    wider = 2 * beyond + 1
    hole = cv2.dilate(hole, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wider, wider)))
    hole = cv2.dilate(hole, np.ones((beyond + 1, 1), np.uint8), anchor=(0, beyond))  # further down: above is the brow
    filled = cv2.inpaint(picture, hole, 3, cv2.INPAINT_TELEA)
    soft = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.5)[..., None]
    even = cv2.GaussianBlur(filled, (0, 0), max(1.0, 0.7 * beyond))  # what is filled in has streaks
    return (filled + soft * (even.astype(np.float32) - filled)).round().astype(np.uint8)


def _even(line: np.ndarray) -> np.ndarray:
    """A lid's edge [U, 2] as a cubic curve: what is not quite right in it would show as a jagged line."""
    at = line - line[0]
    along = at @ (line[-1] - line[0])
    along = along / max(float(along[-1]), 1e-6)
    terms = along[:, None] ** np.arange(4)
    return line[0] + terms @ np.linalg.lstsq(terms, at, rcond=None)[0]


def draw_eye(
    frame: np.ndarray,
    picture: np.ndarray,
    eye: Eye,
    points: np.ndarray,
    shift: np.ndarray,
    gaze: np.ndarray,
    share: float,
) -> None:
    """Draw an eye into a frame uint8 [H, W, 3].

    Args:
        picture: uint8 [H, W, 3], at rest.
        points: [≥ L, ≥ 2], the moved landmarks.
        shift: [2], by which the head moved the eye's middle, pixels.
        gaze: [2], horizontal and vertical, relative to the head, radians.
        share: of the picture's own opening to which it is open.
    """  # fmt: skip
    ring = points[eye.ring, :2]
    patch = Patch.around(ring, 6, frame.shape[:2])
    into = patch.of(frame)
    openness = float(smooth(share, _SHUT, _OPEN))
    drawn = into.astype(np.float32)
    if openness < 1:
        edge = _even(points[eye.upper, :2])
        seam = soft_line(edge, patch, 3, 1.0)[..., None] * (1 - openness)  # where lids meet the mesh has steps
        drawn += seam * (cv2.GaussianBlur(drawn, (0, 0), 1.5) - drawn)
        line = soft_line(edge, patch, 1, 0.5 + 0.07 * eye.radius)
        drawn *= 1 - (_LASHES * (1 - openness)) * line[..., None]
    if openness > 0:
        x, y = patch.pixels()
        x, y = x - np.float32(shift[0]), y - np.float32(shift[1])
        look = (_EYEBALL_RADIUS / _IRIS_RADIUS * eye.radius * np.sin(gaze)).astype(np.float32)
        distance = np.hypot(x - eye.iris[0] - look[0], y - eye.iris[1] - look[1])
        bump = np.exp(-(np.maximum(0, distance - eye.radius) ** 2) / np.float32(2 * (0.6 * eye.radius) ** 2))
        x, y = x - look[0] * bump, y - look[1] * bump
        ball = cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        left, top = eye.patch.origin
        seen = cv2.remap(eye.seen, x - left, y - top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        alpha = (soft_polygon(ring, patch, _SOFT) * seen * openness)[..., None]
        drawn += alpha * (ball - drawn)
    into[:] = drawn.clip(0, 255).astype(np.uint8)
