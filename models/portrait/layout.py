"""The layout of a portrait: how deep the person is everywhere, and what moves it: head, torso, breath, or nothing."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.checkpoints import load_component
from models.portrait.crops import Crop, cut
from models.portrait.face_networks import Block, doubled, part_vertices
from models.portrait.landmarks import WEIGHTS_FOLDER, Face

LAYOUT_SIZE = 128
LAYOUT_UNITS = 9.0  # side of the square, in face units
_BELOW_EYES = 1.2  # its middle, in face units
_SPREAD = 2.0  # of the blobs that show the network where the landmarks are, cells


@dataclass(frozen=True)
class Layout:
    """Maps of a square of the picture, N = 128 cells a side, all float32 [N, N]; cell (row, column) covers the pixels
    left + side/N · (column … column + 1), top + side/N · (row … row + 1). The square may reach beyond the picture;
    what the maps say there means nothing.

    scale: pixels of a face unit.
    front, back: depth of the nearest and of the farthest surface of the person, pixels of the picture, towards the
    viewer, 0 at the depth of the point between the eyes as in `Face.landmarks`.
    head: 0 … 1, how far a point follows the turn of the head about the neck (1 the skull, falling along the neck);
    clavicle: 0 … 1, how far it follows the rise of the shoulders with the breath; both are shares of the person alone.
    matte: 0 … 1, how much of the cell the person covers; torso = matte · (1 - head).
    Where no person is, depths and shares are those of the person near by.
    """

    left: float
    top: float
    side: float
    scale: float
    front: np.ndarray
    back: np.ndarray
    head: np.ndarray
    clavicle: np.ndarray
    matte: np.ndarray


def _continued(maps: Tensor, is_known: Tensor) -> Tensor:
    """Maps [C, N, N] where they are known [1, N, N]; elsewhere the mean of what is known near by."""
    weight = is_known.float()
    if not weight.any():
        return maps
    levels = [(maps * weight, weight)]
    while levels[-1][0].shape[-1] > 1:
        levels.append(tuple(F.avg_pool2d(part[None], 2)[0] for part in levels[-1]))  # type: ignore[arg-type]
    values, weight = levels.pop()
    out = values / weight
    for values, weight in reversed(levels):
        wide = F.interpolate(out[None], values.shape[-2:], mode="bilinear", align_corners=False)[0]
        share = (weight * 4).clamp(max=1)
        out = torch.where(weight > 0, share * values / weight.clamp(min=1e-6) + (1 - share) * wide, wide)
    return out


def layout_crop(landmarks: np.ndarray, scale: float) -> Crop:
    """The upright square of a face's landmarks [L, 2 or 3] in pixels and its scale (pixels of a face unit)."""
    parts = part_vertices()
    x, y = (landmarks[parts.left_eye, :2].mean(0) + landmarks[parts.right_eye, :2].mean(0)) / 2
    return Crop(float(x), float(y + _BELOW_EYES * scale), LAYOUT_UNITS * scale)


def draw_hints(points: Tensor) -> Tensor:
    """Where a face is and how deep, float [B, 2, N, N]: cover 0 … 1, and depth in face units times cover.

    Args:
        points: [B, L, 3]; x, y in crop coordinates, z in face units.
    """
    cells = (torch.arange(LAYOUT_SIZE, device=points.device) + 0.5) / LAYOUT_SIZE - 0.5
    along = torch.exp(-(((points[..., :2, None] - cells) * LAYOUT_SIZE / _SPREAD) ** 2) / 2)  # [B, L, 2, N]
    x, y = along.unbind(2)
    total = torch.einsum("bly,blx->byx", y, x)
    depth = torch.einsum("bly,blx->byx", y * points[..., 2:], x) / (total + 1e-3)
    cover = (2 * total).clamp(max=1)
    return torch.stack([cover, depth * cover], dim=1)


class LayoutNet(nn.Module):
    """Crop [B, 3, N, N] in 0 … 1 and hints [B, 2, N, N] (zeros where there are none) -> [B, 5, N, N]: front depth in
    face units, how much deeper the back is, logits of head share, clavicle share and matte."""

    cells: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(7, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.quarter = Block(24, 48, 2)
        self.eighth = nn.Sequential(Block(48, 96, 2), Block(96, 96))
        self.sixteenth = nn.Sequential(Block(96, 144, 2), Block(144, 144))
        self.context = nn.Linear(144, 144)
        self.up_eighth, self.mix_eighth = nn.Conv2d(144, 96, 1), Block(96, 64)
        self.up_quarter, self.skip_quarter, self.mix_quarter = nn.Conv2d(64, 48, 1), nn.Conv2d(48, 48, 1), Block(48, 40)
        self.up_half, self.skip_half, self.mix_half = nn.Conv2d(40, 32, 1), nn.Conv2d(24, 32, 1), Block(32, 32)
        self.out = nn.Conv2d(32, 20, 3, 1, 1)
        cells = (torch.arange(LAYOUT_SIZE) + 0.5) / LAYOUT_SIZE - 0.5
        self.register_buffer("cells", torch.stack(torch.meshgrid(cells, cells, indexing="xy"))[None], persistent=False)

    def forward(self, crop: Tensor, hints: Tensor) -> Tensor:
        place = self.cells.expand(len(crop), -1, -1, -1)
        seen = torch.cat([crop - 0.5, hints, place], dim=1).contiguous(memory_format=torch.channels_last)
        half = self.stem(seen)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        deep = self.sixteenth(eighth)
        deep = deep + self.context(deep.mean((2, 3)))[:, :, None, None]
        eighth = self.mix_eighth(eighth + doubled(self.up_eighth(deep)))
        quarter = self.mix_quarter(self.skip_quarter(quarter) + doubled(self.up_quarter(eighth)))
        half = self.mix_half(self.skip_half(half) + doubled(self.up_half(quarter)))
        front, deeper, *shares = F.pixel_shuffle(self.out(half), 2).float().unbind(1)
        return torch.stack([front + hints[:, 1], F.softplus(deeper), *shares], dim=1)  # depth on top of the face's own


@torch.no_grad()
def lay_out(picture: np.ndarray, face: Face, network: LayoutNet) -> Layout:
    """The layout of a face's person in a picture uint8 [H, W, 3]: the mean over the picture and its mirror image."""
    landmarks, scale = face.landmarks, face.scale
    crop = layout_crop(landmarks, scale)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
    seen = cut(pixels, crop, LAYOUT_SIZE)[None]
    points = crop.to_crop(landmarks)
    points[:, 2] = landmarks[:, 2] / scale
    hints = draw_hints(torch.from_numpy(points)[None])
    out = network(torch.cat([seen, seen.flip(-1)]), torch.cat([hints, hints.flip(-1)]))
    front, deeper, head, clavicle, matte = (out[0] + out[1].flip(-1)) / 2
    maps = torch.stack([front * scale, (front - deeper) * scale, head.sigmoid(), clavicle.sigmoid()])
    front_depth, back_depth, head_share, clavicle_share = _continued(maps, (matte > 0)[None]).numpy()
    left, top = crop.x - crop.side / 2, crop.y - crop.side / 2
    return Layout(
        left, top, crop.side, scale, front_depth, back_depth, head_share, clavicle_share, matte.sigmoid().numpy()
    )


def load_layout_network(folder: Path = WEIGHTS_FOLDER) -> LayoutNet:
    """Read the component `layout` of a weights folder. Raises CheckpointError where it is missing or broken."""
    network = LayoutNet()
    load_component(folder, "layout", network)
    return network.eval()


@functools.lru_cache(maxsize=1)
def _shipped() -> LayoutNet:
    return load_layout_network()


def find_layout(picture: np.ndarray, face: Face) -> Layout:
    """The layout of one of a picture's faces, with the shipped weights. Raises CheckpointError without them."""
    return lay_out(picture, face, _shipped())
