"""The skeleton and what moves it: head, torso, eyes, breath; arms and hands are in `arms.py`.

Rotations are about the rest pose's axes (x left, y backwards, z up) and relative to the parent bone, unless they
are absolute. Letters: B bones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.motion import MOTION_CHANNELS, MOTION_DIM

ACTION_COUNT = 52
NECK_SHARES = {"neck01": 0.15, "neck02": 0.2, "neck03": 0.2, "head": 0.45}
SPINE = ("spine04", "spine03", "spine02", "spine01")
BREATH_RAD = 0.010  # clavicles up at full breath: about 1.5 px of shoulder in a 256 head picture
BREATH_CHEST_RAD = 0.006
EYE_LIMIT_RAD = 0.45


@dataclass(frozen=True)
class ArmsPose:
    """Both arms, left then right: wrist offset from spine01 [2, 3] metres, finger and palm directions [2, 3],
    hand shape [2, 7] (curl of index … little finger 0..1, thumb, spread, opposition)."""

    wrist: np.ndarray
    fingers: np.ndarray
    palm: np.ndarray
    shape: np.ndarray

    def __post_init__(self) -> None:
        for name, width in (("wrist", 3), ("fingers", 3), ("palm", 3), ("shape", 7)):
            value = np.asarray(getattr(self, name))
            if value.shape != (2, width):
                raise ValueError(f"ArmsPose.{name} has shape {value.shape}, expected (2, {width})")


@dataclass(frozen=True)
class FramePose:
    """One frame: facial actions float32 [52] in 0..1, motion float32 [11] (models.motion.MOTION_CHANNELS),
    arms or None (they hang)."""

    face: np.ndarray = field(default_factory=lambda: np.zeros(ACTION_COUNT, np.float32))
    motion: np.ndarray = field(default_factory=lambda: np.zeros(MOTION_DIM, np.float32))
    arms: ArmsPose | None = None

    def __post_init__(self) -> None:
        for name, width in (("face", ACTION_COUNT), ("motion", MOTION_DIM)):
            value = np.asarray(getattr(self, name))
            if value.shape != (width,):
                raise ValueError(f"FramePose.{name} has shape {value.shape}, expected ({width},)")

    def channel(self, name: str) -> float:
        """Value of one motion channel."""
        return float(self.motion[MOTION_CHANNELS.index(name)])


def turn(axis: Sequence[float] | np.ndarray, angle: float) -> np.ndarray:
    """Rotation matrix [3, 3] about an axis (any length) by an angle in radians."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def swing(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Shortest rotation [3, 3] that takes one direction to another."""
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(a, b)
    sine = float(np.linalg.norm(axis))
    return np.eye(3) if sine < 1e-8 else turn(axis, float(np.arctan2(sine, a @ b)))


def yaw_pitch_roll(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation [3, 3]: yaw about z (to the person's left), pitch about x (down), roll about y."""
    return turn((0, 0, 1), yaw) @ turn((1, 0, 0), pitch) @ turn((0, 1, 0), roll)


class Skeleton:
    """Bones of one identity. `heads` [B, 3] rest positions in metres."""

    def __init__(self, names: Sequence[str], parents: np.ndarray, heads: np.ndarray) -> None:
        self.names = tuple(names)
        self.parents = parents
        self.heads = heads
        self.index = {name: i for i, name in enumerate(self.names)}
        self._offset = heads - heads[np.maximum(parents, 0)]

    def head(self, name: str) -> np.ndarray:
        return self.heads[self.index[name]]

    def needed(self, bones: np.ndarray) -> list[int]:
        """The given bones and all their ancestors, parents first."""
        found: set[int] = set()
        for bone in bones:
            i = int(bone)
            while i >= 0 and i not in found:
                found.add(i)
                i = int(self.parents[i])
        return sorted(found)

    def solve(
        self, relative: dict[str, np.ndarray], absolute: dict[str, np.ndarray], order: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Global rotations [B, 3, 3] and heads [B, 3] of the bones in `order` (parents first); others at rest."""
        rotations = np.broadcast_to(np.eye(3), (len(self.names), 3, 3)).copy()
        heads = self.heads.copy()
        for i in order:
            name, parent = self.names[i], self.parents[i]
            if parent < 0:
                continue
            above = rotations[parent]
            heads[i] = heads[parent] + above @ self._offset[i]
            if name in absolute:
                rotations[i] = absolute[name]
            elif name in relative:
                rotations[i] = above @ relative[name]
            else:
                rotations[i] = above
        return rotations, heads


def torso_rotations(pose: FramePose) -> dict[str, np.ndarray]:
    """Relative rotations of spine, neck, head, eyes and clavicles for one frame."""
    lean = [pose.channel(name) for name in ("lean_x", "lean_y", "lean_z")]
    breath = pose.channel("breath")
    step = turn((1, 0, 0), lean[0] / 4) @ turn((0, 0, 1), lean[1] / 4) @ turn((0, 1, 0), lean[2] / 4)
    rotations = dict.fromkeys(SPINE, step)
    rotations["spine01"] = step @ turn((1, 0, 0), -BREATH_CHEST_RAD * breath)
    yaw, pitch, roll = (pose.channel(name) for name in ("yaw", "pitch", "roll"))
    for bone, share in NECK_SHARES.items():
        rotations[bone] = yaw_pitch_roll(yaw * share, pitch * share, roll * share)
    rotations["neck01"] = rotations["neck01"] @ turn((1, 0, 0), BREATH_CHEST_RAD * breath)
    gaze = np.clip([pose.channel("gaze_x"), pose.channel("gaze_y")], -EYE_LIMIT_RAD, EYE_LIMIT_RAD)
    rotations["eye.L"] = rotations["eye.R"] = turn((0, 0, 1), gaze[0]) @ turn((1, 0, 0), gaze[1])
    for side, sign in (("L", 1.0), ("R", -1.0)):
        rotations[f"clavicle.{side}"] = turn((0, 1, 0), -sign * BREATH_RAD * breath)
    return rotations
