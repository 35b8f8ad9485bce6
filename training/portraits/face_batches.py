"""Batches for the networks that find a face: boxes on made-up canvases, crops of faces, eyes and mouths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from models.portrait.crops import Crop
from models.portrait.face_mesh import load_face_mesh
from models.portrait.face_networks import BOX_STRIDE, EYE_SIZE, FACE_SIZE, MOUTH_SIZE, part_vertices
from models.portrait.landmarks import face_crop, part_crops
from training.portraits.augment import elastic, restyle
from training.synthetic.portraits.looks import paint_backdrop
from training.synthetic.portraits.shards import PortraitSet

CANVAS = 128
_FACE_SIDES = (9.0, 128.0)  # of a face's crop on a canvas, pixels
_SEEN_SHARE = 0.3  # of the landmarks that make a face one
_BORDERS = (cv2.BORDER_REPLICATE, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT)
Rng = np.random.Generator


@dataclass(frozen=True)
class Example:
    """One picture uint8 [S, S, 3] and its face: landmarks [L, 3], irises [2, 3] in pixels, seen [L]."""

    picture: np.ndarray
    landmarks: np.ndarray
    irises: np.ndarray
    seen: np.ndarray


class FaceSource:
    """Examples of a set of portraits, drawn at random from the given rows."""

    def __init__(self, portraits: PortraitSet, rows: np.ndarray) -> None:
        self.portraits, self.rows = portraits, rows
        self.is_seen = portraits.all("seen").mean(1) > _SEEN_SHARE
        self.backdrops = [paint_backdrop(seed, CANVAS) for seed in range(200)]

    def draw(self, rng: Rng, needs_face: bool = True) -> Example:
        while True:
            row = int(rng.choice(self.rows))
            if self.is_seen[row] or not needs_face:
                break
        (fields,) = self.portraits.rows(np.array([row]), "pictures", "landmarks", "irises", "seen")
        return Example(*fields)


def jittered(crop: Crop, amount: float, rng: Rng) -> Crop:
    """A crop as an earlier look would give it, off by an amount of 1 in the worst case, 0.2 in the best."""
    return replace(
        crop,
        x=crop.x + crop.side * 0.06 * amount * rng.normal(),
        y=crop.y + crop.side * 0.06 * amount * rng.normal(),
        side=crop.side * float(np.exp(0.11 * amount * rng.normal())),
        roll=crop.roll + 0.17 * amount * rng.normal(),
    )


def cut_example(
    picture: np.ndarray, crop: Crop, size: int, points: np.ndarray, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """A restyled crop uint8 [size, size, 3] and points [P, 3] in crop coordinates, both sometimes out of proportion."""
    cell = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    at = np.stack(np.meshgrid(cell, cell), axis=-1)
    targets = crop.to_crop(points)
    if rng.random() < 0.35:
        moved = elastic(size, float(rng.uniform(0.02, 0.12)), rng)
        at = at - moved
        column, row = np.clip(((targets[:, :2] + 0.5) * size).astype(int), 0, size - 1).T
        targets[:, :2] += moved[row, column]
    place = at @ crop.matrix.T.astype(np.float32) + np.array([crop.x - 0.5, crop.y - 0.5], np.float32)
    shrink = crop.side / size
    if shrink > 1.3:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.35 * shrink)
    border = int(_BORDERS[int(rng.integers(len(_BORDERS)))])
    image = cv2.remap(picture, place[..., 0].copy(), place[..., 1].copy(), cv2.INTER_LINEAR, borderMode=border)
    return restyle(image, rng), targets


def _tensor(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def face_batch(source: FaceSource, count: int, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Crops [B, 3, S, S], landmarks [B, L, 3] in crop coordinates, how much each counts [B, L]."""
    mirror = load_face_mesh().mirror
    images, targets, weights = [], [], []
    for _ in range(count):
        example = source.draw(rng)
        order = mirror if rng.random() < 0.5 else np.arange(len(mirror))
        crop = replace(face_crop(example.landmarks), is_mirrored=order is mirror)
        crop = jittered(crop, float(rng.choice([0.25, 1.0], p=(0.65, 0.35))), rng)  # the second look, the first
        image, target = cut_example(example.picture, crop, FACE_SIZE, example.landmarks[order], rng)
        images.append(image)
        targets.append(target)
        weights.append(np.where(example.seen[order], 1.0, 0.4))
    return _tensor(images), torch.from_numpy(np.stack(targets)), torch.from_numpy(np.stack(weights)).float()


def part_batch(source: FaceSource, part: str, count: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Crops [B, 3, S, S] of eyes (`eye`; right ones mirrored) or mouths (`mouth`); points [B, P, 3] of the crop."""
    parts, images, targets = part_vertices(), list[np.ndarray](), list[np.ndarray]()
    while len(images) < count:
        example = source.draw(rng)
        left, right, mouth = part_crops(example.landmarks)
        is_mirrored = rng.random() < 0.5
        if part == "eye":
            vertices, crop = (parts.right_eye, right) if is_mirrored else (parts.left_eye, left)
        else:
            vertices = load_face_mesh().mirror[parts.mouth] if is_mirrored else parts.mouth
            crop = replace(mouth, is_mirrored=is_mirrored)
        if example.seen[vertices].mean() < 0.5:
            continue
        points = example.landmarks[vertices]
        if part == "eye":
            points = np.concatenate([points, example.irises[1:] if is_mirrored else example.irises[:1]])
        size = EYE_SIZE if part == "eye" else MOUTH_SIZE
        crop = jittered(crop, float(rng.uniform(0.15, 0.8)), rng)
        image, target = cut_example(example.picture, crop, size, points, rng)
        images.append(image)
        targets.append(target)
    return _tensor(images), torch.from_numpy(np.stack(targets))


def box_batch(source: FaceSource, count: int, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Canvases [B, 3, C, C]; heat [B, C/8, C/8], 1 at a face's middle and falling around; values [B, 5, C/8, C/8] as
    `BoxNet` gives them after the logit."""
    images, heats, values = [], [], []
    for _ in range(count):
        image, crops = _canvas(source, rng)
        heat, value = _box_targets(crops)
        images.append(restyle(image, rng))
        heats.append(heat)
        values.append(value)
    return _tensor(images), torch.from_numpy(np.stack(heats)), torch.from_numpy(np.stack(values))


def _canvas(source: FaceSource, rng: Rng) -> tuple[np.ndarray, list[Crop]]:
    """A canvas of none to four portraits of any size, and the crops of the faces that can be seen."""
    canvas = source.backdrops[int(rng.integers(len(source.backdrops)))].copy()
    crops: list[Crop] = []
    for _ in range(int(rng.choice([0, 1, 2, 4], p=(0.1, 0.6, 0.15, 0.15)))):
        example = source.draw(rng, needs_face=rng.random() < 0.9)
        crop = face_crop(example.landmarks)
        side = float(np.exp(rng.uniform(*np.log(_FACE_SIDES))))
        scale = side / crop.side
        picture, hidden = example.picture, example.seen.mean() <= _SEEN_SHARE
        if rng.random() < 0.1:
            picture, hidden = _faceless(picture, crop, rng), True
        shrunk = max(2, round(picture.shape[0] * scale))
        mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(picture, (shrunk, shrunk), interpolation=mode)
        x, y = (int(v) for v in rng.uniform(0.1, 0.9, 2) * CANVAS - np.array([crop.x, crop.y]) * scale)
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + shrunk, CANVAS), min(y + shrunk, CANVAS)
        if right <= left or bottom <= top:
            continue
        canvas[top:bottom, left:right] = small[top - y : bottom - y, left - x : right - x]
        crops = [c for c in crops if not (left < c.x < right and top < c.y < bottom)]
        if not hidden:
            crops.append(Crop(crop.x * scale + x, crop.y * scale + y, side, crop.roll))
    return canvas, [c for c in crops if 0 <= c.x < CANVAS and 0 <= c.y < CANVAS]


def _faceless(picture: np.ndarray, crop: Crop, rng: Rng) -> np.ndarray:
    """The picture with its face painted over in its own colours."""
    out = picture.copy()
    patch = picture[tuple(np.clip([int(crop.y), int(crop.x)], 0, picture.shape[0] - 1))]
    colour = tuple(float(v) for v in patch * np.exp(rng.normal(0, 0.15)))
    axes = (int(crop.side * 0.36), int(crop.side * 0.42))
    cv2.ellipse(out, (int(crop.x), int(crop.y)), axes, float(np.degrees(crop.roll)), 0, 360, colour, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(out, (0, 0), 1.5) if rng.random() < 0.5 else out


def _box_targets(crops: list[Crop]) -> tuple[np.ndarray, np.ndarray]:
    cells = CANVAS // BOX_STRIDE
    heat, values = np.zeros((cells, cells), np.float32), np.zeros((5, cells, cells), np.float32)
    y, x = np.mgrid[0:cells, 0:cells] + 0.5
    for crop in crops:
        at_x, at_y, side = crop.x / BOX_STRIDE, crop.y / BOX_STRIDE, crop.side / BOX_STRIDE
        distance = (x - at_x) ** 2 + (y - at_y) ** 2
        spread = np.exp(-distance / (2 * max(0.5, 0.09 * side) ** 2)).astype(np.float32)
        spread[int(at_y), int(at_x)] = 1
        nearer = spread > heat
        heat = np.maximum(heat, spread)
        mine = np.stack([at_x - x, at_y - y, np.full_like(x, np.log(side)),
                         np.full_like(x, np.cos(crop.roll)), np.full_like(x, np.sin(crop.roll))])  # fmt: skip
        values = np.where(nearer, mine, values).astype(np.float32)
    return heat, values
