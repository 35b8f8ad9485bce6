"""Measure a preset's weights on held-out takes and write tables and contact sheets.

    python -m evaluation --data TAKES --weights FOLDER --out REPORT
    python -m evaluation --data TAKES --truth --out REPORT      # the same of the true videos: the ceiling
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from evaluation import checks, sheets
from evaluation.generate import Generated, generate, long_sound, quiet_sound
from evaluation.identity import FaceRecogniser, similarity
from evaluation.landmarks import LandmarkError, LandmarkRegressor
from evaluation.measures import (
    ClipScore,
    LongScore,
    Mouth,
    SilenceClipScore,
    StageLips,
    make_instruments,
    score_clip,
    score_long,
    score_silence,
    score_stage_lips,
)
from evaluation.report import write_report
from evaluation.stages import (
    PictureScore,
    RefinerScore,
    picture_score,
    pose_score,
    refine_true,
    refiner_score,
    resize,
    through_vae,
)
from evaluation.takes import Take, choose_takes, group_by_presenter, read_picture, read_takes
from models.motion import motion_frames
from models.pipeline import AvatarPipeline

_SILENT_PROMPT = "neutral"
_FIT_TAKES = 8  # further takes of a presenter that landmarks are fitted on


@dataclass
class Findings:
    """Everything measured in one run."""

    clips: list[ClipScore] = field(default_factory=list)
    mouths: list[Mouth] = field(default_factory=list)
    silences: list[SilenceClipScore] = field(default_factory=list)
    longs: list[LongScore] = field(default_factory=list)
    vae: list[PictureScore] = field(default_factory=list)
    refiner: list[RefinerScore] = field(default_factory=list)
    pose: list[LandmarkError] = field(default_factory=list)
    stage_lips: list[StageLips] = field(default_factory=list)
    regressors: dict[str, LandmarkRegressor] = field(default_factory=dict)  # by take name
    pictures: list[Path] = field(default_factory=list)
    generated_s: float = 0.0
    compute_s: float = 0.0


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m evaluation", description="Measure an avatar on held-out takes.")
    parser.add_argument("--data", type=Path, required=True, help="folder of takes")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the report to")
    parser.add_argument("--preset", default="presenter-256")
    parser.add_argument("--weights", type=Path, help="weights folder; default: those of the package")
    parser.add_argument("--truth", action="store_true", help="score the true videos instead of generated ones")
    parser.add_argument("--split", default="heldout", help="takes to measure")
    parser.add_argument("--fit-split", default="train", help="split of further takes to fit landmarks on, if there")
    parser.add_argument("--clips", type=int, help="measure this many clips, spread over presenters; default: all")
    parser.add_argument("--silence", type=float, default=16, help="seconds of a silent clip a presenter, 0 = none")
    parser.add_argument("--long", type=float, default=60, help="seconds of the drift clip, 0 = none")
    parser.add_argument("--long-count", type=int, default=2, help="presenters that get a drift clip")
    parser.add_argument("--stage-clips", type=int, default=4, help="clips through VAE and refiner alone, 0 = none")
    parser.add_argument("--no-identity", action="store_true", help="leave out what needs dlib")
    parser.add_argument("--chunk", type=int, default=3, help="latents of a chunk, 1 to 6")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--title", default="Evaluation")
    return parser.parse_args(arguments)


def measure_presenter(
    takes: list[Take], others: list[Take], pipeline: AvatarPipeline | None, recogniser: FaceRecogniser | None,
    options: argparse.Namespace, findings: Findings,
) -> None:
    """Clips and silence of one presenter; pipeline None measures the true videos."""
    instruments = make_instruments(takes, others, options.seed)
    findings.regressors |= {name: instrument.regressor for name, instrument in instruments.items()}
    reference = read_picture(takes[0].reference)
    first = len(findings.mouths)
    for take in takes:
        true = take.frames()
        made = Generated(true, true, [], 0.0)
        if pipeline is not None:
            made = generate(pipeline, reference, take.samples, take.prompt, options.seed, options.chunk)
        instrument = instruments[take.name]
        score, mouth = score_clip(take, made.frames, true, made.joins, instrument, recogniser, reference)
        findings.clips.append(score)
        findings.mouths.append(mouth)
        findings.generated_s += len(made.frames) / 25
        findings.compute_s += made.compute_s
        findings.pictures.append(write_sheet(options.out, take, true, made, mouth))
    if pipeline is not None and options.silence:
        sound = quiet_sound(options.silence, options.seed)
        frames = generate(pipeline, reference, sound, _SILENT_PROMPT, options.seed, options.chunk).frames
        plan = motion_frames(options.seed, 0, len(frames))
        regressor = instruments[takes[0].name].regressor
        silence = score_silence(takes, frames, plan, regressor, findings.mouths[first:])
        findings.silences.append(silence)
        path = options.out / "sheets" / f"silence-{takes[0].presenter}.jpg"
        sheets.contact_sheet(path, {"silence": frames}, sheets.even_moments(len(frames), 10))
        findings.pictures.append(path)


def write_sheet(folder: Path, take: Take, true: np.ndarray, made: Generated, mouth: Mouth) -> Path:
    """Contact sheet of a clip at its closures and widest openings."""
    path = folder / "sheets" / f"{take.name}.jpg"
    count = min(len(true), len(made.frames))
    moments = sheets.telling_moments(mouth.exact[:count], take.closure[:count], 10)
    rows = {"truth": true, "LR": made.small_frames, "HR": made.frames}
    sheets.contact_sheet(path, rows, moments)
    return path


def measure_long(
    takes: list[Take], pipeline: AvatarPipeline, recogniser: FaceRecogniser | None, options: argparse.Namespace,
    findings: Findings,
) -> None:
    """Drift of one presenter over a long clip."""
    reference, presenter = read_picture(takes[0].reference), takes[0].presenter
    sound = long_sound(takes, options.long)
    made = generate(pipeline, reference, sound, takes[0].prompt, options.seed, options.chunk)
    findings.longs.append(score_long(presenter, made.frames, made.joins, reference, recogniser))
    path = options.out / "sheets" / f"long-{presenter}.jpg"
    sheets.contact_sheet(path, {"long": made.frames}, sheets.even_moments(len(made.frames), 10))
    findings.pictures.append(path)


def measure_stages(
    takes: list[Take], pipeline: AvatarPipeline, options: argparse.Namespace, findings: Findings
) -> None:
    """VAE and refiner alone, on true frames resized to the pipeline's size."""
    for take in takes:
        true = resize(take.frames(), pipeline.frame_size)
        decoded = through_vae(pipeline, true)
        findings.vae.append(picture_score(decoded, true[: len(decoded)], take.keypoints))
        refined, small = refine_true(pipeline, take, true)
        findings.refiner.append(refiner_score(refined, small, true, take.keypoints))
        regressor = findings.regressors[take.name]
        for stage, frames in (("VAE", decoded), ("decoded LR", small), ("refiner from true inputs", refined)):
            findings.stage_lips.append(score_stage_lips(stage, take, frames, regressor))
        findings.pose.append(pose_score(pipeline, small, take.keypoints))
        path = options.out / "sheets" / f"refiner-{take.name}.jpg"
        rows = {"truth": true, "LR x2": resize(small, pipeline.frame_size), "refined": refined}
        sheets.contact_sheet(path, rows, sheets.even_moments(len(refined), 6), side=256)
        findings.pictures.append(path)


def similarity_between(references: list[np.ndarray], recogniser: FaceRecogniser) -> float:
    """Mean similarity of different presenters' reference pictures: the scale's other end."""
    faces = [face for face in map(recogniser.describe, references) if face is not None]
    pairs = [similarity(a, b) for i, a in enumerate(faces) for b in faces[:i]]
    return float(np.mean(pairs)) if pairs else float("nan")


def run(options: argparse.Namespace) -> Path:
    """Measure all and write the report; returns the path of `report.md`."""
    started = time.perf_counter()
    found = read_takes(options.data, options.split)
    if not found:
        raise ValueError(f"no finished take of split {options.split!r} in {options.data}")
    takes = choose_takes(found, options.clips)
    others = [take for take in found if take not in takes] + read_takes(options.data, options.fit_split)
    pipeline = None if options.truth else AvatarPipeline.load(options.preset, options.weights, options.device)
    recogniser = None if options.no_identity else FaceRecogniser()
    (options.out / "sheets").mkdir(parents=True, exist_ok=True)
    findings, groups = Findings(), group_by_presenter(takes)
    for presenter, own in tqdm(groups.items(), desc="presenters"):
        further = [take for take in others if take.presenter == presenter][:_FIT_TAKES]
        measure_presenter(own, further, pipeline, recogniser, options, findings)
    if pipeline is not None:
        for own in tqdm(list(groups.values())[: options.long_count if options.long else 0], desc="long clips"):
            measure_long(own, pipeline, recogniser, options, findings)
        measure_stages(takes[: options.stage_clips], pipeline, options, findings)
    between = float("nan")
    if recogniser:
        between = similarity_between([read_picture(own[0].reference) for own in groups.values()], recogniser)
    return write_report(
        options.out, options.title, facts_of(options, findings, started), sections_of(findings, between),
        findings.clips, findings.longs, details_of(findings), findings.pictures,
    )


def sections_of(findings: Findings, between_presenters: float) -> dict[str, list[checks.Check]]:
    """Checks by section."""
    control = checks.control_checks(findings.clips, findings.mouths)
    sections = {"Lips": checks.lip_checks(findings.clips), "Control": control}
    sections["Silence"] = checks.silence_checks(findings.silences) if findings.silences else []
    sections["Life while speaking"] = checks.life_checks(findings.clips)
    if any(clip.faces_found >= 0 for clip in findings.clips):
        sections["Identity"] = checks.identity_checks(findings.clips, between_presenters)
    sections["Picture"] = checks.picture_checks(findings.clips)
    sections["Long"] = checks.long_checks(findings.longs) if findings.longs else []
    sections["VAE"] = checks.vae_checks(findings.vae) if findings.vae else []
    sections["Refiner from true inputs"] = checks.refiner_checks(findings.refiner) if findings.refiner else []
    sections["Lips after each stage given the truth"] = checks.stage_lip_checks(findings.stage_lips)
    sections["Keypoints of the pose estimator, decoded LR"] = checks.pose_checks(findings.pose) if findings.pose else []
    return sections


def facts_of(options: argparse.Namespace, findings: Findings, started: float) -> dict[str, str]:
    """What is needed to see the same figures again."""
    facts = {
        "command": f"`python -m evaluation {shlex.join(sys.argv[1:])}`",
        "measured": "the true videos" if options.truth else f"preset {options.preset}, seed {options.seed}",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
        "wall time": f"{time.perf_counter() - started:.0f} s",
    }
    if findings.compute_s:
        facts["compute"] = f"{findings.compute_s / findings.generated_s:.2f} s a second of video"
    return facts


def details_of(findings: Findings) -> dict[str, Any]:
    """What goes into the JSON beside the checks and clips."""
    return {
        "silence": findings.silences, "vae": findings.vae, "refiner": findings.refiner,
        "pose": findings.pose,
        "stage_lips": findings.stage_lips,
    }


def main() -> int:
    """Entry point; one clear sentence and status 1 for bad input."""
    options = parse_arguments()
    try:
        report = run(options)
    except (ValueError, OSError) as error:
        print(f"evaluation: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
