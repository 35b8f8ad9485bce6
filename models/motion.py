"""Motion plan: the part of a presenter's movement that the sound does not decide.

A one-step generator returns the conditional mean, and the mean of all possible head motions is a head that
stands still. The shipped presets therefore condition LR-A2V on an explicit plan of head, torso, gaze, blinks,
brows and breath, drawn here. The synthetic presenters move by the same plan, so what the model meets live is
what it was trained on.

The plan is a pure function of (seed, frame index): nothing is carried, any split of a stream gives the same
frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from models.timing import FPS

MOTION_CHANNELS = (
    "yaw",  # head, radians, + turns to the presenter's left
    "pitch",  # head, radians
    "roll",  # head, radians
    "lean_x",  # torso, radians, forwards
    "lean_y",  # torso, radians, twist
    "lean_z",  # torso, radians, sideways
    "gaze_x",  # eyes relative to the head, radians
    "gaze_y",
    "blink",  # 0 open … 1 shut
    "brow",  # 0 at rest … 1 raised
    "breath",  # -1 out … 1 in
)
MOTION_DIM = len(MOTION_CHANNELS)
# Typical deviations: a model sees channels divided by these. Left as they are, radians are too small to be noticed.
MOTION_SCALE = (0.07, 0.035, 0.03, 0.010, 0.015, 0.012, 0.07, 0.036, 0.25, 0.18, 0.7)

# channel: (seconds between knots, standard deviation) of the smooth random curves
_CURVES = {
    "yaw": (1.1, 0.070),
    "pitch": (0.9, 0.035),
    "roll": (1.3, 0.030),
    "lean_x": (2.5, 0.012),
    "lean_y": (2.5, 0.020),
    "lean_z": (2.7, 0.015),
    "brow": (0.8, 0.180),
}
_SPLINE_STD = 0.692  # standard deviation of a uniform cubic B-spline of unit normal knots
_EYE_CONTACT = 0.8  # share of the head's turn that the eyes take back to stay with the viewer
_SACCADE_SLOT_S, _SACCADE_STD = 1.15, 0.040
_BLINK_SLOT_S, _BLINK_SHARE, _BLINK_WIDTH_S = 2.6, 0.85, 0.070
_BREATH_S = 3.7
_TORSO_DELAY_S, _TORSO_SHARE = 0.28, 0.16  # the torso turns after the head, by this share of it
_NOD_SLOT_S, _NOD_SHARE, _NOD_RAD = 4.2, 0.55, 0.075
_NOD_S = 0.44  # down and up again; a nod is two of them, the second half as deep
_SMILE_SLOT_S, _SMILE_SHARE, _SMILE_HALF_S = 9.0, 0.6, 1.5
ENERGY_RAMP_FRAMES = 25


def _draws(seed: int, stream: int, first: int, count: int) -> np.ndarray:
    """Uniform draws [count, 2] of the slots first, first + 1, … of one stream, by random access."""
    offset = 1 << 32  # slots start below zero: keep the counter positive
    rows = [
        np.random.Generator(np.random.Philox(key=[seed & (2**63 - 1), stream], counter=offset + slot)).random(2)
        for slot in range(first, first + count)
    ]
    return np.array(rows)


def _normal(uniform: np.ndarray) -> np.ndarray:
    """Box-Muller: [..., 2] uniform draws to [...] normal ones."""
    return np.sqrt(-2 * np.log(1 - uniform[..., 0])) * np.cos(2 * np.pi * uniform[..., 1])


def _curve(seed: int, stream: int, times_s: np.ndarray, knot_s: float) -> np.ndarray:
    """Smooth unit-variance random curve at the given times: a cubic B-spline of normal knots."""
    position = times_s / knot_s
    left = np.floor(position).astype(int)
    u = position - left
    first = int(left.min()) - 1
    knots = _normal(_draws(seed, stream, first, int(left.max()) - first + 3))
    weights = np.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], axis=-1) / 6
    window = knots[(left - first)[:, None] + np.arange(-1, 3)]
    return (weights * window).sum(-1) / _SPLINE_STD


def _saccades(seed: int, stream: int, times_s: np.ndarray) -> np.ndarray:
    """Gaze targets [n] that jump once in every slot, at a random moment of it, within two frames."""
    slot = np.floor(times_s / _SACCADE_SLOT_S).astype(int)
    first = int(slot.min()) - 1
    count = int(slot.max()) - first + 1
    targets = _normal(_draws(seed, stream, first, count)) * _SACCADE_STD
    onset = (np.arange(first, first + count) + _draws(seed, stream + 1, first, count)[:, 0] * 0.8) * _SACCADE_SLOT_S
    index = slot - first
    progress = np.clip((times_s - onset[index]) / 0.06, 0, 1)
    return targets[index - 1] * (1 - progress) + targets[index] * progress


def _blinks(seed: int, stream: int, times_s: np.ndarray) -> np.ndarray:
    """Lid closure [n] in 0…1: at most one blink a slot."""
    slot = np.floor(times_s / _BLINK_SLOT_S).astype(int)
    first = int(slot.min()) - 1
    count = int(slot.max()) - first + 2
    draws = _draws(seed, stream, first, count)
    moments = (np.arange(first, first + count) + 0.1 + 0.8 * draws[:, 0]) * _BLINK_SLOT_S
    moments = moments[draws[:, 1] < _BLINK_SHARE]
    if not len(moments):
        return np.zeros_like(times_s)
    distance = np.abs(times_s[:, None] - moments[None]).min(1)
    return np.exp(-((distance / _BLINK_WIDTH_S) ** 2))


def motion_frames(seed: int, start: int, count: int, energy: float | np.ndarray = 1.0) -> np.ndarray:
    """Motion plan of `count` video frames.

    Args:
        seed: of the plan, any integer.
        start: index of the first frame, at 25 fps; may be any integer ≥ -1e8.
        count: number of frames, ≥ 1.
        energy: scale of head, torso and brow motion, 0 (still) … 2; one for all frames, or [count] of each.

    Returns:
        float32 [count, MOTION_DIM], channels as in `MOTION_CHANNELS`.

    Raises:
        ValueError: if count or energy is out of range.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if np.min(energy) < 0 or np.max(energy) > 2:
        raise ValueError(f"energy must be within 0 … 2, got {energy}")
    times_s = (np.arange(start, start + count) + 0.5) / FPS
    plan = {
        name: energy * std * _curve(seed, stream, times_s, knot_s)
        for stream, (name, (knot_s, std)) in enumerate(_CURVES.items())
    }
    followed = energy * _CURVES["yaw"][1] * _curve(seed, 0, times_s - _TORSO_DELAY_S, _CURVES["yaw"][0])
    plan["lean_y"] = 0.7 * plan["lean_y"] + _TORSO_SHARE * followed
    plan["brow"] = np.clip(plan["brow"], 0, 0.6)
    plan["gaze_x"] = _saccades(seed, 20, times_s) - _EYE_CONTACT * plan["yaw"]
    plan["gaze_y"] = _saccades(seed, 22, times_s) * 0.6 - _EYE_CONTACT * plan["pitch"]
    plan["blink"] = _blinks(seed, 24, times_s)
    plan["breath"] = np.sin(2 * np.pi * times_s / _BREATH_S + 0.7 * _curve(seed, 25, times_s, 4.0))
    return np.stack([plan[name] for name in MOTION_CHANNELS], axis=1).astype(np.float32)


def listening_frames(seed: int, start: int, count: int) -> np.ndarray:
    """What a listener does beside the plan: now and then a nod, now and then a small smile.

    A pure function of (seed, frame), as the plan. Who speaks does neither: scale it by how much the presenter listens.

    Returns:
        float32 [count, 2]: nod, radians of pitch, downwards; smile, 0 … 1.
    """
    times_s = (np.arange(start, start + count) + 0.5) / FPS
    since_s = times_s - _moments(seed, 30, times_s, _NOD_SLOT_S, _NOD_SHARE)
    dip, depth = np.floor(since_s / _NOD_S), _NOD_RAD * np.sin(np.pi * since_s / _NOD_S) ** 2
    nod = np.where(dip == 0, depth, np.where(dip == 1, depth / 2, 0.0))
    about_s = times_s - _SMILE_HALF_S - _moments(seed, 31, times_s, _SMILE_SLOT_S, _SMILE_SHARE)
    smile = np.cos(np.pi / 2 * np.clip(about_s / _SMILE_HALF_S, -1, 1)) ** 2
    return np.stack([nod, smile], axis=1).astype(np.float32)


def _moments(seed: int, stream: int, times_s: np.ndarray, slot_s: float, share: float) -> np.ndarray:
    """The last moment [n] at or before each time at which something happens, once in a `share` of the slots.

    It lies in the first half of its slot, so that what lasts half a slot is over before the next. Far in the past
    where the slot is empty.
    """
    slot = np.floor(times_s / slot_s).astype(int)
    first = int(slot.min())
    draws = _draws(seed, stream, first, int(slot.max()) - first + 1)[slot - first]
    moment = (slot + 0.5 * draws[:, 0]) * slot_s
    return np.where((draws[:, 1] < share) & (moment <= times_s), moment, -1e9)


def ramped_energy(first: int, count: int, before: float, after: float, changed: int | None) -> np.ndarray:
    """Energy [count] of the frames from `first` on: from `before` to `after` in `ENERGY_RAMP_FRAMES` after `changed`.

    The plan is scaled by it, so a step of it would be a jump of the head.
    """
    if changed is None:
        return np.full(count, after)
    progress = np.clip((np.arange(first, first + count) - changed + 1) / ENERGY_RAMP_FRAMES, 0, 1)
    energy = before + (after - before) * progress * progress * (3 - 2 * progress)
    return np.clip(energy, min(before, after), max(before, after))  # a rounding error above 2 would be refused


@dataclass(frozen=True)
class PlanPlace:
    """Where a stream is in its motion plan, and by how much it moves.

    Attributes:
        seed: of the plan.
        index: frame of the plan that is shown next; stands still while frames are held.
        energy: 0 … 2, that is aimed at; energy_before: that it comes from.
        energy_changed: index of the change; None: never.
    """

    seed: int
    index: int = 0
    energy: float = 1.0
    energy_before: float = 1.0
    energy_changed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.energy <= 2:
            raise ValueError(f"motion_energy must be within 0 … 2, got {self.energy}")

    def energies(self, first: int, count: int) -> np.ndarray:
        """Motion energy [count] of the frames from `first` of the plan on."""
        return ramped_energy(first, count, self.energy_before, self.energy, self.energy_changed)

    def frames(self, count: int, offset: int = 0) -> np.ndarray:
        """Rows [count, MOTION_DIM] of the plan, the first `offset` frames after the next; see `motion_frames`."""
        first = self.index + offset
        return motion_frames(self.seed, first, count, self.energies(first, count))

    def listening(self, count: int) -> np.ndarray:
        """What a listener does in the next frames, [count, 2]; see `listening_frames`."""
        return listening_frames(self.seed, self.index, count)

    def after(self, count: int) -> PlanPlace:
        """The place `count` frames later."""
        return replace(self, index=self.index + count)

    def with_energy(self, energy: float) -> PlanPlace:
        """The same place with another energy, which comes in within `ENERGY_RAMP_FRAMES`, so that no head jumps.

        Raises:
            ValueError: if it is not within 0 … 2.
        """
        if energy == self.energy:
            return self
        before = float(self.energies(self.index - 1, 1)[0])
        return replace(self, energy=energy, energy_before=before, energy_changed=self.index)
