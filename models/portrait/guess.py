"""What is where around a face when only the face is known: a head, a neck and shoulders of ordinary shape."""

from __future__ import annotations

import numpy as np

from models.portrait.expression import eye_middle, face_axes
from models.portrait.face_mesh import load_face_mesh
from models.portrait.mesh import CanvasLayout
from models.portrait.patch import smooth

_CELLS = 128  # on the shorter side
# Face units about the eyes: the head with its hair as an ellipsoid, and half the width of neck and shoulders by height.
_HEAD_MIDDLE, _HEAD_RADII = np.array([0.0, 0.1, -1.1]), np.array([1.35, 1.9, 1.35])
_DOWN, _HALF_WIDTH = (1.4, 2.3, 2.9, 3.6, 4.6), (0.8, 0.85, 1.7, 2.9, 3.3)
_NECK_DEPTH, _CHEST_DEPTH = -1.1, -0.6
_NECK_FROM, _NECK_TO = 1.5, 2.6  # where the head's share of the turn fades


def guessed_layout(landmarks: np.ndarray, size: tuple[int, int]) -> CanvasLayout:
    """The layout of a canvas of height and width `size` with a face of these landmarks [L, 3] in it."""
    mesh = load_face_mesh()
    turn, unit = face_axes(mesh, landmarks)
    eyes = eye_middle(mesh, landmarks)
    step = min(size) / _CELLS
    rows, columns = (int(np.ceil(side / step)) for side in size)
    x, y = np.meshgrid((np.arange(columns) + 0.5) * size[1] / columns, (np.arange(rows) + 0.5) * size[0] / rows)
    x, y = (x - eyes[0]) / unit, (y - eyes[1]) / unit
    middle = turn @ _HEAD_MIDDLE
    away = np.hypot((x - middle[0]) / _HEAD_RADII[0], (y - middle[1]) / _HEAD_RADII[1])
    head_depth = middle[2] + _HEAD_RADII[2] * np.sqrt((1 - away**2).clip(0))
    half = np.interp(y, _DOWN, _HALF_WIDTH)
    body = (np.abs(x) < half) & (y > _DOWN[0])
    body_depth = np.interp(y, (_NECK_TO, 3.6), (_NECK_DEPTH, _CHEST_DEPTH)) - 0.5 * (x / half) ** 2
    in_head = 1 - smooth(away, 0.95, 1.0)
    head = np.maximum(in_head * (1 - smooth(y, 1.9, _NECK_TO)), 1 - smooth(y, _NECK_FROM, _NECK_TO))
    shoulder = smooth(y, 2.6, 3.4) * smooth(np.abs(x), 0.6, 1.6)
    depth = np.where(in_head * (y < _NECK_TO) > 0.5, np.maximum(head_depth, np.where(body, body_depth, -9)), body_depth)
    matte = np.maximum(in_head, body)
    maps = (depth.clip(-3, 2), head, shoulder, matte)
    return CanvasLayout(*(plane.astype(np.float32) for plane in maps))
