"""All figures of one clip, of one presenter's silence, of one long clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.identity import FaceRecogniser, IdentityScore, similarity_drop
from evaluation.landmarks import LandmarkError, LandmarkRegressor, fit_landmarks, landmark_error, to_px256
from evaluation.life import LifeScore, head_pose, life_score
from evaluation.lips import (
    amplitude_ratio,
    aperture_px256,
    closed_limit,
    closure_score,
    correlation,
    face_size_px256,
    lag_frames,
    silence_score,
)
from evaluation.picture import blockiness, colour_drift, gradient_energy, join_jump
from evaluation.takes import Take

_FIT_FRAMES = 1800  # a presenter's regressor is fitted on about this many frames


@dataclass(frozen=True)
class Instrument:
    """A take's landmark regressor, which never saw the take, and its error on the take's true frames.

    `pause_motion` is the mouth motion that it sees in true pauses, relative to speech: the floor of that figure.
    """

    regressor: LandmarkRegressor
    error: LandmarkError
    pause_motion: float


@dataclass(frozen=True)
class ClipScore:
    """One clip against its truth; NaN where the clip has nothing to measure. Names as in their modules."""

    name: str
    presenter: str
    voice: str
    frames: int
    aperture_r: float
    aperture_r_speaking: float
    amplitude: float
    lag_frames: float
    closure: float
    closure_elsewhere: float
    closure_events: int
    closure_exact: float
    closure_exact_elsewhere: float
    silence_motion: float
    silence_opening_px256: float
    silence_share_shut: float
    silence_frames: int
    face_similarity: float
    face_similarity_true: float
    faces_found: float
    sharpness: float
    blockiness: float
    join_jump: float
    life: LifeScore
    life_true: LifeScore
    landmark_r: float
    landmark_pause_motion: float
    landmark_lips_px256: float
    landmark_aperture_px256: float


@dataclass(frozen=True)
class SilenceClipScore:
    """A clip in which nobody speaks; mouth motion relative to the presenter's speech, life beside the truth's."""

    presenter: str
    mouth_motion: float
    opening_px256: float
    share_shut: float
    life: LifeScore
    blinks_planned: int
    head_follows_plan_r: float


@dataclass(frozen=True)
class StageLips:
    """Lips after a stage that was given the truth: the most that the stages after it can show."""

    stage: str
    aperture_r: float
    amplitude: float
    closure: float


@dataclass(frozen=True)
class LongScore:
    """A long clip: identity, colour and sharpness from its start to its end."""

    presenter: str
    seconds: float
    similarity_drop: float
    similarity: list[float]
    delta_e: list[float]
    background: list[float]
    sharpness: list[float]
    join_jump: float


@dataclass(frozen=True)
class Mouth:
    """Apertures [T] of a take in px256 of the true face: exact, and as measured in a video."""

    exact: np.ndarray
    measured: np.ndarray


def make_instruments(takes: list[Take], others: list[Take], seed: int = 0) -> dict[str, Instrument]:
    """Instruments of one presenter's takes, by take name.

    Args:
        takes: of the presenter, to be measured.
        others: further takes of the presenter to fit on, such as training takes; may be empty.
        seed: of `fit_landmarks`.

    Raises:
        ValueError: if there is only one take in all, so that no regressor could be fitted without it.
    """
    halves = (takes[::2], takes[1::2])
    instruments = {}
    for mine, rest in (halves, halves[::-1]):
        if not mine:
            continue
        pool = rest + others
        if not pool:
            raise ValueError(f"{mine[0].presenter} has one take only: a second one is needed to fit landmarks on")
        step = max(1, round(sum(take.frame_count for take in pool) / _FIT_FRAMES))
        frames = [take.frames()[::step] for take in pool]
        keypoints = [take.keypoints[::step][: len(part)] for take, part in zip(pool, frames, strict=True)]
        regressor = fit_landmarks(np.concatenate(frames), np.concatenate(keypoints), seed)
        for take in mine:
            instruments[take.name] = _try_out(regressor, take)
    return instruments


def _try_out(regressor: LandmarkRegressor, take: Take) -> Instrument:
    """An instrument with its errors on the take's true frames."""
    true = take.frames()
    exact, found = to_px256(take.keypoints, true.shape[1:3]), regressor.predict(true)
    aperture = aperture_px256(exact)
    silence = silence_score(aperture_px256(found), aperture, take.silent, closed_limit(aperture, take.silent))
    return Instrument(regressor, landmark_error(found, exact), silence.motion if silence else float("nan"))


def measure_mouth(take: Take, frames: np.ndarray, face: np.ndarray) -> Mouth:
    """Exact aperture of a take, and that of a video of it with face points [T, 70, 2], at the true face's size."""
    exact_face = to_px256(take.keypoints[: len(frames)], frames.shape[1:3])
    scale = face_size_px256(exact_face) / max(face_size_px256(face), 1e-6)
    return Mouth(aperture_px256(exact_face), aperture_px256(face) * scale)


def score_clip(
    take: Take, frames: np.ndarray, true: np.ndarray, joins: list[int], instrument: Instrument,
    recogniser: FaceRecogniser | None, reference: np.ndarray,
) -> tuple[ClipScore, Mouth]:
    """All figures of a generated clip.

    Args:
        take: the truth.
        frames: generated frames uint8 [T, H, W, 3], as many as the take's.
        true: true frames uint8 [T, H', W', 3].
        joins: first frames of chunks.
        instrument: the take's own.
        recogniser: None leaves identity out.
        reference: reference picture uint8.
    """
    count = min(len(frames), len(true), take.frame_count)
    frames, true = frames[:count], true[:count]
    face = instrument.regressor.predict(frames)
    mouth = measure_mouth(take, frames, face)
    silent = take.silent[:count]
    closed = closed_limit(mouth.exact, silent)
    closure = closure_score(mouth.measured, take.closure[:count], closed, silent)
    exact = closure_score(mouth.exact, take.closure[:count], closed, silent)
    silence = silence_score(mouth.measured, mouth.exact, silent, closed)
    same = recogniser.compare(frames, reference) if recogniser else None
    same_true = recogniser.compare(true, reference) if recogniser else None
    nan = float("nan")
    score = ClipScore(
        name=take.name,
        presenter=take.presenter,
        voice=take.voice,
        frames=count,
        aperture_r=correlation(mouth.measured, mouth.exact),
        aperture_r_speaking=correlation(mouth.measured[~silent], mouth.exact[~silent]),
        amplitude=amplitude_ratio(mouth.measured, mouth.exact),
        lag_frames=lag_frames(mouth.measured, mouth.exact),
        closure=closure.share,
        closure_elsewhere=closure.share_elsewhere,
        closure_events=closure.events,
        closure_exact=exact.share,
        closure_exact_elsewhere=exact.share_elsewhere,
        silence_motion=silence.motion if silence else nan,
        silence_opening_px256=silence.opening_px256 if silence else nan,
        silence_share_shut=silence.share_shut if silence else nan,
        silence_frames=silence.frames if silence else 0,
        face_similarity=same.similarity if same else nan,
        face_similarity_true=same_true.similarity if same_true else nan,
        faces_found=same.share_found if same else nan,
        sharpness=gradient_energy(frames[::4]) / max(gradient_energy(true[::4]), 1e-9),
        blockiness=blockiness(frames[::4]) / max(blockiness(true[::4]), 1e-9),
        join_jump=join_jump(frames, joins) if joins else nan,
        life=life_score(frames, face),
        life_true=life_score(true, to_px256(take.keypoints[:count], true.shape[1:3])),
        landmark_pause_motion=instrument.pause_motion,
        landmark_r=instrument.error.aperture_r,
        landmark_lips_px256=instrument.error.lips_px256,
        landmark_aperture_px256=instrument.error.aperture_px256,
    )
    return score, mouth


def score_silence(
    takes: list[Take], frames: np.ndarray, motion: np.ndarray, regressor: LandmarkRegressor, speech: list[Mouth]
) -> SilenceClipScore:
    """Figures of a clip in which nobody speaks.

    Args:
        takes: the presenter's, for what is shut and for the size of the true face.
        frames: generated frames uint8 [T, H, W, 3].
        motion: the plan [T, MOTION_DIM] that the clip was to follow.
        regressor: of the presenter.
        speech: mouths of the presenter's generated clips, in the order of takes.
    """
    face = regressor.predict(frames)
    sizes, rests, limits = [], [], []
    for take in takes:
        exact = to_px256(take.keypoints, frames.shape[1:3])
        closed = closed_limit(aperture_px256(exact), take.silent)
        sizes.append(face_size_px256(exact))
        rests.append(closed.rest_px256)
        limits.append(closed.limit_px256)
    aperture = aperture_px256(face) * float(np.median(sizes)) / max(face_size_px256(face), 1e-6)
    moving = float(np.mean([mouth.measured.std() for mouth in speech]))
    turn = head_pose(face)[2]
    return SilenceClipScore(
        presenter=takes[0].presenter,
        mouth_motion=float(aperture.std()) / max(moving, 1e-9),
        opening_px256=float(aperture.mean() - np.median(rests)),
        share_shut=float((aperture <= np.median(limits)).mean()),
        life=life_score(frames, face),
        blinks_planned=planned_blinks(motion),
        head_follows_plan_r=abs(correlation(turn, motion[: len(turn), 0])),
    )


def score_stage_lips(stage: str, take: Take, frames: np.ndarray, regressor: LandmarkRegressor) -> StageLips:
    """What is left of a take's lips in the frames [T', H, W, 3] of one stage, T' ≤ T from the take's first on."""
    count = len(frames)
    mouth = measure_mouth(take, frames, regressor.predict(frames))
    silent = take.silent[:count]
    closed = closed_limit(mouth.exact, silent)
    return StageLips(
        stage,
        correlation(mouth.measured, mouth.exact),
        amplitude_ratio(mouth.measured, mouth.exact),
        closure_score(mouth.measured, take.closure[:count], closed, silent).share,
    )


def planned_blinks(motion: np.ndarray) -> int:
    """Blinks in a motion plan [T, MOTION_DIM]: rises of the blink channel above one half."""
    shut = motion[:, 8] > 0.5
    return int(shut[0]) + int((shut[1:] & ~shut[:-1]).sum())


def score_long(
    presenter: str, frames: np.ndarray, joins: list[int], reference: np.ndarray, recogniser: FaceRecogniser | None
) -> LongScore:
    """Drift over a long clip, uint8 [T, H, W, 3] at 25 fps; ten seconds at least."""
    seconds = len(frames) / 25
    drift = colour_drift(frames)
    same: IdentityScore | None = recogniser.compare(frames, reference) if recogniser else None
    edges = np.arange(0, seconds - 4.99, 5.0)
    return LongScore(
        presenter=presenter,
        seconds=seconds,
        similarity_drop=similarity_drop(same, end_s=seconds) if same else float("nan"),
        similarity=[same.within(edge, edge + 5) for edge in edges] if same else [],
        delta_e=drift.delta_e.tolist(),
        background=drift.background.tolist(),
        sharpness=drift.sharpness.tolist(),
        join_jump=join_jump(frames, joins) if joins else float("nan"),
    )
