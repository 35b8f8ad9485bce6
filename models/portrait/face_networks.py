"""The networks that find a face: boxes in a whole picture, dense landmarks in a box, a second look at eyes and mouth.

All take RGB in 0 … 1, channels first, and are small enough for a moment on one core.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.portrait.face_mesh import load_face_mesh

BOX_STRIDE = 8
FACE_SIZE, EYE_SIZE, MOUTH_SIZE = 128, 64, 80
# crops around a face's landmarks, as shares of the face's own crop, which is CROP_SCALE times their extent
CROP_SCALE, EYE_SHARE, MOUTH_SHARE = 1.4, 0.32, 0.46
_PART_RADIUS = 0.17  # face units around lids and lips that the second looks see to


@dataclass(frozen=True)
class PartVertices:
    """Landmarks of the second looks. right_eye is left_eye mirrored, vertex by vertex."""

    left_eye: np.ndarray
    right_eye: np.ndarray
    mouth: np.ndarray


@functools.lru_cache(maxsize=1)
def part_vertices() -> PartVertices:
    """The face mesh's vertices near the left eye, the right eye and the lips."""
    mesh = load_face_mesh()

    def near(*names: str) -> np.ndarray:
        loop = np.unique(np.concatenate([mesh.loops[name] for name in names]))
        distance = np.linalg.norm(mesh.canonical[:, None] - mesh.canonical[loop][None], axis=2).min(1)
        return np.nonzero(distance < _PART_RADIUS)[0]

    left = near("lid_upper_left", "lid_lower_left")
    mouth = near("lip_outer_upper", "lip_outer_lower", "lip_inner_upper", "lip_inner_lower")
    return PartVertices(left, mesh.mirror[left], mouth)


class Block(nn.Module):
    """Two 3×3 convolutions with a shortcut where the shape stays."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.has_shortcut = channels == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return F.relu(x + y if self.has_shortcut else y)


def _stem(out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, out, 5, 2, 2, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class BoxNet(nn.Module):
    """Where faces are: picture [B, 3, H, W], H and W multiples of 16, -> [B, 6, H/8, W/8]: logit that a cell holds the
    middle of a face's crop; from the cell's middle to it, x and y in cells; log of the crop's side in cells; cosine
    and sine of its roll."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Sequential(_stem(12), Block(12, 24, 2), Block(24, 48, 2), Block(48, 48))
        self.far = nn.Sequential(Block(48, 80, 2), Block(80, 80), nn.Conv2d(80, 48, 1))
        head = nn.Conv2d(48, 6, 1)
        nn.init.constant_(head.bias[:1], -4.0)  # type: ignore[index]  # most cells hold no face
        self.out = nn.Sequential(Block(48, 48), head)

    def forward(self, picture: Tensor) -> Tensor:
        near = self.near((picture - 0.5).contiguous(memory_format=torch.channels_last))
        return self.out(near + F.interpolate(self.far(near), scale_factor=2.0, mode="nearest")).float()


class PointNet(nn.Module):
    """Points of a crop: [B, 3, size, size] -> crop coordinates [B, P, 3], z in crop sides.

    Heat maps say where some points are, the anchors; a spline carries the others along; a dense layer adds what is
    left, and depth. Buffers: `mean` [P, 3] is where points are on average, `spline` [P, K] the weights of the anchors.
    """

    mean: Tensor
    spline: Tensor
    anchors: Tensor
    cells: Tensor

    def __init__(self, size: int, canonical: np.ndarray, anchors: int, channels: tuple[int, ...], hidden: int) -> None:
        """canonical [P, 3]: the points on the canonical face; anchors: how many of them have heat maps."""
        super().__init__()
        a, b, c, d = channels
        chosen = _spread(canonical, anchors)
        self.quarter = nn.Sequential(_stem(a), Block(a, b, 2))
        self.eighth = nn.Sequential(Block(b, c, 2), Block(c, c))
        self.sixteenth = nn.Sequential(Block(c, d, 2), Block(d, d))
        self.up_eighth, self.up_quarter = nn.Conv2d(d, c, 1), nn.Conv2d(c, b, 1)
        self.mix_eighth, self.mix_quarter = Block(c, c), Block(b, b)
        self.heat = nn.Conv2d(b, anchors, 1)
        side, grid = size // 16, size // 4
        self.rest = nn.Sequential(
            nn.Conv2d(d, 32, 1), nn.BatchNorm2d(32), nn.Flatten(),
            nn.Linear(32 * side * side, hidden), nn.SiLU(), nn.Linear(hidden, 3 * len(canonical)),
        )  # fmt: skip
        line = (torch.arange(grid) + 0.5) / grid - 0.5
        cells = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).view(-1, 2)
        self.register_buffer("cells", cells, persistent=False)
        self.register_buffer("anchors", torch.from_numpy(chosen), persistent=False)
        self.register_buffer("spline", torch.from_numpy(_spline(canonical, chosen)).float(), persistent=False)
        self.register_buffer("mean", torch.zeros(len(canonical), 3))

    def forward(self, crop: Tensor) -> Tensor:
        quarter = self.quarter((crop - 0.5).contiguous(memory_format=torch.channels_last))
        eighth = self.eighth(quarter)
        deep = self.sixteenth(eighth)
        eighth = self.mix_eighth(eighth + doubled(self.up_eighth(deep)))
        heat = self.heat(self.mix_quarter(quarter + doubled(self.up_quarter(eighth))))
        seen = heat.float().flatten(2).softmax(dim=2) @ self.cells  # [B, K, 2]
        moved = self.spline @ (seen - self.mean[self.anchors, :2])
        rest = 0.1 * self.rest(deep).float().view(len(crop), -1, 3)
        return self.mean + rest + F.pad(moved, (0, 1))


def doubled(x: Tensor) -> Tensor:
    """A map [B, C, H, W] at twice the size."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _spread(points: np.ndarray, count: int) -> np.ndarray:
    """Indices [count] of points that are far from each other, the last point (an eye's iris) first."""
    chosen = [len(points) - 1]
    distance = np.linalg.norm(points - points[-1], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def _spline(points: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Weights [P, K] of the anchors' displacements at all points: a biharmonic spline, exact at the anchors and for
    affine displacements."""

    def terms(at: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(at[:, None] - points[anchors][None], axis=2)
        return np.concatenate([distance, np.ones((len(at), 1)), at], axis=1)

    count = len(anchors)
    system = np.zeros((count + 4, count + 4))
    system[:count] = terms(points[anchors])
    system[count:, :count] = system[:count, count:].T
    return terms(points) @ np.linalg.solve(system, np.eye(count + 4, count))


class FaceNetworks(nn.Module):
    """All of them. The eye's network sees left eyes (right ones mirrored); its last point is the iris's middle."""

    def __init__(self) -> None:
        super().__init__()
        parts, canonical = part_vertices(), load_face_mesh().canonical.astype(np.float64)
        left = canonical[parts.left_eye]
        eye = np.concatenate([left, left.mean(0, keepdims=True)])  # the iris is about in its middle
        self.box = BoxNet()
        self.face = PointNet(FACE_SIZE, canonical, 72, (16, 32, 64, 112), 256)
        self.eye = PointNet(EYE_SIZE, eye, 26, (16, 32, 48, 64), 128)
        self.mouth = PointNet(MOUTH_SIZE, canonical[parts.mouth], 40, (16, 32, 48, 80), 160)
