"""Do the lips say the sound: aperture against the truth, closures, lag, silence.

The head of a generated video moves differently from the true one, so nothing here compares positions: all figures
come from the aperture, the gap between the inner lips, scaled to the size of the true face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.takes import FPS, runs

_UPPER, _LOWER = (61, 62, 63), (68, 67, 66)  # the three middle pairs of the inner lips
_MAX_LAG_FRAMES = 8
_CLOSED_QUANTILE = 0.03
_CLOSURE_SLACK_FRAMES = 1
_SHUT_SHARE, _SHUT_MIN_PX256 = 0.25, 1.2


@dataclass(frozen=True)
class Closed:
    """What counts as shut for one take, from its true aperture.

    Attributes:
        rest_px256: aperture of shut lips; not 0, inner lips of a mesh do not touch.
        limit_px256: at or below it a mouth is shut.
    """

    rest_px256: float
    limit_px256: float


@dataclass(frozen=True)
class ClosureScore:
    """Share of p, b, m at which the mouth shuts, and the same for moments that ask for no closure."""

    share: float
    share_elsewhere: float
    events: int


@dataclass(frozen=True)
class SilenceScore:
    """Mouth in pauses: motion relative to speech, mean aperture above the truth's, share of frames shut."""

    motion: float
    opening_px256: float
    share_shut: float
    frames: int


def aperture_px256(face: np.ndarray) -> np.ndarray:
    """Gap between the inner lips, mean of the three middle pairs: face [T, 70, 2] in px256 → [T] in px256."""
    return (face[:, _LOWER, 1] - face[:, _UPPER, 1]).mean(1)


def face_size_px256(face: np.ndarray) -> float:
    """Size of the face that neither speech nor blinks change: eyes to base of the nose, median over the clip."""
    eyes, nose = face[:, 36:48].mean(1), face[:, 31:36].mean(1)
    return float(np.median(np.linalg.norm(eyes - nose, axis=1)))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r of two sequences of the same length; 0 where one of them does not move."""
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / scale if scale > 1e-9 else 0.0


def amplitude_ratio(generated: np.ndarray, true: np.ndarray) -> float:
    """Standard deviation of the generated aperture over that of the true one."""
    return float(generated.std() / max(float(true.std()), 1e-9))


def lag_frames(generated: np.ndarray, true: np.ndarray) -> float:
    """Frames by which the generated mouth is late: peak of the cross-correlation, refined by a parabola.

    Raises:
        ValueError: if there are fewer than 25 frames.
    """
    count = len(true)
    if count < FPS:
        raise ValueError(f"a lag needs at least {FPS} frames, got {count}")
    lags = list(range(-_MAX_LAG_FRAMES, _MAX_LAG_FRAMES + 1))
    scores = np.array([
        correlation(generated[max(lag, 0) : count + min(lag, 0)], true[max(-lag, 0) : count - max(lag, 0)])
        for lag in lags
    ])
    best = int(scores.argmax())
    if not 0 < best < len(lags) - 1:
        return float(lags[best])
    left, peak, right = scores[best - 1 : best + 2]
    curvature = left - 2 * peak + right
    return float(lags[best] + (0.5 * (left - right) / curvature if curvature < -1e-9 else 0.0))


def closed_limit(true_aperture: np.ndarray, silent: np.ndarray) -> Closed:
    """What counts as shut in a take, from its true aperture [T] in px256 and its silent frames [T].

    The limit lies above the aperture of shut lips (the 3rd percentile) by a quarter of the way to the median
    speaking aperture, and by 1.2 px256 at least, which is about what the eye can tell at this size.
    """
    rest = float(np.quantile(true_aperture, _CLOSED_QUANTILE))
    speaking = true_aperture[~silent] if (~silent).any() else true_aperture
    return Closed(rest, rest + max(_SHUT_SHARE * (float(np.median(speaking)) - rest), _SHUT_MIN_PX256))


def closure_score(aperture: np.ndarray, closure: np.ndarray, closed: Closed, silent: np.ndarray) -> ClosureScore:
    """How often the mouth shuts on p, b and m.

    Args:
        aperture: [T] in px256 of the true face's size.
        closure: [T], above 0.5 where the lips must be shut.
        closed: limit of the take.
        silent: [T] bool, left out of the moments elsewhere.

    Returns:
        An event counts as shut if the aperture falls to the limit within its frames or one beside them. The share
        elsewhere is the same over windows of three frames in speech away from every event: it is what a mouth
        that shuts at random would score, and near 1 for one that never opens.
    """
    asked = closure > 0.5
    events = runs(asked)
    shut = [_shuts(aperture, start, stop, closed.limit_px256) for start, stop in events]
    near = np.convolve(asked, np.ones(2 * 3 + 1), mode="same") > 0
    free = ~near & ~silent
    elsewhere = [
        _shuts(aperture, middle, middle + 1, closed.limit_px256)
        for start, stop in runs(free) for middle in range(start + 1, stop - 1, 3)
    ]
    return ClosureScore(
        float(np.mean(shut)) if shut else float("nan"),
        float(np.mean(elsewhere)) if elsewhere else float("nan"),
        len(events),
    )


def _shuts(aperture: np.ndarray, start: int, stop: int, limit: float) -> bool:
    window = aperture[max(start - _CLOSURE_SLACK_FRAMES, 0) : stop + _CLOSURE_SLACK_FRAMES]
    return bool(window.min() <= limit)


def silence_score(
    aperture: np.ndarray, true_aperture: np.ndarray, silent: np.ndarray, closed: Closed
) -> SilenceScore | None:
    """Mouth in the pauses of a take; None if it has none.

    Args:
        aperture, true_aperture: [T] in px256. silent: [T] bool. closed: limit of the take.

    Returns:
        Motion is the deviation in pauses over that in speech. A frame is shut at or below the limit, or as far open
        as the truth and 1.2 px256: a surprised face keeps its lips apart.
    """
    if not silent.any() or silent.all():
        return None
    quiet, speech, true = aperture[silent], aperture[~silent], true_aperture[silent]
    limit = np.maximum(closed.limit_px256, true + _SHUT_MIN_PX256)
    return SilenceScore(
        motion=float(quiet.std() / max(float(speech.std()), 1e-9)),
        opening_px256=float((quiet - true).mean()),
        share_shut=float((quiet <= limit).mean()),
        frames=int(silent.sum()),
    )


def shuffled_correlations(generated: list[np.ndarray], true: list[np.ndarray]) -> np.ndarray:
    """r of every generated aperture with the truth of every *other* take, over the shorter length.

    A video made from another take's sound is a shuffled-sound control; without it, r could come from what all
    takes share, such as silence at both ends.
    """
    scores = [
        correlation(mouth[: min(len(mouth), len(other))], other[: min(len(mouth), len(other))])
        for i, mouth in enumerate(generated) for j, other in enumerate(true) if i != j
    ]
    return np.array(scores)
