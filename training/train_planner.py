"""Portraits, sound to expression: the speech encoder and the planner together, from hours of speech and no picture.

    python -m training.train_planner training/configs/planner.yaml speech=CORPUS out=RUN

`speech` may be several corpora, separated by commas. Then the prompt encoder and the planner's moods:

    python -m training.train_moods training/configs/moods.yaml weights=RUN/weights out=RUN/moods
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoints import load_component
from models.conditions import AudioEncoder
from models.configs import AudioEncoderConfig, ExpressionPlannerConfig
from models.portrait.planner import MOODS, ExpressionPlanner, Speech
from models.portrait.weights import save_portrait_component
from training.config import parse_run
from training.loop import Figures, LoopConfig, TrainingRun
from training.speech_bank import PHONES, Heard, HearingConfig, SpeechBank, Track, is_synthetic, make_track
from training.synthetic.emotions import EMOTIONS
from training.synthetic.speech import load_corpus
from training.synthetic.visemes import VISEMES, lip_gap_gains
from training.train_lr_a2v import correlation

_SETTLING_FRAMES = 0  # at the start of a segment, whose past is cut off
_LISTENING_FRAMES = 40
_SHUT_AT = 0.028  # eye distances: what counts as shut lips, 1.5 px of a 256 picture


@dataclass(frozen=True)
class PlannerRun:
    speech: str
    out: Path
    start: str = ""  # folder of audio weights to begin with
    encoder: AudioEncoderConfig = field(default_factory=AudioEncoderConfig)
    planner: ExpressionPlannerConfig = field(default_factory=ExpressionPlannerConfig)
    hearing: HearingConfig = field(default_factory=HearingConfig)
    clips_a_voice: int = 10_000  # at most, to begin sooner
    batch: int = 24
    segment_frames: int = 100
    recorded_speeds: tuple[float, ...] = (0.88, 1.0, 1.14)
    synthetic_speeds: tuple[float, ...] = (1.0,)
    aperture_weight: float = 2.0
    gate_weight: float = 0.6
    closure_bonus: float = 2.0  # how much more a missed closure costs than one too many
    phone_weight: float = 0.3
    loop: LoopConfig = field(default_factory=LoopConfig)


class Listener(nn.Module):
    """What is trained: encoder, planner, and heads that only teach: phones, and closures heard one frame later."""

    def __init__(self, run: PlannerRun) -> None:
        super().__init__()
        self.encoder, self.planner = AudioEncoder(run.encoder), ExpressionPlanner(run.planner)
        self.phones = nn.Linear(run.encoder.width, 2 * len(PHONES))
        self.later_closure = nn.Linear(run.encoder.width, 1)
        self.planner.closed_face.copy_(torch.from_numpy(VISEMES["P"]))
        self.planner.mood_faces.copy_(torch.from_numpy(np.stack([EMOTIONS[name].face for name in MOODS])))

    def forward(self, mels: Tensor) -> tuple[Tensor, Speech]:
        tokens = self.encoder(mels)
        return tokens, self.planner.speech(tokens)


def tracks_of(run: PlannerRun, split: str) -> list[Track]:
    """All clips of a split, recorded ones at several speeds."""
    rng = np.random.default_rng(0)
    found: list[Track] = []
    taken: Counter[str] = Counter()
    for folder in run.speech.split(","):
        for clip in load_corpus(Path(folder), split):
            taken[clip.voice] += 1
            if taken[clip.voice] > run.clips_a_voice:
                continue
            speeds = run.synthetic_speeds if is_synthetic(clip.voice) else run.recorded_speeds
            found += [make_track(clip, speed, rng) for speed in (speeds if split == "train" else (1.0,))]
    return found


def aperture(face: Tensor) -> Tensor:
    """Gap between the inner lips of actions [..., 52] in eye distances, negative where lips press: [...]."""
    return (face * torch.from_numpy(lip_gap_gains()).to(face)).sum(-1)


class Loss:
    """Faces, apertures, gates and phones of a batch."""

    def __init__(self, run: PlannerRun, bank: SpeechBank) -> None:
        self.run = run
        sample = bank.face[:: max(1, len(bank.face) // 200_000)].float()
        self.deviation = sample.std(0)
        self.mean = sample.mean(0)
        self.active = self.deviation > 0.01
        self.scale = self.deviation.clamp_min(0.02)[self.active]
        self.aperture_scale = float(aperture(sample).clamp_min(0).std())

    def __call__(self, model: Listener, heard: Heard, tokens: Tensor, speech: Speech) -> tuple[Tensor, Figures]:
        run, keep = self.run, slice(_SETTLING_FRAMES, None)
        face, wanted = speech.face[:, keep], heard.face[:, keep]
        error = ((face - wanted)[..., self.active] / self.scale).square().mean()
        found_gap, gap = aperture(face), aperture(wanted)
        # Below shut is shut: only what can be seen counts.
        found_gap, gap = (F.leaky_relu(x, 0.1) / self.aperture_scale for x in (found_gap, gap))
        gap_error = (found_gap - gap).square().mean() + 1 - concordance(found_gap, gap)
        closure, silence = heard.closure[:, keep], heard.silence[:, keep]
        closing = F.binary_cross_entropy_with_logits(
            speech.closure[:, keep], closure, weight=1 + run.closure_bonus * closure
        )
        quiet = F.binary_cross_entropy_with_logits(speech.silence[:, keep], silence)
        later = model.later_closure(tokens)[:, _SETTLING_FRAMES + 1 :, 0].float()
        later_closing = F.binary_cross_entropy_with_logits(
            later, closure[:, :-1], weight=1 + run.closure_bonus * closure[:, :-1]
        )
        # How long it has been quiet cannot be known of a segment that has just begun.
        manner = (speech.accent[:, keep] - heard.manner[:, keep, 0]).square().mean()
        manner = manner + (speech.listening - heard.manner[..., 1])[:, _LISTENING_FRAMES:].square().mean()
        phones = model.phones(tokens)[:, keep].float().reshape(-1, len(PHONES))
        named = F.cross_entropy(phones, heard.phones[:, keep].reshape(-1))
        gates = closing + quiet + 0.2 * later_closing
        total = error + run.aperture_weight * gap_error + run.gate_weight * gates + manner + run.phone_weight * named
        figures = {"face": error, "gap": gap_error, "closing": closing, "later": later_closing}
        figures |= {"quiet": quiet, "manner": manner, "phones": named}
        return total, {name: value.detach() for name, value in figures.items()}


def concordance(found: Tensor, wanted: Tensor) -> Tensor:
    """Lin's concordance correlation: 1 for the same values, less for less correlation, amplitude or another mean."""
    found_mean, wanted_mean = found.mean(), wanted.mean()
    shared = ((found - found_mean) * (wanted - wanted_mean)).mean()
    spread = found.var(correction=0) + wanted.var(correction=0) + (found_mean - wanted_mean).square()
    return 2 * shared / (spread + 1e-6)


def held_out_figures(model: Listener, tracks: list[Track]) -> dict[str, float]:
    """Of each voice: r of the aperture; of all: p, b, m shut (and shut where none is), pauses shut, amplitude."""
    r: dict[str, list[float]] = {}
    shut, elsewhere, quiet, amplitude = [], [], [], []
    delay = model.encoder.config.look_ahead_frames
    for track in tracks:
        sound = F.pad(torch.from_numpy(track.samples).float() / 32768, (0, delay * 640))
        state = model.encoder.start()
        tokens = model.encoder.step(sound, state)[0][delay:]
        with torch.autocast("cpu", enabled=False):
            speech = model.planner.speech(tokens[None].float())
        found = aperture(speech.face[0].clamp(0, 1)).clamp_min(0).float().numpy()
        wanted = aperture(torch.from_numpy(track.face).float()).clamp_min(0).numpy()
        r.setdefault(track.voice, []).append(correlation(torch.from_numpy(found), torch.from_numpy(wanted)))
        amplitude.append(found.std() / max(wanted.std(), 1e-6))
        asked = track.closure > 0.5
        edges = np.flatnonzero(np.diff(np.concatenate([[False], asked, [False]]).astype(int))).reshape(-1, 2)
        shut += [found[max(a - 1, 0) : b + 1].min() <= _SHUT_AT for a, b in edges]
        near = np.convolve(asked, np.ones(7), mode="same") > 0
        free = np.flatnonzero(~near & (track.silence < 0.01))
        elsewhere += [found[i - 1 : i + 2].min() <= _SHUT_AT for i in free[::3] if i]
        quiet.append(found[track.silence == 1] <= _SHUT_AT)
    figures = {f"r_{voice}": float(np.mean(values)) for voice, values in r.items()}
    figures["r"] = float(np.mean(list(figures.values())))
    return figures | {
        "shut": float(np.mean(shut)),
        "elsewhere": float(np.mean(elsewhere)),
        "quiet": float(np.mean(np.concatenate(quiet))),
        "amplitude": float(np.mean(amplitude)),
    }


def choose(tracks: list[Track], voices_each: int = 6, longest_frames: int = 250) -> list[Track]:
    """A few tracks of every voice, the same ones always."""
    chosen: dict[str, list[Track]] = {}
    for track in tracks:
        own = chosen.setdefault(track.voice, [])
        if len(own) < voices_each and 50 <= track.frame_count <= longest_frames and (track.closure > 0.5).any():
            own.append(track)
    return [track for own in chosen.values() for track in own]


def main() -> None:
    run = parse_run(PlannerRun, "Train the speech encoder and the expression planner of portraits.")
    torch.manual_seed(run.loop.seed)
    torch.set_num_threads(run.loop.threads)
    bank = SpeechBank(tracks_of(run, "train"), run.hearing, run.encoder.mel_bins, run.loop.seed)
    held_out = choose(tracks_of(run, "heldout"))
    print("minutes:", {voice: round(minutes, 1) for voice, minutes in bank.minutes.items()}, flush=True)
    model, loss = Listener(run), Loss(run, bank)
    model.planner.moves_in_speech.copy_(loss.active.float())
    nn.init.normal_(model.planner.face.weight, std=0.01)
    model.planner.face.bias.data.copy_(loss.mean)
    if run.start:
        load_component(Path(run.start), "audio", model.encoder)
    training = TrainingRun(run.out, model, run.loop)
    delay, context = run.encoder.look_ahead_frames, run.encoder.context_frames

    def loss_of_step() -> tuple[Tensor, Figures]:
        heard = bank.batch(run.batch, run.segment_frames, context, delay)
        with training.autocast():
            tokens, speech = model(heard.mels)
        return loss(model, heard, tokens.float(), speech)

    def report(ema: Listener) -> dict[str, float]:
        save_portrait_component(run.out / "weights", "audio", ema.encoder, run.encoder)
        save_portrait_component(run.out / "weights", "planner", ema.planner, run.planner)
        return held_out_figures(ema, held_out)

    training.train(loss_of_step, report)


if __name__ == "__main__":
    main()
