"""Does the canonical planner say the sound: expressions of held-out speech against their truth, no picture needed.

    python -m evaluation.expression --speech CORPUS[,CORPUS] --weights FOLDER --out REPORT.md

The figures are those of `evaluation.lips`, of the gap that the face mesh's lips would show in a 256 picture. Every
clip is heard as it is, and again as a microphone or a telephone would give it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation.lips import (
    amplitude_ratio,
    closed_limit,
    closure_score,
    correlation,
    lag_frames,
    shuffled_correlations,
    silence_score,
)
from evaluation.report import number
from evaluation.takes import FPS, SAMPLE_RATE, silent_frames
from models.checkpoints import shipped_weights
from models.portrait.planner import ExpressionActor
from training.synthetic.script import noise, write_script
from training.synthetic.speech import HELD_OUT_VOICES, Clip, load_corpus
from training.synthetic.visemes import lip_gap, viseme_track

_EYES_PX256 = 53.0  # between the eyes of a 256 picture, mean of four presenters
_TAKE_FRAMES = 20 * FPS
Hear = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class ExpressionScore:
    """Figures of one take, as `evaluation.measures.ClipScore` names them."""

    voice: str
    aperture_r: float
    amplitude: float
    lag_frames: float
    closure: float
    closure_elsewhere: float
    closure_events: int
    silence_motion: float
    silence_share_shut: float


def _noisy(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pink noise 15 dB below the speech."""
    level = np.sqrt(np.mean(samples[np.abs(samples) > 1e-3] ** 2))
    return samples + noise(len(samples), level * 10 ** (-15 / 20), 0.5, rng)


def _telephone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """300 … 3400 Hz, 8-bit µ-law."""
    spectrum = np.fft.rfft(samples)
    frequencies = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    narrow = np.clip(np.fft.irfft(spectrum, len(samples)), -1, 1)
    pressed = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    rounded = np.round(pressed * 127) / 127
    return np.sign(rounded) * np.expm1(np.abs(rounded) * np.log(256)) / 255


HEARD: dict[str, Hear] = {
    "as it is": lambda samples, rng: samples,
    "15 dB quieter": lambda samples, rng: samples * 10 ** (-15 / 20),
    "noise at 15 dB": _noisy,
    "telephone": _telephone,
}


@dataclass(frozen=True)
class SpeechTake:
    """Held-out speech and its truth: samples float [640·T], aperture [T] px256, closure [T], silent [T] bool."""

    voice: str
    samples: np.ndarray
    aperture: np.ndarray
    closure: np.ndarray
    silent: np.ndarray


def speech_takes(clips: list[Clip], each: int, seed: int = 0) -> list[SpeechTake]:
    """`each` takes of 20 s of every voice."""
    takes = []
    for voice in sorted({clip.voice for clip in clips}):
        own = [clip for clip in clips if clip.voice == voice]
        for index in range(each):
            rng = np.random.default_rng([seed, index, *voice.encode()])
            script = write_script(own, _TAKE_FRAMES, rng, is_augmented=False)
            face, closure = viseme_track(script.phones, _TAKE_FRAMES, script.loudness)
            silent = silent_frames(list(script.phones), _TAKE_FRAMES)
            takes.append(SpeechTake(voice, script.samples, _EYES_PX256 * lip_gap(face), closure, silent))
    return takes


def planned_aperture_px256(actor: ExpressionActor, samples: np.ndarray) -> np.ndarray:
    """Aperture [T] of what the planner makes of a sound, neutral."""
    tokens = actor.ears.encode(torch.from_numpy(samples.astype(np.float32)))
    with torch.inference_mode():
        speech = actor.planner.speech(tokens[None])
    return _EYES_PX256 * lip_gap(speech.face[0].clamp(0, 1).numpy())


def score(take: SpeechTake, found: np.ndarray) -> ExpressionScore:
    """Figures of one take, found aperture [T] px256."""
    closed = closed_limit(take.aperture, take.silent)
    closure = closure_score(found, take.closure, closed, take.silent)
    silence = silence_score(found, take.aperture, take.silent, closed)
    return ExpressionScore(
        voice=take.voice,
        aperture_r=correlation(found, take.aperture),
        amplitude=amplitude_ratio(found, take.aperture),
        lag_frames=lag_frames(found, take.aperture),
        closure=closure.share,
        closure_elsewhere=closure.share_elsewhere,
        closure_events=closure.events,
        silence_motion=silence.motion if silence else float("nan"),
        silence_share_shut=silence.share_shut if silence else float("nan"),
    )


def _mean(scores: list[ExpressionScore], name: str) -> float:
    return float(np.nanmean([getattr(s, name) for s in scores]))


def _shut(scores: list[ExpressionScore]) -> float:
    """Share of all closures."""
    events = np.array([s.closure_events for s in scores])
    return float(np.nansum(events * np.array([s.closure for s in scores])) / max(events.sum(), 1))


_COLUMNS: tuple[tuple[str, Callable[[list[ExpressionScore]], float], int], ...] = (
    ("aperture r", lambda s: _mean(s, "aperture_r"), 3),
    ("worst", lambda s: min(x.aperture_r for x in s), 2),
    ("amplitude", lambda s: _mean(s, "amplitude"), 2),
    ("lag", lambda s: _mean(s, "lag_frames"), 2),
    ("p/b/m shut", _shut, 2),
    ("elsewhere", lambda s: _mean(s, "closure_elsewhere"), 2),
    ("pauses shut", lambda s: _mean(s, "silence_share_shut"), 3),
    ("pause motion", lambda s: _mean(s, "silence_motion"), 3),
)


def table(first: str, groups: dict[str, list[ExpressionScore]]) -> str:
    """One row a group."""
    lines = [f"| {first} | takes | " + " | ".join(name for name, _, _ in _COLUMNS) + " |"]
    lines.append("|" + "---|" * (2 + len(_COLUMNS)))
    for name, scores in groups.items():
        cells = [number(figure(scores), digits) for _, figure, digits in _COLUMNS]
        lines.append(f"| {name} | {len(scores)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def evaluate(actor: ExpressionActor, takes: list[SpeechTake]) -> tuple[dict[str, list[ExpressionScore]], float]:
    """Scores of all takes by how they were heard, and the mean r with the truth of other takes."""
    scores, shuffled = {}, float("nan")
    for name, hear in HEARD.items():
        rng = np.random.default_rng(0)
        found = [planned_aperture_px256(actor, hear(take.samples, rng)) for take in takes]
        scores[name] = [score(take, mouth) for take, mouth in zip(takes, found, strict=True)]
        if name == "as it is":
            shuffled = float(np.abs(shuffled_correlations(found, [take.aperture for take in takes]).mean()))
    return scores, shuffled


def main() -> None:
    """Entry of `python -m evaluation.expression`."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.expression", description=__doc__.split("\n")[0])
    parser.add_argument("--speech", required=True, help="folders of speech corpora, separated by commas")
    parser.add_argument("--weights", type=Path, default=shipped_weights("portrait"), help="folder of portrait weights")
    parser.add_argument("--takes", type=int, default=3, help="of every voice")
    parser.add_argument("--out", type=Path, help="report to write, beside it the same as JSON")
    arguments = parser.parse_args()
    clips = [clip for folder in arguments.speech.split(",") for clip in load_corpus(Path(folder), "heldout")]
    takes = speech_takes(clips, arguments.takes)
    torch.set_num_threads(1)
    scores, shuffled = evaluate(ExpressionActor.load(arguments.weights), takes)
    plain = scores["as it is"]
    voices: dict[str, list[ExpressionScore]] = {}
    for one in plain:
        label = f"{one.voice} (never heard)" if one.voice in HELD_OUT_VOICES else one.voice
        voices.setdefault(label, []).append(one)
    report = "\n".join([
        "# Sound to expression, held-out speech",
        "",
        f"- command: `python -m evaluation.expression {shlex.join(sys.argv[1:])}`",
        f"- {len(takes)} takes of 20 s, {sum(s.closure_events for s in plain)} closures",
        f"- with the truth of another take: mean r {number(shuffled, 2)}",
        "",
        table("heard", scores),
        "",
        table("voice, as it is", voices),
        "",
    ])
    print(report)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report)
        rows = {name: [asdict(s) for s in own] for name, own in scores.items()}
        arguments.out.with_suffix(".json").write_text(json.dumps({"shuffled_r": shuffled, "takes": rows}, indent=1))


if __name__ == "__main__":
    main()
