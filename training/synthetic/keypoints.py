"""Exact 2D keypoints of a rendered frame, in the order of the contract: 70 face, 11 body, 21 + 21 hands, 20 room.

Left to right is as seen in the picture (the person's right comes first) for the face; hands are the person's.
Lips are taken where a viewer sees them end: the lower edge of the upper lip's profile, the upper edge of the
lower lip's, so that the aperture of a shut mouth is 0.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from training.synthetic.body import BodyModel
from training.synthetic.figure import Figure
from training.synthetic.renderer import project
from training.synthetic.rig import Skeleton

KEYPOINT_COUNT = 143
FACE, BODY, HAND_L, HAND_R, ROOM = slice(0, 70), slice(70, 81), slice(81, 102), slice(102, 123), slice(123, 143)
INNER_UPPER, INNER_LOWER = slice(60, 65), slice(65, 70)
BODY_BONES = (
    "head", "neck01", "upperarm01.L", "lowerarm01.L", "wrist.L", "upperarm01.R", "lowerarm01.R", "wrist.R",
    "spine02", "eye.L", "eye.R",
)  # fmt: skip
# how far behind the visible surface a point may lie and still count as seen
BODY_SLACK_M = (0.13, 0.10, 0.10, 0.08, 0.05, 0.10, 0.08, 0.05, 0.20, 0.022, 0.022)
FACE_SLACK_M, HAND_SLACK_M = 0.009, 0.022

# Columns of the lips' mesh from the skin over the red into the mouth, left half of the face, base vertices.
_UPPER_COLUMNS = (
    (466, 467, 509, 468, 474, 520, 537),  # x = 0 mm on the neutral body
    (7219, 7220, 7256, 7221, 7228, 7268, 7283),  # 5
    (7211, 7212, 7254, 7213, 7226, 7262, 7277),  # 10
    (11953, 11954, 11963, 11955, 11964, 11962, 11961),  # 13
)
_LOWER_COLUMNS = (
    (496, 495, 513, 494, 493, 523, 540),  # 0
    (7245, 7244, 7260, 7243, 7242, 7264, 7279),  # 5
    (7239, 7238, 7259, 7237, 7236, 7265, 7280),  # 10
    (7233, 7232, 7258, 7231, 7230, 7266, 7281),  # 15
)
_CORNER = 7189
# Edges of the left eye's lids: inner corner, upper lid outwards, outer corner, lower lid inwards.
_LIDS = (6855, 6841, 6790, 11474, 13373, 13367)


@dataclass(frozen=True)
class _Landmarks:
    """Base vertices: `single` [48 + 12] of contour … outer lips, inner lip columns upper and lower [5, 7]."""

    single: np.ndarray
    upper: np.ndarray
    lower: np.ndarray


def _mirrored(body: BodyModel, vertices: np.ndarray) -> np.ndarray:
    """Base vertices on the other side of the face."""
    skin = np.unique(body.faces["body"][:, :4])
    points = body.neutral[np.asarray(vertices).reshape(-1)] * (-1, 1, 1)
    nearest = [skin[np.argmin(((body.neutral[skin] - p) ** 2).sum(1))] for p in points]
    return np.array(nearest).reshape(np.shape(vertices))


@functools.lru_cache(maxsize=2)
def find_landmarks(body: BodyModel) -> _Landmarks:
    """Base vertices of the face's keypoints, found once on the neutral body."""
    neutral = body.neutral
    skin = np.unique(body.faces["body"][:, :4])
    front = skin[neutral[skin, 1] < -0.06]

    def near_plane(x: float, z: float) -> int:
        p = neutral[front]
        distance = (p[:, 0] - x) ** 2 + (p[:, 2] - z) ** 2 + 0.02 * (p[:, 1] + 0.16) ** 2
        return int(front[np.argmin(distance)])

    def near(point: tuple[float, float, float]) -> int:
        return int(skin[np.argmin(((neutral[skin] - point) ** 2).sum(1))])

    points: list[int] = []
    for a in np.linspace(-1.56, 1.56, 17):
        cosine = max(float(np.cos(a)), 0.0)
        points.append(near((0.070 * float(np.sin(a)), -0.050 - 0.088 * cosine**1.3, 0.688 - 0.100 * cosine**0.8)))
    brow = list(zip(np.linspace(0.012, 0.050, 5), (0.7050, 0.7055, 0.7080, 0.7095, 0.7070), strict=True))
    points += [near_plane(-x, z) for x, z in reversed(brow)] + [near_plane(x, z) for x, z in brow]
    points += [near_plane(0, z) for z in (0.700, 0.688, 0.676, 0.664)]
    nostrils = ((-0.013, 0.653), (-0.007, 0.650), (0, 0.649), (0.007, 0.650), (0.013, 0.653))
    points += [near_plane(x, z) for x, z in nostrils]
    right = [int(v) for v in _mirrored(body, np.array(_LIDS))]
    points += [right[3], right[2], right[1], right[0], right[5], right[4], *_LIDS]
    left_upper, left_lower = np.array(_UPPER_COLUMNS), np.array(_LOWER_COLUMNS)
    right_upper, right_lower = _mirrored(body, left_upper), _mirrored(body, left_lower)
    rim_u = [right_upper[3, 0], right_upper[1, 0], left_upper[0, 0], left_upper[1, 0], left_upper[3, 0]]
    rim_l = [left_lower[2, 0], left_lower[1, 0], left_lower[0, 0], right_lower[1, 0], right_lower[2, 0]]
    corner = int(_mirrored(body, np.array([_CORNER]))[0])
    points += [corner, *rim_u, _CORNER, *rim_l]
    upper = np.stack([right_upper[2], right_upper[1], left_upper[0], left_upper[1], left_upper[2]])
    lower = np.stack([left_lower[2], left_lower[1], left_lower[0], right_lower[1], right_lower[2]])
    return _Landmarks(np.array(points, np.int64), upper, lower)


def finger_tips(body: BodyModel) -> dict[str, np.ndarray]:
    """Base vertex at the end of each finger, thumb first: side -> [5]."""
    weights = body.weights.tocsc()
    tips = {}
    for side in "LR":
        found = []
        for finger in range(1, 6):
            bone, before = body.bone_index[f"finger{finger}-3.{side}"], body.bone_index[f"finger{finger}-2.{side}"]
            column = weights[:, bone].tocoo()
            rows = column.row[(column.data > 0.5) & (column.row < 13380)]
            base = body.weights[:, before].tocoo()
            start = body.neutral[base.row[(base.data > 0.5) & (base.row < 13380)]].mean(0)
            direction = body.neutral[rows].mean(0) - start
            found.append(int(rows[np.argmax(body.neutral[rows] @ direction)]))
        tips[side] = np.array(found)
    return tips


class Keypoints:
    """Keypoints of one figure under one camera. `points` room corners float32 [20, 2]."""

    def __init__(self, body: BodyModel, figure: Figure, skeleton: Skeleton, room_points: np.ndarray) -> None:
        landmarks = find_landmarks(body)
        slot = np.full(len(body.mean), -1)
        own = np.nonzero(figure.base_vertex >= 0)[0]
        slot[figure.base_vertex[own[::-1]]] = own[::-1]
        self._single, self._upper, self._lower = (
            slot[v] for v in (landmarks.single, landmarks.upper, landmarks.lower)
        )
        if min(self._single.min(), self._upper.min(), self._lower.min()) < 0:
            raise ValueError("the figure lacks vertices of the face that keypoints need")
        self._tips = {side: slot[tips] for side, tips in finger_tips(body).items()}
        self._body = np.array([skeleton.index[name] for name in BODY_BONES])
        self._joints = {
            side: np.array([skeleton.index[f"finger{k}-{j}.{side}"] for k in range(1, 6) for j in (1, 2, 3)])
            for side in "LR"
        }
        self._wrist = {side: skeleton.index[f"wrist.{side}"] for side in "LR"}
        self._room = room_points

    def __call__(
        self, vertices: np.ndarray, heads: np.ndarray, matrix: np.ndarray, depth: np.ndarray, with_hands: bool
    ) -> np.ndarray:
        """float32 [143, 3]: x, y in 0..1, visible 0 or 1. depth [R, R] of the frame; heads [B, 3] posed bones."""
        points = np.zeros((KEYPOINT_COUNT, 3))
        slack = np.full(KEYPOINT_COUNT, FACE_SLACK_M)
        points[:60] = vertices[self._single]
        points[INNER_UPPER], points[INNER_LOWER] = self._lip_edges(vertices, matrix)
        points[BODY] = heads[self._body]
        slack[BODY] = BODY_SLACK_M
        out = np.zeros((KEYPOINT_COUNT, 3), np.float32)
        for hand, side in ((HAND_L, "L"), (HAND_R, "R")):
            points[hand] = self._hand(vertices, heads, side)
            slack[hand] = HAND_SLACK_M
        at = project(matrix, points)
        w = points @ matrix[3, :3] + matrix[3, 3]
        nearer = project(matrix, points - slack[:, None] * _towards_eye(matrix))
        out[:, :2] = at[:, :2]
        out[:, 2] = _seen(at[:, :2], nearer[:, 2], depth) & (w > 0)
        if not with_hands:
            out[HAND_L, 2] = out[HAND_R, 2] = 0
        out[ROOM, :2] = self._room
        out[ROOM, 2] = _seen(self._room, np.ones(len(self._room)) - 1e-5, depth)
        return out

    def _hand(self, vertices: np.ndarray, heads: np.ndarray, side: str) -> np.ndarray:
        """Wrist, then thumb … little finger: three joints and the tip; [21, 3]."""
        joints = heads[self._joints[side]].reshape(5, 3, 3)
        tips = self._tips[side]
        known = (tips >= 0)[:, None]
        last = 2 * joints[:, 2] - joints[:, 1]
        tip = np.where(known, vertices[np.maximum(tips, 0)], last)
        fingers = np.concatenate([joints, tip[:, None]], axis=1).reshape(-1, 3)
        return np.concatenate([heads[self._wrist[side]][None], fingers])

    def lip_gaps(self, vertices: np.ndarray) -> np.ndarray:
        """Height [5] between the lips' edges at the columns of the inner lip, negative where they overlap."""
        return vertices[self._upper][..., 2].min(1) - vertices[self._lower][::-1, :, 2].max(1)

    def _lip_edges(self, vertices: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [5, 3] on the visible edges of both lips; they coincide where the lips touch."""
        edges = []
        for columns, sign in ((self._upper, 1.0), (self._lower, -1.0)):
            points = vertices[columns]
            lowest = np.argmax(project(matrix, points)[..., 1] * sign, axis=1)
            edges.append(points[np.arange(5), lowest].astype(float))
        upper, lower = edges[0], edges[1][::-1]
        overlap = (project(matrix, lower)[:, 1] < project(matrix, upper)[:, 1])[:, None]
        middle = (upper + lower) / 2
        return np.where(overlap, middle, upper), np.where(overlap, middle, lower)[::-1]


def _towards_eye(matrix: np.ndarray) -> np.ndarray:
    """Unit vector [3] in which depth grows (away from the eye)."""
    forward = matrix[3, :3]
    return forward / np.linalg.norm(forward)


def _seen(at: np.ndarray, depth_limit: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """bool [P]: inside the picture and nothing drawn nearer than the limit."""
    size = depth.shape[0]
    inside = ((at >= 0) & (at < 1)).all(axis=1)
    column, row = np.clip((at * size).astype(int), 0, size - 1).T
    return inside & (depth[row, column] >= depth_limit)


def lip_aperture(keypoints: np.ndarray, height: int) -> float:
    """Mean opening of the middle three inner-lip pairs in pixels of a picture that many pixels high."""
    upper, lower = keypoints[INNER_UPPER, 1], keypoints[INNER_LOWER, 1][::-1]
    return float((lower - upper)[1:4].mean() * height)
