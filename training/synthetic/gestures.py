"""Arm and hand gestures: minimum-jerk moves between key poses, beats on stressed vowels, counting on fingers.

Positions are wrist offsets from spine01 in metres for an arm of 0.46 m (upper arm to wrist), x to the person's
left, y backwards, z up, as in `rig.ArmsPose`; they are written for the left hand and mirrored for the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.synthetic.phones import SILENCE, Phone
from training.synthetic.rig import ArmsPose
from training.synthetic.visemes import FPS

# index, middle, ring, little finger (0 straight … 1 curled), thumb, spread, opposition
HAND_SHAPES: dict[str, tuple[float, ...]] = {
    "open": (0.05, 0.03, 0.04, 0.06, 0.0, 0.8, 0.0),
    "relax": (0.22, 0.27, 0.32, 0.36, 0.25, 0.15, 0.2),
    "fist": (0.93, 0.95, 0.95, 0.95, 0.75, 0.0, 0.75),
    "point": (0.0, 0.88, 0.93, 0.95, 0.7, 0.0, 0.75),
    "one": (0.0, 0.90, 0.93, 0.95, 0.8, 0.0, 0.8),
    "two": (0.0, 0.0, 0.92, 0.95, 0.8, 0.9, 0.8),
    "three": (0.0, 0.0, 0.02, 0.93, 0.85, 0.9, 0.9),
    "four": (0.02, 0.0, 0.02, 0.05, 0.9, 0.8, 0.95),
    "five": (0.0, 0.0, 0.0, 0.03, -0.2, 1.2, -0.1),
    "thumb": (0.93, 0.95, 0.95, 0.95, -0.35, 0.0, -0.3),
    "pinch": (0.42, 0.30, 0.22, 0.15, 0.45, 0.3, 0.7),
    "ok": (0.52, 0.12, 0.06, 0.05, 0.55, 0.6, 0.75),
}


@dataclass(frozen=True)
class KeyPose:
    """Where a gesture holds the left hand: wrist offset, finger and palm direction, hand shape, how often."""

    wrist: tuple[float, float, float]
    fingers: tuple[float, float, float]
    palm: tuple[float, float, float]
    shape: str
    share: float


_COUNTING = ((0.15, -0.26, -0.02), (0.05, -0.2, 1.0), (-0.1, -1.0, 0.0))
KEY_POSES: dict[str, KeyPose] = {
    "rest": KeyPose((0.10, -0.24, -0.30), (-0.75, -0.55, 0.15), (-0.25, 0.55, -0.8), "relax", 0.25),
    "open": KeyPose((0.20, -0.27, -0.10), (0.25, -0.45, 0.85), (-0.55, -0.80, -0.2), "open", 0.16),
    "palm_up": KeyPose((0.17, -0.28, -0.18), (0.25, -0.9, 0.25), (-0.2, 0.2, 1.0), "open", 0.15),
    "beat": KeyPose((0.13, -0.29, -0.13), (-0.2, -0.75, 0.6), (-0.95, -0.1, -0.2), "pinch", 0.20),
    "point": KeyPose((0.14, -0.27, -0.05), (0.0, -0.25, 1.0), (-0.2, -1.0, 0.0), "point", 0.06),
    "fist": KeyPose((0.12, -0.28, -0.10), (-0.2, -0.5, 0.8), (-0.6, -0.2, -0.6), "fist", 0.05),
    "ok": KeyPose((0.15, -0.28, -0.06), (0.05, -0.35, 0.95), (-0.4, -0.9, 0.0), "ok", 0.03),
    "thumb": KeyPose((0.13, -0.28, -0.10), (-0.5, -0.8, 0.1), (-0.9, 0.3, 0.0), "thumb", 0.03),
    "heart": KeyPose((0.01, -0.17, -0.12), (-0.9, -0.1, 0.45), (0.1, 1.0, 0.0), "relax", 0.03),
    "one": KeyPose(*_COUNTING, "one", 0.01),
    "two": KeyPose(*_COUNTING, "two", 0.01),
    "three": KeyPose(*_COUNTING, "three", 0.01),
    "four": KeyPose(*_COUNTING, "four", 0.0),
    "five": KeyPose(*_COUNTING, "five", 0.01),
}
# A number that is surely one when it is heard after a pause ("two" alone is also "to").
_NUMBERS = {
    ("W", "AH", "N"): "one",
    ("T", "UW"): "two",
    ("TH", "R", "IY"): "three",
    ("F", "AO", "R"): "four",
    ("F", "AY", "V"): "five",
}
_STRESSED = frozenset("AA AE AO AY OW IY EY AW".split())
_MOVE_S = 0.45
_BEAT_WIDTH_S = 0.09
_BEAT = np.array([0.0, -0.008, -0.022])
_TWO_HANDED_SHARE = 0.45


def minimum_jerk(progress: np.ndarray) -> np.ndarray:
    """Position along a minimum-jerk move, 0 … 1, at a share of its time (clipped to 0 … 1)."""
    t = np.clip(progress, 0, 1)
    return t**3 * (10 - 15 * t + 6 * t * t)


@dataclass(frozen=True)
class GestureTrack:
    """Arms over time: wrist, fingers, palm float32 [n, 2, 3], shape float32 [n, 2, 7]; left hand first."""

    wrist: np.ndarray
    fingers: np.ndarray
    palm: np.ndarray
    shape: np.ndarray

    def pose(self, index: int) -> ArmsPose:
        """Pose of one frame."""
        return ArmsPose(self.wrist[index], self.fingers[index], self.palm[index], self.shape[index])


@dataclass(frozen=True)
class _Event:
    time_s: float
    name: str
    jitter: np.ndarray  # of the wrist, metres


def stress_times(phones: Sequence[Phone]) -> list[float]:
    """Times in seconds of beats: every second stressed-sounding vowel, at its start."""
    return [phone.start_s for phone in phones if phone.name in _STRESSED][::2]


def number_times(phones: Sequence[Phone], pause_s: float = 0.12) -> list[tuple[float, str]]:
    """(time, key pose) of the numbers one to five that stand between pauses, as in counting."""
    voiced = [phone for phone in phones if phone.name != SILENCE]
    found = []
    for names, pose in _NUMBERS.items():
        size = len(names)
        for first in range(len(voiced) - size + 1):
            group = voiced[first : first + size]
            if tuple(phone.name for phone in group) != names:
                continue
            before_s = group[0].start_s - voiced[first - 1].end_s if first else np.inf
            is_last = first + size == len(voiced)
            after_s = np.inf if is_last else voiced[first + size].start_s - group[-1].end_s
            if before_s >= pause_s and after_s >= pause_s:
                found.append((group[0].start_s, pose))
    return sorted(found)


def _events(
    duration_s: float, phones: Sequence[Phone], rng: np.random.Generator
) -> tuple[list[_Event], list[_Event]]:
    """Events of the left and the right hand; hands rest where nobody speaks."""
    voiced_s = np.array([phone.start_s for phone in phones if phone.name != SILENCE])
    names = list(KEY_POSES)
    shares = np.array([KEY_POSES[name].share for name in names])
    hands: tuple[list[_Event], list[_Event]] = ([], [])
    for hand in hands:
        hand.append(_Event(-10.0, "rest", rng.normal(0, 0.012, 3)))
    time_s = 0.0
    while (time_s := time_s + rng.uniform(0.7, 1.8)) < duration_s:
        name = names[rng.choice(len(names), p=shares / shares.sum())]
        if not ((voiced_s > time_s - 0.5) & (voiced_s < time_s + 1.0)).any():
            name = "rest"
        which = (0, 1) if rng.random() < _TWO_HANDED_SHARE else (int(rng.integers(2)),)
        for side in which:
            hands[side].append(_Event(time_s, name, rng.normal(0, 0.02, 3)))
    for number_s, pose in number_times(phones):  # the right hand counts
        near = [event for event in hands[1] if not number_s - 0.7 < event.time_s < number_s + 0.9]
        hands[1][:] = sorted(
            [*near, _Event(number_s - _MOVE_S, pose, rng.normal(0, 0.01, 3))], key=lambda event: event.time_s
        )
    return hands


def gesture_track(phones: Sequence[Phone], n_frames: int, rng: np.random.Generator) -> GestureTrack:
    """Gestures for an utterance.

    Args:
        phones: with times from the start of the track.
        n_frames: length, ≥ 1.
        rng: which gestures are made when.
    """
    times_s = (np.arange(n_frames) + 0.5) / FPS
    beats_s = np.array(stress_times(phones) or [-10.0])
    beat = np.exp(-(((times_s[:, None] - beats_s) / _BEAT_WIDTH_S) ** 2)).sum(1).clip(0, 1)
    hands = _events(n_frames / FPS, phones, rng)
    tracks: list[list[np.ndarray]] = [[], [], [], []]
    for side, events in enumerate(hands):
        mirror = np.array([1.0 if side == 0 else -1.0, 1.0, 1.0])
        sway_phase = rng.uniform(0, 2 * np.pi, 3)
        wrist, fingers, palm, shape = _hand(events, times_s)
        wrist = wrist + beat[:, None] * _BEAT
        wrist = wrist + 0.004 * np.sin(np.array([1.1, 0.9, 1.3]) * times_s[:, None] + sway_phase)
        for track, value in zip(tracks, (wrist * mirror, fingers * mirror, palm * mirror, shape), strict=True):
            track.append(value)
    return GestureTrack(*(np.stack(track, axis=1).astype(np.float32) for track in tracks))


def _hand(events: Sequence[_Event], times_s: np.ndarray) -> tuple[np.ndarray, ...]:
    """Wrist [n, 3], fingers [n, 3], palm [n, 3] and shape [n, 7] of the left hand that follows the events.

    Every event moves on from where the hand then is, so a move that is cut short leaves no jump.
    """
    pose = KEY_POSES[events[0].name]
    start = [
        np.add(pose.wrist, events[0].jitter), np.array(pose.fingers), np.array(pose.palm),
        np.array(HAND_SHAPES[pose.shape]),
    ]  # fmt: skip
    tracks = [np.repeat(value[None], len(times_s), axis=0) for value in start]
    for event in events[1:]:
        pose = KEY_POSES[event.name]
        goal = [np.add(pose.wrist, event.jitter), pose.fingers, pose.palm, HAND_SHAPES[pose.shape]]
        first = int(np.searchsorted(times_s, event.time_s))
        if first >= len(times_s):
            break
        progress = (times_s[first:] - event.time_s) / _MOVE_S
        for index, (track, target) in enumerate(zip(tracks, goal, strict=True)):
            done = minimum_jerk(progress * (1.2 if index == 3 else 1.0))[:, None]
            track[first:] = track[max(first - 1, 0)] * (1 - done) + np.asarray(target) * done
    return tuple(tracks)
