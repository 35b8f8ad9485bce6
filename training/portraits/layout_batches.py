"""Batches for the layout network: squares round a person, with what hides outlines and changes surfaces."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from models.portrait.crops import Crop
from models.portrait.face_mesh import load_face_mesh
from models.portrait.landmarks import fit_head
from models.portrait.layout import LAYOUT_SIZE, draw_hints, layout_crop
from training.portraits.augment import restyle
from training.synthetic.portraits.shards import PortraitSet

_KINDS = 5  # of surfaces: room, skin, cloth, hair, eyes and mouth
_FIELDS = ("pictures", "landmarks", "irises", "front", "back", "shares", "kinds")
_RECOLOUR_SHARE = (0.45, 0.2, 0.45, 0.45, 0.1)
_HINT_ERROR = 0.03  # face units by which landmarks are off, as a finder's are
Rng = np.random.Generator


def layout_batch(
    portraits: PortraitSet, rows: np.ndarray, rng: Rng, is_varied: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One example a row: crops [B, 3, N, N], hints [B, 2, N, N] (half of them zero where varied), targets
    [B, 5, N, N] (front and back in face units, head, clavicle, matte), and where the picture is [B, 1, N, N]."""
    crops: list[Tensor] = []
    points: list[Tensor] = []
    targets: list[Tensor] = []
    inside: list[Tensor] = []
    for fields in portraits.rows(rows, *_FIELDS):
        example = _example(fields, rng, is_varied)
        for kept, value in zip((crops, points, targets, inside), example, strict=True):
            kept.append(torch.from_numpy(value))
    hints = draw_hints(torch.stack(points).float())
    if is_varied:
        hints = hints * (torch.from_numpy(rng.random(len(crops))) < 0.5).float().view(-1, 1, 1, 1)
    pictures = torch.stack(crops).permute(0, 3, 1, 2).float() / 255
    return pictures, hints, torch.stack(targets), torch.stack(inside)


def _example(
    fields: tuple[np.ndarray, ...], rng: Rng, is_varied: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    picture, landmarks, irises, front, back, shares, kinds = fields
    scale = fit_head(landmarks)[1]
    crop = layout_crop(landmarks, scale)
    if is_varied:
        crop = _varied(crop, rng)
    # depth labels count distances of this person's eyes; the network's face units are those of the mean face
    unit = float(np.linalg.norm(irises[0] - irises[1])) / scale
    order = load_face_mesh().mirror if crop.is_mirrored else np.arange(len(landmarks))
    points = crop.to_crop(landmarks[order])
    points[:, 2] = landmarks[order, 2] / scale
    if is_varied:
        points += rng.normal(0, _HINT_ERROR, 3) / (9, 9, 3)
    to_picture = _map(crop, picture.shape[0])
    image = _remapped(picture, to_picture, cv2.BORDER_REPLICATE)
    matte = shares[..., 2].astype(np.float32) / 255
    depth = np.dstack([front.astype(np.float32) * unit, back.astype(np.float32) * unit]) * matte[..., None]
    moved = np.dstack([shares[..., :2].astype(np.float32) / 255 * matte[..., None], matte])
    to_label = _map(crop, picture.shape[0], front.shape[0])
    depth, moved = (_remapped(values, to_label, cv2.BORDER_CONSTANT) for values in (depth, moved))
    kind = cv2.remap(np.ascontiguousarray(kinds), *to_label, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    covered = moved[..., 2:]
    values = np.concatenate([depth, moved[..., :2]], axis=2) / np.maximum(covered, 0.02)
    target = np.concatenate([values, covered], axis=2)
    column, row = to_picture
    inside = (column > -1) & (column < picture.shape[1]) & (row > -1) & (row < picture.shape[0])
    if is_varied:
        image, target = _cover_head(image, target, kind, rng)
        image = restyle(_recolour(image, kind, rng), rng)
    return image, points, target.transpose(2, 0, 1).astype(np.float32), inside[None].astype(np.float32)


def _varied(crop: Crop, rng: Rng) -> Crop:
    return replace(
        crop,
        x=crop.x + crop.side * 0.03 * rng.normal(),
        y=crop.y + crop.side * 0.03 * rng.normal(),
        side=crop.side * float(np.exp(0.12 * rng.normal())),
        roll=0.12 * float(rng.normal()),
        is_mirrored=bool(rng.random() < 0.5),
    )


def _map(crop: Crop, size: int, label_size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows, float32 [N, N], of a picture (or of its labels) that the crop's cells lie at."""
    cell = (np.arange(LAYOUT_SIZE, dtype=np.float32) + 0.5) / LAYOUT_SIZE - 0.5
    at = np.stack(np.meshgrid(cell, cell), axis=-1) @ crop.matrix.T + np.array([crop.x, crop.y])
    at = (at * ((label_size or size) / size) - 0.5).astype(np.float32)
    return np.ascontiguousarray(at[..., 0]), np.ascontiguousarray(at[..., 1])


def _remapped(values: np.ndarray, at: tuple[np.ndarray, np.ndarray], border: int) -> np.ndarray:
    shrink = float(at[0][0, 1] - at[0][0, 0]) ** 2 + float(at[1][0, 1] - at[1][0, 0]) ** 2
    if shrink > 1.7:
        values = cv2.GaussianBlur(values, (0, 0), 0.35 * float(np.sqrt(shrink)))
    return cv2.remap(values, *at, cv2.INTER_LINEAR, borderMode=border)


def _recolour(image: np.ndarray, kind: np.ndarray, rng: Rng) -> np.ndarray:
    """Each kind of surface in other colours, sometimes all of them alike: dark on dark, pale on pale."""
    out = image.astype(np.float32)
    together = float(rng.normal(0, 0.7)) if rng.random() < 0.2 else None
    for surface in range(_KINDS):
        if rng.random() > _RECOLOUR_SHARE[surface] and together is None:
            continue
        cover = cv2.blur((kind == surface).astype(np.float32), (3, 3))[..., None]
        gain = np.exp(rng.normal(0, 0.25, 3) + (rng.normal(0, 0.5) if together is None else together))
        grain = rng.standard_normal((int(rng.integers(3, 50)),) * 2, np.float32)
        texture = cv2.resize(grain, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)[..., None]
        changed = out * gain + 255 * (0.2 * (rng.random() - 0.3) + 0.06 * rng.random() * texture)
        out += cover * (changed - out)
    return np.clip(out, 0, 255).astype(np.uint8)


def _cover_head(
    image: np.ndarray, target: np.ndarray, kind: np.ndarray, rng: Rng
) -> tuple[np.ndarray, np.ndarray]:
    """Sometimes a hat, wig or veil of any outline: the head grown and painted over, but for the face."""
    if rng.random() > 0.2:
        return image, target
    head = ((target[..., 2] > 0.8) & (target[..., 4] > 0.5)).astype(np.float32)
    reach = int(rng.integers(2, 10)) * 2 + 1
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    grown = cv2.GaussianBlur(cv2.dilate(head, shape), (0, 0), 1)
    face = cv2.blur(np.isin(kind, (1, 4)).astype(np.float32), (3, 3))
    add = grown * (1 - face)
    if rng.random() < 0.6:
        noise = cv2.resize(rng.standard_normal((4, 4), np.float32), head.shape[::-1], interpolation=cv2.INTER_CUBIC)
        add = add * (noise + 0.7 * rng.normal() > 0)
    grain = cv2.resize(rng.standard_normal((40, 40), np.float32), head.shape[::-1])[..., None]
    paint = rng.uniform(5, 250, 3) * np.exp(0.12 * grain)
    covered = (image * (1 - add[..., None]) + paint * add[..., None]).clip(0, 255).astype(np.uint8)
    near = cv2.blur(target[..., :2] * head[..., None], (31, 31)) / np.maximum(cv2.blur(head, (31, 31)), 0.02)[..., None]
    fresh = ((add > 0.05) & (target[..., 4] < 0.5))[..., None]
    grown_target = np.dstack([near, np.ones_like(head), np.zeros_like(head), np.maximum(target[..., 4], add)])
    out = np.where(fresh, grown_target, target)
    return covered, np.concatenate([out[..., :4], grown_target[..., 4:]], axis=2).astype(np.float32)
