"""The picture doctor: what of a picture will show in the avatar made of it, and what to do about it, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from models.portrait.face_mesh import load_face_mesh
from models.portrait.landmarks import Face

Verdict = Literal["ok", "warning", "refused"]

# A face unit is the distance of the eyes; the canvas of 512 pixels shows one as some 95 pixels.
SMALLEST_UNIT, SMALL_UNIT = 14.0, 48.0  # pixels
TURNED, FAR_TURNED = 0.45, 0.95  # radians
OPEN_MOUTH = 0.10  # of the lips' width
OTHER_FACE = 0.5  # of the largest face's size
DARK, BRIGHT = 55.0, 215.0  # mean luma of the face
ONE_SIDED = 2.2  # light of one half of the face over the other's
BLURRED = 0.045  # edge energy of the face, of its contrast, at `BLUR_SIDE` pixels
BLUR_SIDE = 160
NEAR_EDGE = 0.35  # face units between the face and the picture's border


@dataclass(frozen=True)
class Check:
    """One thing looked at. advice: one sentence; what to do, where something is to be done."""

    name: str
    verdict: Verdict
    advice: str


def examine(picture: np.ndarray, faces: Sequence[Face]) -> list[Check]:
    """All checks of a picture uint8 [H, W, 3] and the faces found in it, largest first.

    Without a face there is one check, and it is refused.
    """
    if not faces:
        advice = "No face was found: use a picture that shows one from the front, well lit and not covered."
        return [Check("face", "refused", advice)]
    face = faces[0]
    checks = [Check("face", "ok", "A face was found."), _several(faces)]
    looks: tuple[Callable[[np.ndarray, Face], Check], ...] = (_size, _turn, _mouth, _blur, _light, _crop)
    return checks + [look(picture, face) for look in looks]


def is_refused(checks: Sequence[Check]) -> bool:
    """Whether no avatar can be made."""
    return any(check.verdict == "refused" for check in checks)


def _several(faces: Sequence[Face]) -> Check:
    large = sum(face.scale > OTHER_FACE * faces[0].scale for face in faces)
    if large > 1:
        return Check("several", "warning", f"There are {large} faces: the largest is taken; crop the picture to yours.")
    return Check("several", "ok", "There is one person.")


def _size(picture: np.ndarray, face: Face) -> Check:
    height = round(3 * face.scale)
    if face.scale < SMALLEST_UNIT:
        return Check("size", "refused", f"The face is only {height} pixels high: use a picture where it is larger.")
    if face.scale < SMALL_UNIT:
        return Check("size", "warning", f"The face is {height} pixels high: a larger one is sharper.")
    return Check("size", "ok", "The face is large enough.")


def _turn(picture: np.ndarray, face: Face) -> Check:
    yaw, pitch, _ = face.yaw_pitch_roll
    if abs(yaw) > FAR_TURNED:
        return Check("turn", "refused", "The face is seen from the side: use a picture from the front.")
    if max(abs(yaw), abs(pitch)) > TURNED:
        return Check("turn", "warning", "The head is turned far: a picture from the front moves better.")
    return Check("turn", "ok", "The face looks to the front.")


def _mouth(picture: np.ndarray, face: Face) -> Check:
    loops, points = load_face_mesh().loops, face.landmarks[:, :2]
    upper, lower = points[loops["lip_inner_upper"]], points[loops["lip_inner_lower"]]
    width = float(np.linalg.norm(upper[-1] - upper[0])) or 1.0
    gap = float(np.linalg.norm(upper[len(upper) // 2] - lower[len(lower) // 2]))
    if gap > OPEN_MOUTH * width:
        return Check("mouth", "warning", "The mouth is open: with lips closed the avatar's mouth shuts more cleanly.")
    return Check("mouth", "ok", "The mouth is closed.")


def _blur(picture: np.ndarray, face: Face) -> Check:
    grey = cv2.resize(_luma(_inner(picture, face)), (BLUR_SIDE, BLUR_SIDE), interpolation=cv2.INTER_AREA)
    contrast = float(grey.std()) or 1.0
    if float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()) < BLURRED * contrast:
        return Check("blur", "warning", "The picture is blurred: the avatar will be as sharp as it is, and no sharper.")
    return Check("blur", "ok", "The picture is sharp.")


def _light(picture: np.ndarray, face: Face) -> Check:
    grey = _luma(_inner(picture, face))
    mean = float(grey.mean())
    if mean < DARK:
        return Check("light", "warning", "The face is dark: more light from the front shows more of it.")
    if mean > BRIGHT:
        return Check("light", "warning", "The face is overexposed: a darker picture keeps its shape.")
    halves = [float(half.mean()) + 1 for half in np.array_split(grey, 2, axis=1)]
    if max(halves) > ONE_SIDED * min(halves):
        return Check("light", "warning", "The light comes from one side only: it will not turn with the head.")
    return Check("light", "ok", "The light is even.")


def _crop(picture: np.ndarray, face: Face) -> Check:
    height, width = picture.shape[:2]
    low, high = face.landmarks[:, :2].min(0), face.landmarks[:, :2].max(0)
    room = min(low[0], low[1], width - high[0], height - high[1])
    if room < NEAR_EDGE * face.scale:
        return Check("crop", "warning", "The head is cut by the picture's edge: leave some room around hair and chin.")
    return Check("crop", "ok", "The whole head is in the picture.")


def _luma(picture: np.ndarray) -> np.ndarray:
    """float32 [H, W] in 0 … 255."""
    return cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)


def _inner(picture: np.ndarray, face: Face) -> np.ndarray:
    """The part of the picture between brows, chin and cheeks, at least a few pixels."""
    height, width = picture.shape[:2]
    inside = face.landmarks[load_face_mesh().canonical[:, 2] > 0, :2]
    left, top = np.clip(np.floor(inside.min(0)), 0, (width - 2, height - 2)).astype(int)
    right, bottom = np.clip(np.ceil(inside.max(0)), (left + 2, top + 2), (width, height)).astype(int)
    return picture[top:bottom, left:right]
