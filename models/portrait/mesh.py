"""The mesh that a picture is moved by: the face, and around it a grid that goes with head, torso and shoulders.

Points are in pixels of the canvas, z towards the viewer and 0 at the eyes. Letters: N points, F triangles, T frames,
G points of the grid, L vertices of the face mesh.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from models.portrait.bones import CAMERA_DISTANCE
from models.portrait.expression import Expression, eye_middle
from models.portrait.face_mesh import FaceMesh
from models.portrait.patch import smooth

_CELLS_A_UNIT = 24  # of the grid, a face unit
_MARGIN_CELLS = 8  # beyond the picture, which moves into it
_BAND = 0.4  # face units of room that follow the person, less and less
_BORDER = 0.35  # face units from the picture's border, beyond which nothing is that could move in
_BEHIND = 0.3  # face units by which the grid lies behind the face
_ROOM_BEHIND = 3.0  # face units: what is room never covers the person
_EDGE_BACK, _EDGE_WIDTH = 0.45, 0.2  # face units: the outline of a head lies further back than its front


@dataclass(frozen=True)
class CanvasLayout:
    """What is where in a canvas, maps float32 [h, w] that cover it.

    depth: towards the viewer, face units, 0 at the eyes. head: share of the head's turn, 0 … 1. shoulder: share of the
    collar bones' lift. matte: 1 where the person is.
    """

    depth: np.ndarray
    head: np.ndarray
    shoulder: np.ndarray
    matte: np.ndarray


@dataclass(frozen=True)
class View:
    """How a picture sees a head: the middle of its eyes [3], pixels a face unit there, where the viewer looks [2]."""

    eyes: np.ndarray
    unit: float
    centre: np.ndarray

    def unprojected(self, points: np.ndarray) -> np.ndarray:
        """Pixels and depth [P, 3] → face units about the eyes, without perspective, float32."""
        distance = CAMERA_DISTANCE * self.unit
        depth = points[:, 2:] - self.eyes[2]
        flat = (points[:, :2] - self.centre) * ((distance - depth) / distance) - (self.eyes[:2] - self.centre)
        return (np.concatenate([flat, depth], axis=1) / self.unit).astype(np.float32)

    def projected(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `unprojected`, float32."""
        out = points * np.float32(self.unit)
        distance = np.float32(CAMERA_DISTANCE * self.unit)
        offset = (self.eyes[:2] - self.centre).astype(np.float32)
        grow = distance / (distance - out[:, 2])
        for axis in (0, 1):
            out[:, axis] = (out[:, axis] + offset[axis]) * grow + np.float32(self.centre[axis])
        out[:, 2] += np.float32(self.eyes[2])
        return out


@dataclass(frozen=True)
class RestMesh:
    """A picture's mesh at rest. The first L points are the landmarks.

    points: float32 [N, 3]. source: float32 [N, 2], where a point's colour lies in the picture.
    triangles: int32 [F, 3]. shares: float32 [N, 4] of the maps of `bone_maps`; what lacks to 1 stands still.
    bias: float32 [N], added to z where triangles compete for a pixel.
    bending: int64 [L + M], the landmarks and the points of the grid that the expression reaches.
    followed: int64 [M, 2], points of the face's outline that the latter go with; following: float32 [M, 2], how far.
    """

    points: np.ndarray
    source: np.ndarray
    triangles: np.ndarray
    shares: np.ndarray
    bias: np.ndarray
    bending: np.ndarray
    followed: np.ndarray
    following: np.ndarray
    view: View

    def posed(self, expression: np.ndarray, bones: np.ndarray) -> np.ndarray:
        """Points float32 [N, 3] of a frame, z with its bias.

        Args:
            expression: float32 [L, 3], displacements of the landmarks with the head at rest, pixels.
            bones: float32 [4, 3, 4], as `bone_maps` gives them.
        """
        change = bones - np.eye(3, 4, dtype=np.float32)
        moved = self._unprojected + self._basis @ change.transpose(0, 2, 1).reshape(-1, 3)
        around = expression[self.followed[:, 0]] * self.following[:, :1]
        around += expression[self.followed[:, 1]] * self.following[:, 1:]
        bent = np.concatenate([expression, around]) / np.float32(self.view.unit)
        turns = np.tensordot(self.shares[self.bending], change[:, :, :3], axes=1)  # [L + M, 3, 3]
        moved[self.bending] += bent + (turns @ bent[:, :, None])[:, :, 0]
        out = self.view.projected(moved)
        out[:, 2] += self.bias
        return out

    @functools.cached_property
    def _unprojected(self) -> np.ndarray:
        return self.view.unprojected(self.points)

    @functools.cached_property
    def _basis(self) -> np.ndarray:
        """[N, 16]: what the changes of the four maps are multiplied by."""
        homogeneous = np.concatenate([self._unprojected, np.ones((len(self.points), 1), np.float32)], axis=1)
        return (self.shares[:, :, None] * homogeneous[:, None]).reshape(len(self.points), -1)


def make_mesh(
    mesh: FaceMesh, expression: Expression, landmarks: np.ndarray, layout: CanvasLayout, size: tuple[int, int]
) -> RestMesh:
    """The mesh of a picture of height and width `size`, of its landmarks [L, 3] and layout.

    Raises:
        ValueError: if the layout shows no person.
    """
    view = View(eye_middle(mesh, landmarks), expression.unit, np.array([size[1] / 2, size[0] / 2]))
    outline = _Outline(landmarks, mesh.loops["outline"])
    person = _person(layout, size, view.unit)
    grid, shares = _grid_shares(view, size, person)
    points, around = grid.points, outline.around(grid.points)
    depth, distance = (sample(plane, points, size) for plane in (person.depth, person.distance))
    behind = _BEHIND * (1 - smooth(around.radius, 0.85, 0.97)) + 0.5 * distance
    z = view.eyes[2] + view.unit * (depth - behind) + _depth_shift(landmarks, person.depth, size, outline, view)
    following = (1 - smooth(around.radius, 1, 1.5)) * shares[:, 0]
    follows = following > 0
    face_head = _face_shares(landmarks, person.head, size, outline)
    face_shares = np.stack([face_head, 1 - face_head, 0 * face_head, 0 * face_head], axis=1)
    bias = -_ROOM_BEHIND * view.unit * smooth(distance, 0, 0.1)
    holes = [_strip(mesh.loops[f"{part}_upper{side}"], mesh.loops[f"{part}_lower{side}"]) for part, side in _HOLES]
    all_points = np.concatenate([landmarks, np.c_[points, z]]).astype(np.float32)
    share = np.stack([1 - around.share, around.share], axis=1)
    return RestMesh(
        points=all_points,
        source=all_points[:, :2].copy(),
        triangles=np.concatenate([mesh.triangles, *holes, grid.triangles + mesh.count]).astype(np.int32),
        shares=np.concatenate([face_shares, shares]).astype(np.float32),
        bias=np.concatenate([np.zeros(mesh.count), bias]).astype(np.float32),
        bending=np.concatenate([np.arange(mesh.count), np.flatnonzero(follows) + mesh.count]),
        followed=around.vertices[follows],
        following=(following[:, None] * share)[follows].astype(np.float32),
        view=view,
    )


def _grid_shares(view: View, size: tuple[int, int], person: _Person) -> tuple[_Grid, np.ndarray]:
    """The part of the grid that moves, and its points' shares [G, 4] of the four maps."""
    points, triangles = _grid(size, view.unit)
    maps = (person.head, person.shoulder, person.distance)
    head, shoulder, distance = (sample(plane, points, size) for plane in maps)
    border = np.minimum(points, np.array(size[::-1]) - points).min(1) / view.unit
    fade = (1 - smooth(distance, 0, _BAND)) * smooth(border, 0, _BORDER)
    left = smooth(points[:, 0] - view.eyes[0], -0.3 * view.unit, 0.3 * view.unit)
    chest = (1 - head) * fade
    lifted = chest * shoulder
    shares = np.stack([head * fade, chest - lifted, lifted * (1 - left), lifted * left], axis=1)
    triangles = triangles[(fade > 0)[triangles].any(1)]
    used, places = np.unique(triangles, return_inverse=True)
    return _Grid(points[used], places.reshape(triangles.shape)), shares[used]


_HOLES = (("lip_inner", ""), ("lid", "_left"), ("lid", "_right"))


@dataclass(frozen=True)
class _Grid:
    """Points [G, 2] in pixels, and triangles [F, 3] between them."""

    points: np.ndarray
    triangles: np.ndarray


def _grid(size: tuple[int, int], unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Points in rows and columns over the canvas and a margin around it, and the triangles between them."""
    step = unit / _CELLS_A_UNIT
    rows, columns = (int(np.ceil(side / step)) + 2 * _MARGIN_CELLS + 1 for side in size)
    x, y = (step * (np.arange(count) - _MARGIN_CELLS) for count in (columns, rows))
    place = np.arange(rows * columns).reshape(rows, columns)
    corners = np.stack([place[:-1, :-1], place[:-1, 1:], place[1:, :-1], place[1:, 1:]], axis=-1).reshape(-1, 4)
    return (
        np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2),
        np.concatenate([corners[:, [0, 1, 2]], corners[:, [1, 3, 2]]]),
    )


@dataclass(frozen=True)
class _Around:
    """Where points lie around a face: radius [G] (1 on its outline), vertices [G, 2] of the outline beside the ray from
    the face's middle to the point, and how far [G] the ray is from the first to the second."""

    radius: np.ndarray
    vertices: np.ndarray
    share: np.ndarray


class _Outline:
    """The outer edge of a face, in polar coordinates about its middle."""

    def __init__(self, landmarks: np.ndarray, loop: np.ndarray) -> None:
        self.middle = landmarks[loop, :2].mean(0)
        arms = landmarks[loop, :2] - self.middle
        order = np.argsort(np.arctan2(arms[:, 1], arms[:, 0]))
        self._loop = loop[order]
        self._angle = np.arctan2(arms[order, 1], arms[order, 0])
        self._reach = np.linalg.norm(arms[order], axis=1)

    def around(self, points: np.ndarray) -> _Around:
        arms = points - self.middle
        angle = np.arctan2(arms[:, 1], arms[:, 0])
        after = np.searchsorted(self._angle, angle) % len(self._angle)
        before = after - 1
        span = (self._angle[after] - self._angle[before]) % (2 * np.pi)
        share = np.clip((angle - self._angle[before]) % (2 * np.pi) / np.maximum(span, 1e-6), 0, 1)
        reach = self._reach[before] * (1 - share) + self._reach[after] * share
        return _Around(
            np.linalg.norm(arms, axis=1) / reach, np.stack([self._loop[before], self._loop[after]], axis=1), share
        )


@dataclass(frozen=True)
class _Person:
    """A layout's maps [h, w], continued beyond the person's outline, and the distance to it, face units."""

    depth: np.ndarray
    head: np.ndarray
    shoulder: np.ndarray
    distance: np.ndarray


def _person(layout: CanvasLayout, size: tuple[int, int], unit: float) -> _Person:
    on = layout.matte > 0.5
    if not on.any():
        raise ValueError("the layout of the picture shows no person")
    cells = layout.matte.shape[1] / size[1] * unit  # a face unit
    inside = cv2.distanceTransform(on.astype(np.uint8), cv2.DIST_L2, 5)
    core = inside > 1.5  # the outermost cells mix person and room
    distance, row, column = _nearest(on)
    _, core_row, core_column = _nearest(core if core.any() else on)
    back = _EDGE_BACK * layout.head * (1 - smooth(inside / cells, 0, _EDGE_WIDTH))
    depth, head, shoulder = (
        _blurred(plane[core_row, core_column], on) for plane in (layout.depth, layout.head, layout.shoulder)
    )
    return _Person((depth - back)[row, column], head[row, column], shoulder[row, column], distance / cells)


def _nearest(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the nearest cell of a mask, and its row and column, for every cell."""
    distance, label = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(mask)
    place = np.zeros((label.max() + 1, 2), int)
    place[label[rows, columns]] = np.stack([rows, columns], axis=1)
    return distance, place[label][..., 0], place[label][..., 1]


def _blurred(plane: np.ndarray, on: np.ndarray) -> np.ndarray:
    """A map smoothed among the person's cells."""
    weight = cv2.GaussianBlur(on.astype(np.float32), (0, 0), 1.2)
    mixed = cv2.GaussianBlur(plane.astype(np.float32) * on, (0, 0), 1.2)
    return np.where(weight > 0.05, mixed / np.maximum(weight, 1e-3), plane)


def _depth_shift(
    landmarks: np.ndarray, depth: np.ndarray, size: tuple[int, int], outline: _Outline, view: View
) -> float:
    """Pixels that lay the layout's depth on the landmarks'."""
    inner = landmarks[outline.around(landmarks[:, :2]).radius < 0.7]
    return float(np.median(inner[:, 2] - view.eyes[2] - view.unit * sample(depth, inner[:, :2], size)))


def _face_shares(landmarks: np.ndarray, head: np.ndarray, size: tuple[int, int], outline: _Outline) -> np.ndarray:
    """Head shares [L] of the face: 1, and as the layout has it where the face gives way to the neck."""
    radius = outline.around(landmarks[:, :2]).radius
    found = sample(head, landmarks[:, :2], size).clip(0.5, 1)
    return 1 - (1 - found) * smooth(radius, 0.8, 1.0)


def _strip(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Triangles between two lines of vertices that share their ends."""
    triangles, i, j = [], 0, 0
    ends = len(upper) - 1, len(lower) - 1
    while (i, j) != ends:
        is_upper = j == ends[1] or i < ends[0] and (i + 1) * ends[1] <= (j + 1) * ends[0]
        third = upper[i + 1] if is_upper else lower[j + 1]
        triangles.append((upper[i], third, lower[j]))
        i, j = (i + 1, j) if is_upper else (i, j + 1)
    return np.array([triangle for triangle in triangles if len(set(triangle)) == 3])


def sample(plane: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values [P] of a map [h, w] that covers a canvas of height and width `size`, at points [P, 2] in its pixels."""
    height, width = plane.shape
    at = (points * (width / size[1], height / size[0]) - 0.5).astype(np.float32)
    value = cv2.remap(
        np.ascontiguousarray(plane, np.float32), at[None, :, :1].copy(), at[None, :, 1:].copy(), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return value.reshape(-1)
