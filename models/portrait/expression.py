"""Face actions carried over to the face of a picture: by its own axes and sizes, with its own lids and lips.

Letters: T frames, L vertices of the face mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.portrait.face_mesh import FACE_DIM, FACE_INDEX, FaceMesh

_UPPER_SHARE = 0.89  # of a blink's way; the lower lid has the rest
_WIDEST = 1.25  # of the picture's own opening
_KEPT_GAP = 0.02  # of the lip width: lips that are so little apart in the picture are shut
_LID_REACH = 0.11  # face units around an eye's edge that a blink moves
_BLINKS = [index for name, index in FACE_INDEX.items() if name.startswith("eyeBlink")]
_LIP_REACH, _EYE_REACH = 0.07, 0.25  # face units around lips and eyes that go by their own sizes
SIDES = ("left", "right")  # of the person


def face_axes(mesh: FaceMesh, landmarks: np.ndarray) -> tuple[np.ndarray, float]:
    """Rotation [3, 3] and scale (pixels a face unit) that lay the canonical face on landmarks [L, 3]."""
    canonical = mesh.canonical - mesh.canonical.mean(0)
    centred = landmarks - landmarks.mean(0)
    left, _, right = np.linalg.svd(centred.T.astype(np.float64) @ canonical)
    turn = left @ np.diag([1, 1, np.sign(np.linalg.det(left @ right))]) @ right
    return turn, float((centred * (canonical @ turn.T)).sum() / (canonical**2).sum())


def eye_middle(mesh: FaceMesh, landmarks: np.ndarray) -> np.ndarray:
    """Middle [3] of the eyes: the mean of both eyes' edges."""
    lids = [landmarks[mesh.loops[f"lid_{part}_{side}"]].mean(0) for side in SIDES for part in ("upper", "lower")]
    return np.mean(lids, axis=0)


@dataclass(frozen=True)
class _Slit:
    """Two edges that meet at their corners (lids or lips), and where along the slit each vertex lies.

    spans: to the other edge at the same place, in the picture at rest, pixels: [U, 3] of the upper, [O, 3] of the
    lower edge, pointing away from it.
    """

    upper: np.ndarray
    lower: np.ndarray
    upper_at: np.ndarray
    lower_at: np.ndarray

    @classmethod
    def of(cls, mesh: FaceMesh, upper: str, lower: str) -> _Slit:
        return cls(
            mesh.loops[upper],
            mesh.loops[lower],
            _along(mesh.canonical[mesh.loops[upper]]),
            _along(mesh.canonical[mesh.loops[lower]]),
        )

    def spans(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From each vertex of the upper and of the lower edge to the other edge, [U, 3] and [O, 3]."""
        upper, lower = points[self.upper], points[self.lower]
        return (
            _at(self.upper_at, self.lower_at, lower) - upper,
            _at(self.lower_at, self.upper_at, upper) - lower,
        )


def _along(points: np.ndarray) -> np.ndarray:
    """Places of a line's points [K, 3] along the straight way between its ends, 0 … 1, growing."""
    way = points[-1] - points[0]
    return np.maximum.accumulate(((points - points[0]) @ way / (way @ way)).clip(0, 1))


def _at(places: np.ndarray, known_at: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A line's points [P, 3] at places along it."""
    return np.stack([np.interp(places, known_at, known[:, axis]) for axis in range(known.shape[1])], axis=1)


class Expression:
    """How one face moves with face actions.

    Args:
        mesh: the face mesh.
        landmarks: float [L, 3] of the picture, pixels.
    """

    def __init__(self, mesh: FaceMesh, landmarks: np.ndarray) -> None:
        self.turn, self.unit = face_axes(mesh, landmarks)
        self.mouth = _Slit.of(mesh, "lip_inner_upper", "lip_inner_lower")
        self.eyes = [_Slit.of(mesh, f"lid_upper_{side}", f"lid_lower_{side}") for side in SIDES]
        self._rest = landmarks.astype(np.float64)
        lips = np.concatenate([self.mouth.upper, self.mouth.lower])
        self.lip_width = float(np.linalg.norm(landmarks[self.mouth.upper[-1]] - landmarks[self.mouth.upper[0]]))
        canonical_width = np.linalg.norm(mesh.canonical[self.mouth.upper[-1]] - mesh.canonical[self.mouth.upper[0]])
        scale = np.full(mesh.count, self.unit)
        scale += (self.lip_width / canonical_width - self.unit) * _nearness(mesh, lips, 3 * _LIP_REACH)
        for slit in self.eyes:
            faces = (landmarks, mesh.canonical)
            own, canonical = (np.linalg.norm(slit.spans(points)[0], axis=1).max() for points in faces)
            edge = np.concatenate([slit.upper, slit.lower])
            ratio = np.clip(own / canonical / self.unit, 0.5, 1.6)
            scale *= 1 + (ratio - 1) * _nearness(mesh, edge, _EYE_REACH)
        moved = mesh.actions * scale[None, :, None] @ self.turn.T
        lids = np.concatenate([vertices for slit in self.eyes for vertices in (slit.upper, slit.lower)])
        moved[_BLINKS] *= _nearness(mesh, lids, _LID_REACH)[:, None]  # a picture's lids stretch, they do not unfold
        self._shut_lids = [_meeting(slit, self._rest) for slit in self.eyes]
        self._basis = moved.reshape(FACE_DIM, -1).astype(np.float32)
        self._lid_change = np.stack([_opening_change(mesh, slit) for slit in self.eyes], axis=1)
        self._shut = self._shutting(mesh)

    def _shutting(self, mesh: FaceMesh) -> np.ndarray:
        """Displacements [L, 3] that shut a mouth which is open in the picture."""
        upper, lower = self.mouth.spans(self._rest)
        down = self.turn[:, 1]
        out = np.zeros((mesh.count, 3))
        for edge, span, sign in ((self.mouth.upper, upper, 1), (self.mouth.lower, lower, -1)):
            gap = (sign * span @ down - _KEPT_GAP * self.lip_width).clip(0) / 2
            distance = np.linalg.norm(mesh.canonical[:, None] - mesh.canonical[edge][None], axis=2)
            nearest = distance.argmin(1)
            out += (np.exp(-((distance.min(1) / _LIP_REACH) ** 2)) * gap[nearest] * self._side(mesh, edge))[:, None] * (
                sign * down
            )
        return out

    def _side(self, mesh: FaceMesh, edge: np.ndarray) -> np.ndarray:
        """1 for the vertices [L] whose nearest lip is this one."""
        other = self.mouth.lower if edge is self.mouth.upper else self.mouth.upper
        own, others = (
            np.linalg.norm(mesh.canonical[:, None] - mesh.canonical[line[1:-1]][None], axis=2).min(1)
            for line in (edge, other)
        )
        return (own <= others).astype(float)

    def lid_shares(self, actions: np.ndarray) -> np.ndarray:
        """Opening of both eyes as a share of the picture's own, [T, 2] in 0 … 1.25."""
        return (1 + actions @ self._lid_change).clip(0, _WIDEST)

    def displacements(self, actions: np.ndarray) -> np.ndarray:
        """Displacements [T, L, 3] of the landmarks by face actions [T, 52], pixels of the picture, head at rest."""
        moved = (actions @ self._basis).reshape(len(actions), -1, 3) + self._shut
        shares = self.lid_shares(actions)
        for eye, slit in enumerate(self.eyes):
            shut = (1 - shares[:, eye])[:, None, None]
            for edge, meeting in zip((slit.upper, slit.lower), self._shut_lids[eye], strict=True):
                moved[:, edge] = shut * (meeting - self._rest[edge])
        for frame in moved:
            self._part_lips(frame)
        return moved.astype(np.float32)

    def _part_lips(self, moved: np.ndarray) -> None:
        """Lips that would cross meet half way instead; `moved` [L, 3] is changed."""
        spans = self.mouth.spans(self._rest + moved)
        down = self.turn[:, 1]
        for edge, span, sign in zip((self.mouth.upper, self.mouth.lower), spans, (1, -1), strict=True):
            crossing = (sign * span @ down).clip(max=0) / 2
            moved[edge] += (sign * crossing)[:, None] * down


def _meeting(slit: _Slit, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where both edges of an eye meet when it is shut, [U, 3] and [O, 3]: on one even curve."""
    _, to_upper = slit.spans(points)
    line = points[slit.lower] + (1 - _UPPER_SHARE) * to_upper
    ends = points[slit.lower[[0, -1]]]
    straight = ends[0] + slit.lower_at[:, None] * (ends[1] - ends[0])
    bows = np.stack([slit.lower_at * (1 - slit.lower_at), slit.lower_at**2 * (1 - slit.lower_at)], axis=1)
    bow = np.linalg.lstsq(bows, line - straight, rcond=None)[0]
    curves = []
    for at in (slit.upper_at, slit.lower_at):
        shape = np.stack([at * (1 - at), at**2 * (1 - at)], axis=1)
        curves.append(ends[0] + at[:, None] * (ends[1] - ends[0]) + shape @ bow)
    return curves[0], curves[1]


def _nearness(mesh: FaceMesh, vertices: np.ndarray, reach: float) -> np.ndarray:
    """How near the vertices [L] are to some of them: 1 there, falling over `reach` face units."""
    distance = np.linalg.norm(mesh.canonical[:, None] - mesh.canonical[vertices][None], axis=2).min(1)
    return np.exp(-((distance / reach) ** 2))


def _opening_change(mesh: FaceMesh, slit: _Slit) -> np.ndarray:
    """What each action at 1 adds to the share [52] to which the canonical eye is open."""
    rest = slit.spans(mesh.canonical)[0][:, 1]
    wide = rest > 0.5 * rest.max()
    return np.array([slit.spans(action)[0][wide, 1].sum() for action in mesh.actions]) / rest[wide].sum()
