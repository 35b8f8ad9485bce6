"""The bones that a portrait is turned by: spine, neck and shoulders, in face units of the picture.

They are those of the synthetic presenters (means of 40 identities of `training.synthetic.body`, whose deviation is a
third of a face unit at most), moved by the plan as theirs are, so that a portrait moves as the model's people do.
"""

from __future__ import annotations

import numpy as np

from models.motion import MOTION_CHANNELS

CAMERA_DISTANCE = 15.2  # of the viewer from the eyes, face units
# Joint, place at rest relative to the middle of the eyes, share of the spine's lean, share of the neck's turn.
_CHAIN = (
    ("spine04", (0.0, 10.31, -2.57), 0.25, 0.0),
    ("spine03", (0.0, 9.08, -2.31), 0.25, 0.0),
    ("spine02", (0.0, 7.58, -2.28), 0.25, 0.0),
    ("spine01", (0.0, 5.30, -2.37), 0.25, 0.0),
    ("neck01", (0.0, 2.36, -1.88), 0.0, 0.15),
    ("neck02", (0.0, 1.86, -1.74), 0.0, 0.20),
    ("neck03", (0.0, 1.10, -1.55), 0.0, 0.20),
    ("head", (0.0, 0.71, -1.33), 0.0, 0.45),
)
_CHEST, _NECK = 3, 4  # places in the chain
_CLAVICLE = np.array([0.395, 3.63, -1.61])
_BREATH_CHEST_RAD, _BREATH_SHOULDER_RAD = 0.006, 0.010
_TO_PICTURE = np.array([[1.0, 0, 0], [0, 0, -1], [0, -1, 0]])  # from the presenters' axes: x left, y backwards, z up


def axis_turns(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3] by `angle` [T] about an axis of the presenters, in the picture's axes."""
    unit = np.eye(3)[axis]
    cross = np.cross(np.eye(3), unit)
    about = _TO_PICTURE @ cross @ _TO_PICTURE.T
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * about + (1 - cosine) * about @ about


def head_turns(yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3] in the picture's axes; angles [T] as in `models.motion.MOTION_CHANNELS`."""
    return axis_turns(2, yaw) @ axis_turns(0, pitch) @ axis_turns(1, roll)


def head_angles(turn: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of a head's rotation [3, 3] in the picture's axes, the inverse of `head_turns`."""
    world = _TO_PICTURE.T @ turn @ _TO_PICTURE
    pitch = np.arcsin(np.clip(world[2, 1], -1, 1))
    return np.array([np.arctan2(-world[0, 1], world[1, 1]), pitch, np.arctan2(-world[2, 0], world[2, 2])])


def bone_maps(plan: np.ndarray, rest_angles: np.ndarray) -> np.ndarray:
    """Where head, torso and both shoulders go, relative to the picture.

    Args:
        plan: [T, 11], rows of `models.motion.motion_frames`.
        rest_angles: yaw, pitch and roll [3] of the head in the picture.

    Returns:
        float32 [T, 4, 3, 4]: maps of points in face units about the middle of the eyes; of the head, of the chest, and
        of the chest with the shoulder on the picture's left and right.
    """
    channel = {name: plan[:, index].astype(np.float64) for index, name in enumerate(MOTION_CHANNELS)}
    angles = [channel[name] for name in ("yaw", "pitch", "roll")]
    lean = [channel[name] for name in ("lean_x", "lean_y", "lean_z")]
    still = np.zeros((1, 1))
    rest_head, _ = _chain(list(rest_angles[:, None]), [still[0]] * 3, still[0])
    moved = [angle + rest for angle, rest in zip(angles, rest_angles, strict=True)]
    head, chest = _chain(moved, lean, channel["breath"])
    eyes = rest_head[0, :3, 3]  # the origin of a face that is turned at rest
    maps = [head @ np.linalg.inv(rest_head), chest]
    for side in (-1.0, 1.0):
        about = _CLAVICLE * (side, 1, 1)
        raised = _rigid(axis_turns(1, -side * _BREATH_SHOULDER_RAD * channel["breath"]), about)
        maps.append(chest @ raised)
    return (_shift(-eyes) @ np.stack(maps, axis=1) @ _shift(eyes))[:, :, :3].astype(np.float32)


def _chain(angles: list[np.ndarray], lean: list[np.ndarray], breath: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps [T, 4, 4] of the head and the chest from the canonical presenter at rest."""
    total = np.eye(4)[None]
    chest = total
    for place, (_, joint, spine, neck) in enumerate(_CHAIN):
        if spine:
            turn = axis_turns(0, spine * lean[0]) @ axis_turns(2, spine * lean[1]) @ axis_turns(1, spine * lean[2])
        else:
            turn = head_turns(*(neck * angle for angle in angles))
        if place in (_CHEST, _NECK):  # the chest rises with the breath, the neck takes it back
            sign = -1 if place == _CHEST else 1
            turn = turn @ axis_turns(0, sign * _BREATH_CHEST_RAD * breath)
        total = total @ _rigid(turn, np.array(joint))
        if place == _CHEST:
            chest = total
    return total, chest


def _rigid(turn: np.ndarray, about: np.ndarray) -> np.ndarray:
    """Maps [T, 4, 4] that turn [T, 3, 3] about a point."""
    out = np.zeros((len(turn), 4, 4))
    out[:, :3, :3] = turn
    out[:, :3, 3] = about - turn @ about
    out[:, 3, 3] = 1
    return out


def _shift(by: np.ndarray) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = by
    return out
