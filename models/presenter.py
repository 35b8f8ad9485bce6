"""A presenter: all that is made once of a picture of anyone, to move it from then on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.errors import CheckpointError
from models.portrait.canvas import Canvas
from models.portrait.expression import eye_middle, face_axes
from models.portrait.face_mesh import load_face_mesh
from models.portrait.guess import guessed_layout
from models.portrait.mesh import CanvasLayout

if TYPE_CHECKING:
    from models.portrait.layout import Layout

_ARRAYS = ("picture", "landmarks", "irises")
_LAYOUT_MAPS = ("depth", "head", "shoulder", "matte")
_FORMAT = "presenter 1"
_CUT_UNITS = 5.4  # face units on the shorter side of a canvas, at most
_EYES_DOWN = 0.42  # shorter sides from the upper edge to the eyes


@dataclass(frozen=True)
class Presenter:
    """A picture cut to a canvas, and what was found in it.

    picture: uint8 [H, W, 3] RGB. landmarks: float32 [L, 3] of the face mesh, pixels, z towards the viewer.
    irises: float32 [2, 3], their centres, the person's left first. layout: of the picture.
    """

    picture: np.ndarray
    landmarks: np.ndarray
    irises: np.ndarray
    layout: CanvasLayout

    @functools.cached_property
    def canvas(self) -> Canvas:
        """The picture ready to be moved; made at its first use, in some tenths of a second."""
        return Canvas(self.picture, self.landmarks, self.irises, self.layout)

    @classmethod
    def from_picture(cls, picture: np.ndarray, size: tuple[int, int]) -> Presenter:
        """The largest face's owner in a picture uint8 [h, w, 3], cut to a canvas of height and width `size`.

        Raises:
            ValueError: if there is no face in it.
            CheckpointError: if the weights that find faces are missing.
        """
        from models.portrait.landmarks import find_faces
        from models.portrait.layout import find_layout

        faces = find_faces(picture)
        if not faces:
            raise ValueError(
                "no face was found in the picture: it should show one from the front, large enough and lit"
            )
        face = faces[0]
        cut = cut_around(face.landmarks, picture.shape[:2], size)
        canvas, moved = cut_out(picture, np.concatenate([face.landmarks, face.irises]), cut, size)
        landmarks, irises = moved[:-2], moved[-2:]
        return cls(canvas, landmarks, irises, layout_on(find_layout(picture, face), cut))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.picture.shape[:2]
        return height, width

    def save(self, path: Path) -> None:
        """Write it to a safetensors file."""
        maps = {f"layout.{name}": np.ascontiguousarray(getattr(self.layout, name)) for name in _LAYOUT_MAPS}
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        partial = path.with_suffix(".partial")
        save_file(arrays | maps, partial, {"format": _FORMAT})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Presenter:
        """Read what `save` wrote.

        Raises:
            CheckpointError: if the file is missing, broken, or holds something else.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") != _FORMAT:
                    raise CheckpointError(f"{path} holds no presenter")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is not a presenter file that can be read: {error}") from error
        try:
            layout = CanvasLayout(**{name: arrays[f"layout.{name}"] for name in _LAYOUT_MAPS})
            return cls(**{name: arrays[name] for name in _ARRAYS}, layout=layout)
        except KeyError as error:
            raise CheckpointError(f"{path} holds a presenter without {error}") from error


def stand_in(size: tuple[int, int]) -> Presenter:
    """A presenter without a picture: the canonical face on grey, as large as a canvas of height and width `size` shows
    one."""
    mesh = load_face_mesh()
    shorter = min(size)
    middle = (size[1] / 2, _EYES_DOWN * shorter, 0)
    landmarks = (mesh.canonical * (shorter / _CUT_UNITS) + middle).astype(np.float32)
    irises = (np.array([[0.5, 0, 0.2], [-0.5, 0, 0.2]]) * (shorter / _CUT_UNITS) + middle).astype(np.float32)
    picture = np.full((*size, 3), 128, np.uint8)
    return Presenter(picture, landmarks, irises, guessed_layout(landmarks, size))


@dataclass(frozen=True)
class Cut:
    """A rectangle of a picture in whole pixels, the last row and column excluded."""

    left: int
    top: int
    right: int
    bottom: int


def cut_around(landmarks: np.ndarray, picture_size: tuple[int, int], size: tuple[int, int]) -> Cut:
    """The part of a picture that a canvas of height and width `size` shows of the person with these landmarks [L, 3].

    It lies within the picture, for beyond its border there would be only streaks.
    """
    mesh = load_face_mesh()
    _, unit = face_axes(mesh, landmarks)
    eyes = eye_middle(mesh, landmarks)
    scale = min(  # canvas pixels are so many picture pixels
        max(_CUT_UNITS * unit / min(size), 1e-6), picture_size[0] / size[0], picture_size[1] / size[1]
    )
    height, width = (round(scale * side) for side in size)
    left = round(float(np.clip(eyes[0] - width / 2, 0, picture_size[1] - width)))
    top = round(float(np.clip(eyes[1] - _EYES_DOWN * scale * min(size), 0, picture_size[0] - height)))
    return Cut(left, top, left + width, top + height)


def layout_on(layout: Layout, cut: Cut) -> CanvasLayout:
    """What a layout of a picture says of the part that a canvas shows, in cells as large as its own."""
    cell = layout.side / len(layout.matte)
    rows, columns = (max(1, round(side / cell)) for side in (cut.bottom - cut.top, cut.right - cut.left))
    x = cut.left + (np.arange(columns) + 0.5) * (cut.right - cut.left) / columns
    y = cut.top + (np.arange(rows) + 0.5) * (cut.bottom - cut.top) / rows
    at_x, at_y = np.meshgrid((x - layout.left) / cell - 0.5, (y - layout.top) / cell - 0.5)

    def cut_to(plane: np.ndarray) -> np.ndarray:
        return cv2.remap(
            plane, at_x.astype(np.float32), at_y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    return CanvasLayout(
        cut_to(layout.front) / layout.scale, cut_to(layout.head), cut_to(layout.clavicle), cut_to(layout.matte)
    )


def cut_out(picture: np.ndarray, points: np.ndarray, cut: Cut, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 [h, w, 3] and points [P, 3] in it cut to a canvas of height and width `size`."""
    part = np.ascontiguousarray(picture[cut.top : cut.bottom, cut.left : cut.right])
    scale = np.array([size[1] / part.shape[1], size[0] / part.shape[0], size[0] / part.shape[0]])
    moved = ((points - (cut.left, cut.top, 0)) * scale).astype(np.float32)
    if part.shape[:2] == size:
        return part, moved
    how = cv2.INTER_AREA if scale[1] < 1 else cv2.INTER_CUBIC
    return cv2.resize(part, size[::-1], interpolation=how), moved
