"""Arms by two-bone inverse kinematics, and hands with all fingers.

Directions are in world axes (x to the person's left, y backwards, z up). The twist between upper arm and forearm
is spread over the two bones each has, so that skin does not wring at one place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.synthetic.rig import ArmsPose, Skeleton, swing, turn

SIDES = (("L", 1.0), ("R", -1.0))
REFERENCE_ARM_M = 0.46  # wrist offsets of ArmsPose are for an arm this long
HANG_DIRECTION = (0.17, 0.02, -1.0)  # hanging upper arm, left side
HANG_SHARES = {"clavicle": 0.06, "shoulder01": 0.10, "upperarm01": 0.84}
ELBOW_POLE = (0.55, 0.35, -1.0)  # where elbows point, left side
# radians of the three joints of a finger: at curl 0 (the rest pose is slightly curled), and added at curl 1
CURL_BASE, CURL_RANGE = (-0.28, -0.38, -0.30), (1.70, 1.95, 1.35)
SPREAD_RAD = 0.16


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _frame(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] whose columns are x, the part of y across it, and their cross product."""
    a = _unit(x)
    b = _unit(y - a * (a @ y))
    return np.stack([a, b, np.cross(a, b)], axis=1)


def _quaternion(rotation: np.ndarray) -> tuple[np.ndarray, float]:
    """Vector and scalar part of a rotation matrix, scalar at least 0."""
    scalar = 0.5 * np.sqrt(max(0.0, 1 + np.trace(rotation)))
    if scalar > 1e-4:
        skew = rotation - rotation.T
        return np.array([skew[2, 1], skew[0, 2], skew[1, 0]]) / (4 * scalar), float(scalar)
    values, vectors = np.linalg.eigh((rotation + rotation.T) / 2)
    return vectors[:, np.argmax(values)], 0.0


def _half(rotation: np.ndarray) -> np.ndarray:
    """Half of a rotation."""
    vector, scalar = _quaternion(rotation)
    length = float(np.linalg.norm(vector))
    return np.eye(3) if length < 1e-9 else turn(vector, float(np.arctan2(length, scalar)))


def _twist_about(rotation: np.ndarray, axis: np.ndarray) -> float:
    """Angle in -π … π by which a rotation turns about a unit axis."""
    vector, scalar = _quaternion(rotation)
    angle = 2 * np.arctan2(float(vector @ axis), scalar)
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


@dataclass(frozen=True)
class _Hand:
    """Rest geometry of one hand: finger direction, palm normal, curl axes, signs of spread and opposition."""

    fingers: np.ndarray
    palm: np.ndarray
    curl_axes: dict[tuple[int, int], np.ndarray]
    thumb_axis: np.ndarray
    spread_sign: float
    opposition_sign: float


def _measure_hand(skeleton: Skeleton, side: str, tips: np.ndarray) -> _Hand:
    """tips [5, 3]: rest positions of the finger tips, thumb first."""

    def joint(finger: int, number: int) -> np.ndarray:
        return skeleton.head(f"finger{finger}-{number}.{side}")

    wrist = skeleton.head(f"wrist.{side}")
    palm = _unit(np.cross(joint(2, 1) - wrist, joint(5, 1) - wrist))
    if palm @ (tips[2] - joint(3, 1)) < 0:
        palm = -palm  # resting fingers bend a little towards the palm
    axes = {}
    for finger in range(2, 6):
        for number in (1, 2, 3):
            end = joint(finger, number + 1) if number < 3 else tips[finger - 1]
            axes[finger, number] = _unit(np.cross(_unit(end - joint(finger, number)), palm))
    base, end = joint(1, 2) - joint(1, 1), tips[0] - joint(1, 2)
    fingers = _unit(joint(3, 1) - wrist)
    index = _unit(joint(2, 2) - joint(2, 1))
    outwards = joint(2, 1) - joint(5, 1)
    return _Hand(
        fingers=fingers,
        palm=palm,
        curl_axes=axes,
        thumb_axis=_unit(np.cross(base, end)),
        spread_sign=1.0 if (turn(palm, 0.1) @ index) @ outwards > index @ outwards else -1.0,
        opposition_sign=1.0 if (turn(fingers, 0.1) @ base) @ palm > base @ palm else -1.0,
    )


def _finger_rotations(hand: _Hand, side: str, shape: np.ndarray) -> dict[str, np.ndarray]:
    """Relative rotations of the finger bones; shape [7]: four curls, thumb, spread, opposition."""
    out = {}
    thumb, spread, opposition = (float(v) for v in shape[4:])
    for i, finger in enumerate(range(2, 6)):
        for number in (1, 2, 3):
            angle = CURL_BASE[number - 1] + CURL_RANGE[number - 1] * float(shape[i])
            rotation = turn(hand.curl_axes[finger, number], angle)
            if number == 1:
                rotation = rotation @ turn(hand.palm, spread * (1.5 - i) * SPREAD_RAD * hand.spread_sign)
            out[f"finger{finger}-{number}.{side}"] = rotation
    out[f"finger1-1.{side}"] = turn(hand.fingers, opposition * hand.opposition_sign) @ turn(
        hand.thumb_axis, 0.10 + 0.35 * thumb
    )
    out[f"finger1-2.{side}"] = turn(hand.thumb_axis, -0.1 + 0.8 * thumb)
    out[f"finger1-3.{side}"] = turn(hand.thumb_axis, -0.1 + 0.9 * thumb)
    return out


class Arms:
    """Arms and hands of one identity. `tips`: side -> [5, 3] rest positions of the finger tips, thumb first."""

    def __init__(self, skeleton: Skeleton, tips: dict[str, np.ndarray]) -> None:
        self._skeleton = skeleton
        self._hands = {side: _measure_hand(skeleton, side, tips[side]) for side, _ in SIDES}
        self._hanging = self._hang()

    def _hang(self) -> dict[str, np.ndarray]:
        """Relative rotations that lower the arms from the rest pose to the body's sides."""
        head = self._skeleton.head
        out = {}
        for side, sign in SIDES:
            arm = head(f"lowerarm01.{side}") - head(f"upperarm01.{side}")
            full = swing(arm, np.array(HANG_DIRECTION) * (sign, 1, 1))
            vector, scalar = _quaternion(full)
            angle = 2 * float(np.arctan2(np.linalg.norm(vector), scalar))
            for bone, share in HANG_SHARES.items():
                out[f"{bone}.{side}"] = turn(vector, angle * share)
        return out

    def hanging(self, relative: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Torso rotations with hanging arms added."""
        out = dict(relative)
        for bone, rotation in self._hanging.items():
            out[bone] = out[bone] @ rotation if bone in out else rotation
        return out

    def reach(
        self, pose: ArmsPose, torso: np.ndarray, chest: np.ndarray, relative: dict[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Absolute rotations of the arm bones and relative ones of the fingers.

        torso [3, 3], chest [3]: global rotation and posed head of spine01; relative: the torso's own rotations
        (its clavicles breathe).
        """
        absolute: dict[str, np.ndarray] = {}
        fingers: dict[str, np.ndarray] = {}
        for row, (side, sign) in enumerate(SIDES):
            clavicle = torso @ relative.get(f"clavicle.{side}", np.eye(3))
            absolute |= self._arm(pose, row, side, sign, torso, chest, clavicle)
            fingers |= _finger_rotations(self._hands[side], side, np.asarray(pose.shape[row], float))
        return absolute, fingers

    def _arm(
        self,
        pose: ArmsPose,
        row: int,
        side: str,
        sign: float,
        torso: np.ndarray,
        chest: np.ndarray,
        clavicle: np.ndarray,
    ) -> dict[str, np.ndarray]:
        head = self._skeleton.head
        upper = head(f"lowerarm01.{side}") - head(f"upperarm01.{side}")
        lower = head(f"wrist.{side}") - head(f"lowerarm01.{side}")
        root = chest + torso @ (head(f"clavicle.{side}") - head("spine01"))
        shoulder = root + clavicle @ (head(f"upperarm01.{side}") - head(f"clavicle.{side}"))
        a, b = float(np.linalg.norm(upper)), float(np.linalg.norm(lower))
        scale = float(np.linalg.norm(head(f"wrist.{side}") - head(f"upperarm01.{side}"))) / REFERENCE_ARM_M
        way = chest + np.asarray(pose.wrist[row], float) * scale - shoulder
        length = float(np.clip(np.linalg.norm(way), abs(a - b) + 0.02, (a + b) * 0.995))
        way = _unit(way)
        cosine = (a * a + length * length - b * b) / (2 * a * length)
        pole = np.array(ELBOW_POLE) * (sign, 1, 1)
        bend = _unit(pole - way * (pole @ way))
        to_elbow = way * (a * cosine) + bend * (a * np.sqrt(max(0.0, 1 - cosine**2)))
        to_wrist = way * length - to_elbow
        rest_hinge, hinge = np.cross(upper, lower), np.cross(to_elbow, to_wrist)
        if np.linalg.norm(hinge) < 1e-6:
            hinge = rest_hinge
        turned_upper = _frame(to_elbow, np.cross(hinge, to_elbow)) @ _frame(upper, np.cross(rest_hinge, upper)).T
        turned_lower = _frame(to_wrist, np.cross(hinge, to_wrist)) @ _frame(lower, np.cross(rest_hinge, lower)).T
        plain = swing(clavicle @ upper, to_elbow) @ clavicle
        hand = self._hands[side]
        fingers, palm = (np.asarray(v[row], float) for v in (pose.fingers, pose.palm))
        wrist = _frame(fingers, palm) @ _frame(hand.fingers, hand.palm).T
        axis = _unit(lower)
        twist = _twist_about(turned_lower.T @ wrist, axis)
        return {
            f"clavicle.{side}": clavicle,
            f"shoulder01.{side}": clavicle,
            f"upperarm01.{side}": plain @ _half(plain.T @ turned_upper),
            f"upperarm02.{side}": turned_upper,
            f"lowerarm01.{side}": turned_lower @ turn(axis, twist * 0.25),
            f"lowerarm02.{side}": turned_lower @ turn(axis, twist * 0.75),
            f"wrist.{side}": wrist,
        }
