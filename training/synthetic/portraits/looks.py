"""One look at a person: pose, expression, lens, framing, light and what is behind; drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.motion import MOTION_CHANNELS, MOTION_DIM
from models.portrait.face_mesh import FACE_ACTIONS, FACE_DIM, FACE_INDEX
from training.synthetic import room
from training.synthetic.room import KINDS, Lights
from training.synthetic.visemes import VISEMES

YAW_LIMIT_RAD = np.radians(50)
_NECK_LIMIT_RAD = 0.5
_CLOSE_SHARE = 0.4  # of the looks show little more than the face


@dataclass(frozen=True)
class Look:
    """face float32 [52] on top of the resting expression, motion float32 [11] (`models.motion.MOTION_CHANNELS`).

    azimuth_rad, elevation_rad, roll_rad: of the camera round the person; fov_rad: of the whole picture;
    eye_share: distance of the eyes over the picture's side; centre: where between the eyes is in the picture, 0 … 1.
    """

    face: np.ndarray
    motion: np.ndarray
    azimuth_rad: float
    elevation_rad: float
    roll_rad: float
    fov_rad: float
    eye_share: float
    centre: tuple[float, float]
    lights: Lights
    room_seed: int


def sample_look(rng: np.random.Generator) -> Look:
    """A random look."""
    is_frontal = rng.random() < 0.4
    yaw = float(rng.normal(0, 0.12) if is_frontal else rng.uniform(-YAW_LIMIT_RAD, YAW_LIMIT_RAD))
    pitch = float(np.clip(rng.normal(0, 0.10 if is_frontal else 0.17), -0.45, 0.45))
    neck = float(np.clip(yaw * rng.uniform(0, 1), -_NECK_LIMIT_RAD, _NECK_LIMIT_RAD))
    lean_twist = float(np.clip((yaw - neck) * rng.uniform(0, 0.3), -0.2, 0.2))
    neck_pitch = float(pitch * rng.uniform(0.2, 1))
    motion = np.zeros(MOTION_DIM, np.float32)
    channels = {
        "yaw": neck,
        "pitch": neck_pitch,
        "roll": rng.normal(0, 0.1),
        "lean_x": rng.normal(0, 0.04),
        "lean_y": lean_twist,
        "lean_z": rng.normal(0, 0.04),
        "gaze_x": rng.normal(0, 0.16),
        "gaze_y": rng.normal(0, 0.10),
        "blink": rng.choice([0.0, 1.0, rng.random()], p=(0.86, 0.05, 0.09)),
        "brow": max(0.0, rng.normal(0, 0.3)),
        "breath": rng.random(),
    }
    for name, value in channels.items():
        motion[MOTION_CHANNELS.index(name)] = value
    if rng.random() < _CLOSE_SHARE:
        eye_share, middle = rng.uniform(0.18, 0.32), (0.5, 0.42)
    else:
        eye_share, middle = float(np.exp(rng.uniform(np.log(0.075), np.log(0.18)))), (0.5, 0.36)
    return Look(
        face=_expression(rng),
        motion=motion,
        # the camera goes the other way round for the same turn of the head in the picture
        azimuth_rad=-(yaw - neck - lean_twist),
        elevation_rad=pitch - neck_pitch + float(rng.normal(0, 0.04)),
        roll_rad=float(rng.normal(0, 0.06)),
        fov_rad=float(np.radians(np.exp(rng.uniform(np.log(8), np.log(50))))),
        eye_share=float(eye_share),
        centre=(float(middle[0] + rng.normal(0, 0.07)), float(middle[1] + rng.normal(0, 0.06))),
        lights=any_light(rng),
        room_seed=int(rng.integers(1 << 31)),
    )


def _expression(rng: np.random.Generator) -> np.ndarray:
    """Speech, smiles, open mouths and a few actions at random; often next to nothing."""
    face = np.zeros(FACE_DIM)
    kind = rng.random()
    if kind < 0.35:
        face += VISEMES[str(rng.choice(list(VISEMES)))] * rng.uniform(0.3, 1.2)
    elif kind < 0.5:
        smile = rng.uniform(0.3, 1.0)
        for name in ("mouthSmileLeft", "mouthSmileRight"):
            face[FACE_INDEX[name]] += smile
        for name in ("cheekSquintLeft", "cheekSquintRight"):
            face[FACE_INDEX[name]] += smile * rng.uniform(0, 0.8)
        for name in ("mouthUpperUpLeft", "mouthUpperUpRight", "mouthLowerDownLeft", "mouthLowerDownRight"):
            face[FACE_INDEX[name]] += rng.uniform(0, 0.7) * (rng.random() < 0.7)
        face[FACE_INDEX["jawOpen"]] += rng.choice([0, rng.uniform(0, 0.35)])
    elif kind < 0.6:
        face[FACE_INDEX["jawOpen"]] += rng.uniform(0.1, 0.9)
    if rng.random() < 0.6:
        strength = np.abs(rng.normal(0, 0.35, FACE_DIM)) * (rng.random(FACE_DIM) < 0.2)
        sides = rng.random() < 0.6  # mostly both sides alike
        for index, name in enumerate(FACE_ACTIONS):
            if name.endswith("Right") and sides:
                strength[index] = strength[FACE_INDEX[name[:-5] + "Left"]]
        strength[FACE_INDEX["tongueOut"]] *= rng.random() < 0.2
        strength[FACE_INDEX["jawOpen"]] *= 0.5
        face += strength
    return np.clip(face, 0, 1).astype(np.float32)


def any_light(rng: np.random.Generator) -> Lights:
    """Key, fill and rim from any side, from flat to harsh, in any tint."""
    usual = Lights()
    angle, height = rng.uniform(-np.pi * 0.62, np.pi * 0.62), rng.uniform(-0.35, 1.1)

    def colour(base: tuple[float, ...], low: float, high: float, tint: float) -> tuple[float, float, float]:
        r, g, b = (float(v) for v in np.array(base) * rng.uniform(low, high) * np.exp(rng.normal(0, tint, 3)))
        return r, g, b

    tint = float(rng.choice([0.04, 0.12, 0.3], p=(0.6, 0.3, 0.1)))
    side = float(np.sign(np.sin(angle)) or 1)
    return Lights(
        key_direction=(float(np.sin(angle)), -float(max(np.cos(angle), -0.5)), float(height)),
        key_colour=colour(usual.key_colour, 0.2, 1.5, tint),
        fill_direction=(-side * float(rng.uniform(0.4, 1)), -0.6, float(rng.uniform(-0.4, 0.4))),
        fill_colour=colour(usual.fill_colour, 0.05, 1.9, tint),
        rim_direction=(-side * float(rng.uniform(-0.7, 0.9)), 0.75, float(rng.uniform(0, 0.8))),
        rim_colour=colour(usual.rim_colour, 0.0, 1.5, tint),
        ambient_top=colour(usual.ambient_top, 0.25, 1.8, tint),
        ambient_bottom=colour(usual.ambient_bottom, 0.2, 1.8, tint),
    )


def paint_backdrop(seed: int, size: int) -> np.ndarray:
    """What is behind a person, uint8 [size, size, 3]: rooms sharp or blurred, shapes, lines, textures, near black."""
    rng = np.random.default_rng(seed)
    kind = rng.random()
    if kind < 0.5:
        picture = _room(rng)
    elif kind < 0.75:
        picture = _texture(rng)
    else:
        picture = _shapes(rng)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), float(np.exp(rng.uniform(np.log(0.4), np.log(8)))))
    tint = np.exp(rng.normal(0, rng.choice([0.02, 0.12]), 3))
    picture = picture * float(rng.choice([1, rng.uniform(0.1, 1.1)])) * tint
    grey = picture.mean(2, keepdims=True)
    return np.clip(grey + (picture - grey) * rng.choice([1, rng.uniform(0, 1.3)]), 0, 255).astype(np.uint8)


def _room(rng: np.random.Generator) -> np.ndarray:
    """A part of a painted room."""
    full = room.draw_room(str(rng.choice(list(KINDS))), rng).astype(np.float32)
    side = int(room.CANVAS * rng.uniform(0.5, 1))
    x, y = rng.integers(0, room.CANVAS - side + 1, 2)
    return full[y : y + side, x : x + side]


def _texture(rng: np.random.Generator) -> np.ndarray:
    picture = np.ones((256, 256, 3), np.float32) * rng.uniform(0, 230) * np.exp(rng.normal(0, 0.15, 3))
    for count in (2, 5, 12, 40, 100):
        grain = rng.normal(0, 1, (count, count, 3 if rng.random() < 0.3 else 1)).astype(np.float32)
        grain = cv2.resize(grain, (256, 256), interpolation=cv2.INTER_CUBIC).reshape(256, 256, -1)
        picture = picture + grain * rng.uniform(0, 40 if count < 40 else 18) * (rng.random() < 0.6)
    return picture


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Shelves, door frames, discs and clutter in any colours."""
    picture = _texture(rng)
    for _ in range(rng.integers(2, 14)):
        a, b = (tuple(int(v) for v in rng.integers(-40, 296, 2)) for _ in range(2))
        colour = tuple(float(v) for v in rng.uniform(0, 255) * np.exp(rng.normal(0, 0.3, 3)))
        shape = rng.random()
        if shape < 0.35:
            cv2.rectangle(picture, a, b, colour, -1)
        elif shape < 0.55:
            cv2.rectangle(picture, a, b, colour, int(rng.integers(1, 14)))
        elif shape < 0.75:
            is_upright = rng.random() < 0.5
            end = (a[0], 300) if is_upright else (300, a[1])
            start = (a[0], -10) if is_upright else (-10, a[1])
            cv2.line(picture, start, end, colour, int(rng.integers(1, 18)))
        elif shape < 0.9:
            cv2.circle(picture, a, int(rng.integers(4, 70)), colour, -1, cv2.LINE_AA)
        else:
            cv2.line(picture, a, b, colour, int(rng.integers(1, 14)), cv2.LINE_AA)
    return picture
