"""Faces of a picture: where they are, their dense landmarks with depth, and how their heads are turned."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoints import load_component
from models.portrait.crops import Crop, cut
from models.portrait.face_mesh import load_face_mesh
from models.portrait.face_networks import (
    BOX_STRIDE,
    CROP_SCALE,
    EYE_SHARE,
    EYE_SIZE,
    FACE_SIZE,
    MOUTH_SHARE,
    MOUTH_SIZE,
    FaceNetworks,
    part_vertices,
)
from models.portrait.weights import read_portrait_config

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights" / "portrait"
_BOX_SIDES = (320, 128, 64)  # the picture's longer side for small, middle and large faces, pixels
_BOX_RANGE = (1.2, 14.0)  # sides of a face's crop that are believed at each of them, in cells
# A face is seen alike in a mirror: where the two looks differ by more than this, face units, there is none. Of true
# faces 95 % differ by less than 0.045, of what boxes mistake for faces 99 % by more than 0.075.
_MIRROR_LIMIT = 0.07
_MAX_OVERLAP = 0.35
_MOST_BOXES = 24  # that are looked into
_LARGEST = 2048  # pixels a side that are looked at; of larger pictures every second, third … pixel


@dataclass(frozen=True)
class Face:
    """A face of a picture.

    box: (left, top, right, bottom) of the landmarks, pixels, may reach beyond the picture; score: 0 … 1.
    landmarks: float32 [L, 3], pixels of the picture: x right, y down, z towards the viewer, 0 at the depth of the
    point between the eyes, in pixels at that depth (a turned head is as deep as it is wide; perspective stays in x, y).
    irises: float32 [2, 3], the person's left first.
    rotation: float32 [3, 3], turns canonical face directions (x right, y down, z to the viewer) into the picture's;
    scale: pixels of a face unit.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray
    irises: np.ndarray
    rotation: np.ndarray
    scale: float

    @property
    def yaw_pitch_roll(self) -> tuple[float, float, float]:
        """Radians: yaw to the picture's right, pitch down, roll clockwise, applied roll first."""
        r = self.rotation
        return (
            float(np.arctan2(r[0, 2], r[2, 2])),
            float(np.arcsin(np.clip(r[1, 2], -1, 1))),
            float(np.arctan2(r[1, 0], r[1, 1])),
        )


def face_crop(landmarks: np.ndarray) -> Crop:
    """The crop that a face's landmarks [L, 2 or 3] in pixels ask for: upright along the eyes, CROP_SCALE times them."""
    parts, flat = part_vertices(), landmarks[:, :2].astype(np.float64)
    along = flat[parts.left_eye].mean(0) - flat[parts.right_eye].mean(0)
    roll = float(np.arctan2(along[1], along[0]))
    cosine, sine = np.cos(roll), np.sin(roll)
    turned = flat @ np.array([[cosine, -sine], [sine, cosine]])
    low, high = turned.min(0), turned.max(0)
    x, y = np.array([[cosine, -sine], [sine, cosine]]) @ ((low + high) / 2)
    return Crop(float(x), float(y), float(CROP_SCALE * (high - low).max()), roll)


def part_crops(landmarks: np.ndarray) -> tuple[Crop, Crop, Crop]:
    """Crops of the left eye, the right eye (mirrored) and the mouth of a face's landmarks [L, 2 or 3] in pixels."""
    parts, face = part_vertices(), face_crop(landmarks)

    def around(vertices: np.ndarray, share: float, is_mirrored: bool = False) -> Crop:
        x, y = landmarks[vertices, :2].mean(0)
        return Crop(float(x), float(y), share * face.side, face.roll, is_mirrored)

    return (
        around(parts.left_eye, EYE_SHARE),
        around(parts.right_eye, EYE_SHARE, is_mirrored=True),
        around(parts.mouth, MOUTH_SHARE),
    )


def fit_head(landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """Rotation [3, 3] and scale that bring the canonical face closest to landmarks [L, 3] (Umeyama); the jaw and lips,
    which speak, count less."""
    mesh = load_face_mesh()
    weight = np.where(mesh.canonical[:, 1] > 0.75, 0.2, 1.0)[:, None]
    weight = weight / weight.sum()
    source = mesh.canonical - (weight * mesh.canonical).sum(0)
    target = landmarks - (weight * landmarks).sum(0)
    u, s, vt = np.linalg.svd((weight * target).T @ source)
    sign = np.array([1, 1, np.linalg.det(u @ vt)])
    scale = float((s * sign).sum() / (weight * source**2).sum())
    return ((u * sign) @ vt).astype(np.float32), scale


@dataclass(frozen=True)
class FinderConfig:
    """threshold: score from which a box is looked into, 0 … 1."""

    threshold: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold}, expected between 0 and 1")


class FaceFinder:
    """Finds faces with the networks."""

    def __init__(self, networks: FaceNetworks, config: FinderConfig) -> None:
        self.networks, self.threshold = networks.eval(), config.threshold

    @classmethod
    def load(cls, folder: Path = WEIGHTS_FOLDER) -> FaceFinder:
        """Read the component `landmarks` of a weights folder. Raises CheckpointError where it is missing or broken."""
        networks = FaceNetworks()
        load_component(folder, "landmarks", networks)
        return cls(networks, read_portrait_config(folder, "landmarks", FinderConfig))

    @torch.no_grad()
    def find(self, picture: np.ndarray, most: int = 8) -> list[Face]:
        """Faces of a picture uint8 [H, W, 3], largest first, at most `most`.

        Raises:
            ValueError: if it is no such picture.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or min(picture.shape) < 1:
            raise ValueError(f"a picture is uint8 [H, W, 3], got {picture.dtype} {list(picture.shape)}")
        step = -(-max(picture.shape) // _LARGEST)
        pixels = torch.from_numpy(np.array(picture[::step, ::step])).permute(2, 0, 1).float() / 255
        faces = sorted(self._faces(pixels, most), key=lambda face: -face.scale)
        return faces if step == 1 else [_enlarged(face, step) for face in faces]

    def _faces(self, pixels: Tensor, most: int) -> list[Face]:
        """What turns out to be a face among the surest boxes, none over another."""
        faces: list[Face] = []
        taken: list[Crop] = []
        for crop, score in self._boxes(pixels)[:_MOST_BOXES]:
            if len(faces) == most or any(_overlap(crop, other) > _MAX_OVERLAP for other in taken):
                continue
            face = self._face(pixels, crop, score)
            if face is not None and all(_overlap(face_crop(face.landmarks), other) <= _MAX_OVERLAP for other in taken):
                faces.append(face)
                taken.append(face_crop(face.landmarks))
        return faces

    def _boxes(self, pixels: Tensor) -> list[tuple[Crop, float]]:
        """Crops that may hold a face with their scores, the surest first."""
        found = [box for side in _BOX_SIDES for box in self._boxes_at(pixels, side)]
        return sorted(found, key=lambda item: -item[1])

    def _boxes_at(self, pixels: Tensor, side: int) -> list[tuple[Crop, float]]:
        height, width = pixels.shape[1:]
        scale = side / max(height, width)
        shape = [max(16, round(length * scale / 16) * 16) for length in (height, width)]
        small = F.interpolate(pixels[None], shape, mode="bilinear", antialias=True, align_corners=False)
        small = F.pad(small, (BOX_STRIDE * 2,) * 4, mode="replicate")  # faces that the border cuts
        out = self.networks.box(small)[0].numpy()
        score = 1 / (1 + np.exp(-out[0]))
        peak = F.max_pool2d(torch.from_numpy(score)[None, None], 3, 1, 1)[0, 0].numpy() == score
        rows, columns = np.nonzero(peak & (score > self.threshold))
        cell_y, cell_x = height / shape[0] * BOX_STRIDE, width / shape[1] * BOX_STRIDE
        boxes = []
        for row, column in zip(rows, columns, strict=True):
            _, dx, dy, log_side, cosine, sine = out[:, row, column]
            cells = float(np.exp(log_side))
            if _BOX_RANGE[0] <= cells <= _BOX_RANGE[1] or side == _BOX_SIDES[-1] and cells > _BOX_RANGE[1]:
                x, y = (column - 1.5 + dx) * cell_x, (row - 1.5 + dy) * cell_y
                roll = float(np.arctan2(sine, cosine))
                boxes.append((Crop(x, y, cells * (cell_x + cell_y) / 2, roll), float(score[row, column])))
        return boxes

    def _face(self, pixels: Tensor, crop: Crop, score: float) -> Face | None:
        """The face in a crop: a look, another in the crop that it asks for and in the mirror, then closer ones."""
        crop = face_crop(crop.to_picture(self._points("face", pixels, [crop], FACE_SIZE)[0]))
        mirror = replace(crop, is_mirrored=True)
        straight, mirrored = self._points("face", pixels, [crop, mirror], FACE_SIZE)
        one, other = crop.to_picture(straight), mirror.to_picture(mirrored)[load_face_mesh().mirror]
        landmarks = (one + other) / 2
        scale = fit_head(landmarks)[1]
        if np.linalg.norm((one - other)[:, :2], axis=1).mean() > _MIRROR_LIMIT * scale:
            return None
        irises = self._look_closer(pixels, landmarks)
        rotation, scale = fit_head(landmarks)
        (left, top), (right, bottom) = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
        box = (float(left), float(top), float(right), float(bottom))
        return Face(box, score, landmarks, irises, rotation, scale)

    def _look_closer(self, pixels: Tensor, landmarks: np.ndarray) -> np.ndarray:
        """Put the landmarks of eyes and mouth where the second looks see them; returns the irises [2, 3]."""
        parts, (left, right, mouth) = part_vertices(), part_crops(landmarks)
        eyes = self._points("eye", pixels, [left, right], EYE_SIZE)
        irises = np.zeros((2, 3), np.float32)
        for k, (crop, vertices) in enumerate(((left, parts.left_eye), (right, parts.right_eye))):
            seen = crop.to_picture(eyes[k])
            seen[:, 2] += landmarks[vertices, 2].mean() - seen[:-1, 2].mean()  # the look knows the shape of depth only
            landmarks[vertices], irises[k] = seen[:-1], seen[-1]
        lips = mouth.to_picture(self._points("mouth", pixels, [mouth], MOUTH_SIZE)[0])
        lips[:, 2] += landmarks[parts.mouth, 2].mean() - lips[:, 2].mean()
        landmarks[parts.mouth] = lips
        return irises

    def _points(self, name: str, pixels: Tensor, crops: Sequence[Crop], size: int) -> np.ndarray:
        """Crop coordinates [B, P, 3] that a network gives for crops."""
        return getattr(self.networks, name)(torch.stack([cut(pixels, crop, size) for crop in crops])).numpy()


def _enlarged(face: Face, times: int) -> Face:
    """A face of a picture of which every n-th pixel was looked at, in the picture's own pixels."""
    left, top, right, bottom = (float(side * times) for side in face.box)
    return replace(
        face,
        box=(left, top, right, bottom),
        landmarks=face.landmarks * np.float32(times),
        irises=face.irises * np.float32(times),
        scale=face.scale * times,
    )


def _overlap(a: Crop, b: Crop) -> float:
    """Overlap of two crops' upright squares over the smaller's area."""
    width = min(a.x + a.side / 2, b.x + b.side / 2) - max(a.x - a.side / 2, b.x - b.side / 2)
    height = min(a.y + a.side / 2, b.y + b.side / 2) - max(a.y - a.side / 2, b.y - b.side / 2)
    return max(0.0, width) * max(0.0, height) / min(a.side, b.side) ** 2


@functools.lru_cache(maxsize=1)
def _shipped() -> FaceFinder:
    return FaceFinder.load()


def find_faces(picture: np.ndarray) -> list[Face]:
    """Faces of a picture uint8 [H, W, 3], largest first; none where there is none. Uses the shipped weights.

    Raises:
        ValueError: if it is no such picture.
        CheckpointError: if the weights are missing.
    """
    return _shipped().find(picture)
