"""Does a silent presenter live: blinks, head motion, breath."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from evaluation.lips import face_size_px256
from evaluation.takes import FPS, runs

_RIGHT_EYE, _LEFT_EYE = range(36, 42), range(42, 48)
_BLINK_SHARE = 0.6
_BREATH_HZ = (0.12, 0.6)
_TORSO_TOP = 0.78  # share of the picture's height below which there is torso in a head-and-shoulders framing


@dataclass(frozen=True)
class LifeScore:
    """Signs of life of one clip.

    Attributes:
        blinks_per_minute: dips of the eye opening below 60 % of its open level.
        head_shift: deviation of the head's place, in percent of the eyes-to-nose distance.
        head_roll_deg: deviation of the line through the eyes.
        head_turn: deviation of the nose between the eyes, in percent of the distance between them.
        breath_px256: deviation of the torso's height between 0.12 and 0.6 Hz.
    """

    blinks_per_minute: float
    head_shift: float
    head_roll_deg: float
    head_turn: float
    breath_px256: float
    seconds: float


def eye_opening(face: np.ndarray) -> np.ndarray:
    """Height of the eyes over their width, mean of both: face [T, 70, 2] → [T]."""
    return np.stack([_opening(face[:, list(eye)]) for eye in (_RIGHT_EYE, _LEFT_EYE)]).mean(0)


def _opening(eye: np.ndarray) -> np.ndarray:
    """Six points in a loop from one corner [T, 6, 2] → height over width [T]."""
    height = (np.linalg.norm(eye[:, 1] - eye[:, 5], axis=1) + np.linalg.norm(eye[:, 2] - eye[:, 4], axis=1)) / 2
    return height / np.maximum(np.linalg.norm(eye[:, 0] - eye[:, 3], axis=1), 1e-6)


def count_blinks(opening: np.ndarray) -> int:
    """Dips of an eye opening [T] below 60 % of its open level (the 80th percentile), from shut to open again.

    A dip ends only when the eye is open to 75 % again, so that one blink counts once; dips longer than a second
    are eyes that stay shut and do not count.
    """
    level = float(np.percentile(opening, 80))
    blinks, low = 0, opening < _BLINK_SHARE * level
    for start, stop in runs(opening < 0.75 * level):
        blinks += bool(low[start:stop].any()) and stop - start <= FPS
    return blinks


def head_pose(face: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place of the head [T, 2] in px256, roll [T] in degrees, turn [T] (nose between the eyes, 0 = straight)."""
    right, left = face[:, 36:42].mean(1), face[:, 42:48].mean(1)
    across = left - right
    distance = np.maximum(np.linalg.norm(across, axis=1), 1e-6)
    nose = face[:, 30:36].mean(1) - (left + right) / 2
    turn = (nose * across).sum(1) / distance**2
    return (left + right) / 2, np.degrees(np.arctan2(across[:, 1], across[:, 0])), turn


def torso_height_px256(frames: np.ndarray) -> np.ndarray:
    """Vertical shift [T] of the bottom of the picture against its mean, in px256, from image gradients.

    One Lucas-Kanade step for one parameter: shift = Σ g·(mean − frame) / Σ g², g the vertical gradient of the
    mean picture. Positive is downwards. Exact for shifts well below the width of an edge, as breathing is.
    """
    top = int(frames.shape[1] * _TORSO_TOP)
    strips = np.stack([
        cv2.GaussianBlur(cv2.cvtColor(frame[top:], cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
        for frame in frames
    ])
    mean = strips.mean(0)
    gradient = np.gradient(mean, axis=0)
    shift = ((mean - strips) * gradient).sum((1, 2)) / max(float((gradient**2).sum()), 1e-6)
    return shift * 256 / frames.shape[1]


def band_deviation(signal: np.ndarray, band_hz: tuple[float, float] = _BREATH_HZ) -> float:
    """Standard deviation of the part of a signal [T] at 25 Hz whose frequencies lie in a band."""
    spectrum = np.fft.rfft(signal - signal.mean())
    frequency = np.fft.rfftfreq(len(signal), 1 / FPS)
    spectrum[(frequency < band_hz[0]) | (frequency > band_hz[1])] = 0
    return float(np.fft.irfft(spectrum, len(signal)).std())


def life_score(frames: np.ndarray, face: np.ndarray) -> LifeScore:
    """Signs of life of frames uint8 [T, H, W, 3] with face points [T, 70, 2] in px256."""
    seconds = len(frames) / FPS
    place, roll, turn = head_pose(face)
    return LifeScore(
        blinks_per_minute=count_blinks(eye_opening(face)) * 60 / seconds,
        head_shift=100 * float(np.sqrt(place.var(0).sum())) / face_size_px256(face),
        head_roll_deg=float(roll.std()),
        head_turn=100 * float(turn.std()),
        breath_px256=band_deviation(torso_height_px256(frames)),
        seconds=seconds,
    )
