"""The moved canvas: a picture of anyone, moved by face actions and a motion plan, uint8 all the way.

Every frame: mesh posed → map of where each pixel came from → picture looked up → eyes and mouth drawn.
Letters: T frames.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import cv2
import numpy as np

from models.motion import MOTION_CHANNELS
from models.portrait.bones import bone_maps, head_angles
from models.portrait.expression import SIDES, Expression
from models.portrait.eyes import LASH_REACH, Eye, draw_eye, eye_whites, make_eye, without_eyes
from models.portrait.face_mesh import load_face_mesh
from models.portrait.mesh import CanvasLayout, make_mesh
from models.portrait.mouth import draw_mouth, find_mouth
from models.portrait.patch import Patch, smooth
from models.portrait.raster import rasterise

_MAP_PIXELS = 256 * 256  # of the map, about; it is enlarged
_BARE_LIDS = (0.4, 0.9)  # shares of the opening between which the lashes' shadow fades
_SHARPER, _BLUR_PIXELS = 0.4, 0.8  # gives true frames' gradients back at 0.2 dB
_SWAY = 0.4  # face units that the person may move beyond where it is in the picture
_LID_MOVES = 0.03  # of the opening: less than that shows no steps
_HALF_PIXEL = np.array([0.5, 0.5, 0], np.float32)  # here whole numbers are the centres of pixels
_GAZE = [MOTION_CHANNELS.index("gaze_x"), MOTION_CHANNELS.index("gaze_y")]


class Timer(Protocol):
    """Counts what goes on within a context to a stage."""

    def __call__(self, stage: str) -> AbstractContextManager[None]: ...


def _untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


class Canvas:
    """One picture, ready to be moved. Nothing in it changes: one canvas serves many streams.

    Args:
        picture: uint8 [H, W, 3] RGB.
        landmarks: float32 [L, 3] of the face mesh, pixels from the picture's corner; z towards the viewer.
        irises: float32 [2, ≥ 2], their centres, the person's left first.
        layout: of the picture.

    Raises:
        ValueError: if the layout shows no person.
    """

    def __init__(self, picture: np.ndarray, landmarks: np.ndarray, irises: np.ndarray, layout: CanvasLayout) -> None:
        mesh = load_face_mesh()
        landmarks = landmarks - _HALF_PIXEL
        self.size: tuple[int, int] = picture.shape[:2]
        self._picture = picture
        self._expression = Expression(mesh, landmarks)
        self._mesh = make_mesh(mesh, self._expression, landmarks, layout, self.size)
        self._rest_angles = head_angles(self._expression.turn)
        unit = self._expression.unit
        crisp = _sharpened(picture, layout.matte)
        self._skin = without_eyes(crisp, mesh, landmarks, 1)
        self._bare_lids = without_eyes(crisp, mesh, landmarks, round(LASH_REACH * unit))
        self._eyes = [
            make_eye(mesh, landmarks, iris[:2] - 0.5, unit, side, self.size)
            for iris, side in zip(irises, SIDES, strict=True)
        ]
        faces = self._mesh.triangles[(self._mesh.triangles < mesh.count).all(1)]
        self._lids = [np.ascontiguousarray(faces[eye.near[faces].all(1)]) for eye in self._eyes]
        whites = eye_whites(picture, self._eyes)
        self._mouth = find_mouth(picture, mesh, landmarks, self._expression.turn, whites)
        self._scale = max(1, round(np.sqrt(picture.shape[0] * picture.shape[1] / _MAP_PIXELS)))
        self._still = _identity_map(self.size, self._scale)
        moving = self._mesh.points[mesh.count :][self._mesh.shares[mesh.count :].sum(1) > 0, :2]
        self._moving = Patch.around(moving, round(_SWAY * unit), self.size)  # beyond it nothing ever moves

    def frames(self, actions: np.ndarray, plan: np.ndarray, timed: Timer = _untimed) -> np.ndarray:
        """Frames uint8 [T, H, W, 3].

        Args:
            actions: float32 [T, 52], all that the face does, 0 … 1.
            plan: float32 [T, 11], rows of `models.motion.motion_frames`.
            timed: told of stages.
        """
        with timed("pose"):
            displacements = self._expression.displacements(actions)
            shares = self._expression.lid_shares(actions)
            bones = bone_maps(plan, self._rest_angles)
        out = np.empty((len(plan), *self.size, 3), np.uint8)
        for index, frame in enumerate(out):
            self._draw(frame, displacements[index], shares[index], bones[index], plan[index, _GAZE], timed)
        return out

    def _draw(
        self, frame: np.ndarray, displacement: np.ndarray, shares: np.ndarray, bones: np.ndarray, gaze: np.ndarray,
        timed: Timer,
    ) -> None:  # fmt: skip
        """One frame, into `frame` uint8 [H, W, 3]."""
        with timed("pose"):
            points = self._mesh.posed(displacement, bones)
        with timed("raster"):
            placed = points.copy()
            placed[:, :2] = (points[:, :2] - (self._scale - 1) / 2) / self._scale
            small = rasterise(placed, self._mesh.source, self._mesh.triangles, self._still)
        with timed("warp"):
            whole = self._enlarged(small)
            frame[:] = self._picture
            fixed = cv2.convertMaps(self._moving.of(whole), None, cv2.CV_16SC2)
            self._moving.of(frame)[:] = cv2.remap(self._skin, *fixed, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        with timed("eyes"):
            for eye, triangles, share in zip(self._eyes, self._lids, shares, strict=True):
                if abs(share - 1) > _LID_MOVES:
                    self._draw_lids(frame, eye, triangles, points, whole, float(share))
                shift = self._rigid(eye.middle[None], bones)[0, :2] - eye.middle[:2]
                draw_eye(frame, self._picture, eye, points, shift, gaze, float(share))
        with timed("mouth"):
            self._draw_mouth(frame, points, displacement, bones)

    def _draw_lids(
        self, frame: np.ndarray, eye: Eye, triangles: np.ndarray, points: np.ndarray, whole: np.ndarray, share: float
    ) -> None:
        """The skin around an eye again, mapped pixel by pixel, for where lids meet an enlarged map has steps; and of a
        lid that comes down, the lashes' shadow is not stretched over the eye."""
        patch = Patch.around(points[eye.ring, :2], 4, self.size)
        near = points - np.append(patch.origin, 0)
        exact = rasterise(near, self._mesh.source, triangles, patch.of(whole))
        bare = float(1 - smooth(share, *_BARE_LIDS))
        skin, lids = (
            cv2.remap(source, exact, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for source in (self._skin, self._bare_lids)
        )
        patch.of(frame)[:] = cv2.addWeighted(lids, bare, skin, 1 - bare, 0)

    def _draw_mouth(self, frame: np.ndarray, points: np.ndarray, displacement: np.ndarray, bones: np.ndarray) -> None:
        mouth = self._mouth
        jaw = displacement[mouth.chin].mean(0)
        lower, upper = mouth.rows
        middle = np.stack([mouth.middle, mouth.middle + 10 * mouth.axes[:, 0], mouth.middle + 10 * mouth.axes[:, 1]])
        at = self._rigid(middle, bones)[:, :2]
        turn = np.stack([(at[1] - at[0]) / 10, (at[2] - at[0]) / 10], axis=1)
        rows = self._rigid(lower.points + jaw, bones), self._rigid(upper.points, bones)
        draw_mouth(frame, mouth, points, rows, self._rigid((mouth.middle + jaw)[None], bones)[0, :2], turn)

    def _rigid(self, points: np.ndarray, bones: np.ndarray) -> np.ndarray:
        """Points [P, 3] in pixels moved with the head."""
        view = self._mesh.view
        return view.projected(view.unprojected(points) @ bones[0, :, :3].T + bones[0, :, 3])

    def _enlarged(self, small: np.ndarray) -> np.ndarray:
        """A map [h, w, 2] in the frame's size."""
        height, width = self.size
        if self._scale == 1:
            return small
        rows, columns = small.shape[0] * self._scale, small.shape[1] * self._scale
        return cv2.resize(small, (columns, rows), interpolation=cv2.INTER_LINEAR)[:height, :width]


def _sharpened(picture: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """The picture with as much sharpness on the person as being looked up between pixels takes away."""
    cover = cv2.GaussianBlur(cv2.resize(matte, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR), (0, 0), 4)
    detail = picture.astype(np.float32) - cv2.GaussianBlur(picture, (0, 0), _BLUR_PIXELS)
    return (picture + _SHARPER * cover[..., None] * detail).round().clip(0, 255).astype(np.uint8)


def _identity_map(size: tuple[int, int], scale: int) -> np.ndarray:
    """Where the pixels of a map lie that is `scale` times smaller than a picture, float32 [h, w, 2]."""
    rows, columns = (np.arange(-(-side // scale)) * scale + (scale - 1) / 2 for side in size)
    return np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float32)
