"""What must hold: figures of many clips against the thresholds of the project, each true or false."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from evaluation.landmarks import LandmarkError
from evaluation.lips import shuffled_correlations
from evaluation.measures import ClipScore, LongScore, Mouth, SilenceClipScore, StageLips
from evaluation.stages import PictureScore, RefinerScore


@dataclass(frozen=True)
class Check:
    """A figure and what it must be; `holds` is None where no threshold is set or nothing could be measured."""

    name: str
    value: float
    target: str
    holds: bool | None
    digits: int = 2


def at_least(name: str, value: float, limit: float, digits: int = 2) -> Check:
    """The value must be at least a limit."""
    return Check(name, value, f"≥ {limit:g}", None if math.isnan(value) else value >= limit, digits)


def at_most(name: str, value: float, limit: float, digits: int = 2) -> Check:
    """The value must be at most a limit."""
    return Check(name, value, f"≤ {limit:g}", None if math.isnan(value) else value <= limit, digits)


def told(name: str, value: float, digits: int = 2) -> Check:
    """A figure without a threshold."""
    return Check(name, value, "", None, digits)


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are numbers; NaN if there is none."""
    return _over(np.mean, values)


def lowest(values: Iterable[float]) -> float:
    """Lowest of the values that are numbers; NaN if there is none."""
    return _over(np.min, values)


def highest(values: Iterable[float]) -> float:
    """Highest of the values that are numbers; NaN if there is none."""
    return _over(np.max, values)


def _over(reduce: Callable[[np.ndarray], np.floating], values: Iterable[float]) -> float:
    known = np.array([value for value in values if not math.isnan(value)])
    return float(reduce(known)) if len(known) else float("nan")


def control_checks(clips: list[ClipScore], mouths: list[Mouth]) -> list[Check]:
    """Enough clips, and the same correlations with the sound of another take."""
    exact = [mouth.exact for mouth in mouths]
    shuffled = shuffled_correlations([mouth.measured for mouth in mouths], exact)
    return [
        at_least("clips", len(clips), 10, 0),
        at_most("shuffled sound: size of the mean r", abs(mean(shuffled)), 0.20),
        told("shuffled sound: mean size of r", mean(abs(shuffled))),
        told("the same of the truth (pauses at the same places)", abs(mean(shuffled_correlations(exact, exact)))),
    ]


def lip_checks(clips: list[ClipScore]) -> list[Check]:
    """Lips over clips of speech; closures are pooled over all events."""
    events = sum(clip.closure_events for clip in clips)
    return [
        at_least("aperture r, mean", mean(clip.aperture_r for clip in clips), 0.60),
        at_least("aperture r, worst clip", lowest(clip.aperture_r for clip in clips), 0.40),
        told("aperture r, speaking frames only, mean", mean(clip.aperture_r_speaking for clip in clips)),
        at_least("amplitude of the truth, mean", mean(clip.amplitude for clip in clips), 0.70),
        at_least("p/b/m shut", pooled_closure(clips, "closure"), 0.50),
        told("p/b/m shut, truth by exact keypoints", pooled_closure(clips, "closure_exact")),
        told("shut at other moments", mean(clip.closure_elsewhere for clip in clips)),
        told("shut at other moments, truth", mean(clip.closure_exact_elsewhere for clip in clips)),
        told("p/b/m events", events, 0),
        at_most("lag of the picture, frames, size of the mean", abs(mean(clip.lag_frames for clip in clips)), 1.0),
        told("lag, worst clip, frames", highest(abs(clip.lag_frames) for clip in clips)),
        told("pauses: mouth motion of speaking", mean(clip.silence_motion for clip in clips)),
        told("pauses: the same of the truth, as measured", mean(clip.landmark_pause_motion for clip in clips)),
        told("pauses: share of frames shut", mean(clip.silence_share_shut for clip in clips)),
        told("instrument: aperture r on true frames", mean(clip.landmark_r for clip in clips), 3),
        told("instrument: lips error, px of 256", mean(clip.landmark_lips_px256 for clip in clips)),
    ]


def pooled_closure(clips: list[ClipScore], name: str) -> float:
    """Share of shut events over all events of all clips; `name` is closure or closure_exact."""
    shut = [(getattr(clip, name), clip.closure_events) for clip in clips if clip.closure_events]
    return sum(share * count for share, count in shut) / sum(count for _, count in shut) if shut else float("nan")


def silence_checks(clips: list[SilenceClipScore]) -> list[Check]:
    """Silence over presenters: the worst presenter must hold."""
    return [
        at_most("mouth motion of speaking, worst", highest(clip.mouth_motion for clip in clips), 0.10),
        at_least("share of frames shut, worst", lowest(clip.share_shut for clip in clips), 0.95),
        told("opening above shut, px of 256, worst", highest(clip.opening_px256 for clip in clips)),
        at_least("blinks a minute, fewest", lowest(clip.life.blinks_per_minute for clip in clips), 4, 1),
        told("blinks seen of blinks planned", _blinks_seen(clips)),
        at_least("head shift, % of eyes to nose, least", lowest(clip.life.head_shift for clip in clips), 2, 1),
        told("head turn follows the plan, r", mean(clip.head_follows_plan_r for clip in clips)),
        at_least("breath, px of 256, least", lowest(clip.life.breath_px256 for clip in clips), 0.1),
    ]


def _blinks_seen(clips: list[SilenceClipScore]) -> float:
    planned = sum(clip.blinks_planned for clip in clips)
    seen = sum(clip.life.blinks_per_minute * clip.life.seconds / 60 for clip in clips)
    return seen / planned if planned else float("nan")


def life_checks(clips: list[ClipScore]) -> list[Check]:
    """Life while speaking, beside that of the true takes (which follow other motion plans)."""
    pairs = [(clip.life, clip.life_true) for clip in clips]
    rows = []
    for name, label, digits in (
        ("blinks_per_minute", "blinks a minute", 1),
        ("head_shift", "head shift, % of eyes to nose", 1),
        ("head_roll_deg", "head roll, degrees", 2),
        ("breath_px256", "breath, px of 256", 2),
    ):
        rows.append(told(label, mean(getattr(own, name) for own, _ in pairs), digits))
        rows.append(told(f"{label}, truth", mean(getattr(true, name) for _, true in pairs), digits))
    return rows


def identity_checks(clips: list[ClipScore], between_presenters: float) -> list[Check]:
    """Similarity to the reference against that of true renders, by presenter; the worst presenter must hold."""
    ratios = []
    for presenter in {clip.presenter for clip in clips}:
        own = [clip for clip in clips if clip.presenter == presenter]
        ratios.append(
            mean(clip.face_similarity for clip in own) / mean(clip.face_similarity_true for clip in own)
        )
    return [
        at_least("FaceSIM of true renders', mean", mean(ratios), 0.90),
        told("FaceSIM of true renders', worst presenter", lowest(ratios)),
        told("FaceSIM to the reference", mean(clip.face_similarity for clip in clips), 3),
        told("FaceSIM of true renders to the reference", mean(clip.face_similarity_true for clip in clips), 3),
        told("FaceSIM between presenters' references", between_presenters, 3),
        told("frames with a face", mean(clip.faces_found for clip in clips)),
    ]


def long_checks(clips: list[LongScore]) -> list[Check]:
    """Drift over a long clip: the worst presenter must hold."""
    return [
        told("length, s", lowest(clip.seconds for clip in clips), 0),
        at_most("FaceSIM drop from second 10 to the end", highest(clip.similarity_drop for clip in clips), 0.02, 3),
        at_most("colour change ΔE, worst 5 s", highest(max(clip.delta_e) for clip in clips), 2.3),
        told("background change, grey levels, worst 5 s", highest(max(clip.background) for clip in clips)),
        told("sharpness of the first 5 s, least", lowest(min(clip.sharpness) for clip in clips)),
        told("join jump (1 = none)", mean(clip.join_jump for clip in clips)),
    ]


def picture_checks(clips: list[ClipScore]) -> list[Check]:
    """Sharpness, block edges and joins of generated clips."""
    return [
        told("gradient energy of the truth's", mean(clip.sharpness for clip in clips)),
        told("block edges (truth = 1)", mean(clip.blockiness for clip in clips)),
        told("join jump (1 = none)", mean(clip.join_jump for clip in clips)),
    ]


def vae_checks(scores: list[PictureScore]) -> list[Check]:
    """What encoding and decoding keeps."""
    return [
        at_least("VAE PSNR, dB", mean(score.psnr_db for score in scores), 31, 1),
        told("VAE PSNR of the mouth, dB", mean(score.mouth_psnr_db for score in scores), 1),
        told("VAE SSIM", mean(score.ssim for score in scores), 3),
        told("VAE gradient energy of the truth's", mean(score.sharpness for score in scores)),
        told("VAE block edges (truth = 1)", mean(score.blockiness for score in scores)),
    ]


def stage_lip_checks(scores: list[StageLips]) -> list[Check]:
    """Lips after each stage that was given the truth."""
    rows = []
    for stage in dict.fromkeys(score.stage for score in scores):
        own = [score for score in scores if score.stage == stage]
        rows += [
            told(f"{stage}: aperture r", mean(score.aperture_r for score in own), 3),
            told(f"{stage}: amplitude of the truth", mean(score.amplitude for score in own)),
            told(f"{stage}: p/b/m shut", mean(score.closure for score in own)),
        ]
    return rows


def pose_checks(scores: list[LandmarkError]) -> list[Check]:
    """The pipeline's own pose estimator on decoded LR frames."""
    return [
        told("face error, px of 256", mean(score.face_px256 for score in scores)),
        told("lips error, px of 256", mean(score.lips_px256 for score in scores)),
        told("aperture r", mean(score.aperture_r for score in scores), 3),
        told("aperture error, px of 256", mean(score.aperture_px256 for score in scores)),
    ]


def refiner_checks(scores: list[RefinerScore]) -> list[Check]:
    """Refined frames from true LR latents and keypoints, beside enlarged LR."""
    refined = mean(score.refined.psnr_db for score in scores)
    enlarged = mean(score.enlarged.psnr_db for score in scores)
    sharp = mean(score.refined.sharpness for score in scores)
    soft = mean(score.enlarged.sharpness for score in scores)
    return [
        at_least("refiner PSNR, dB", refined, 26, 1),
        Check("enlarged LR PSNR, dB", enlarged, "< refiner", refined > enlarged, 1),
        told("refiner PSNR of the mouth, dB", mean(score.refined.mouth_psnr_db for score in scores), 1),
        told("enlarged LR PSNR of the mouth, dB", mean(score.enlarged.mouth_psnr_db for score in scores), 1),
        told("refiner SSIM", mean(score.refined.ssim for score in scores), 3),
        told("refiner gradient energy of the truth's", sharp),
        Check("enlarged LR gradient energy of the truth's", soft, "< refiner", sharp > soft),
        told("refiner block edges (truth = 1)", mean(score.refined.blockiness for score in scores)),
    ]
