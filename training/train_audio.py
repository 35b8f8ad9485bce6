"""Stage 0: the speech encoder, from sound to the face actions of its visemes.

    python -m training.train_audio training/configs/audio.yaml speech=CORPUS out=RUN

Speech is cheap where pictures are not: an hour of it trains the encoder before any frame is rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.checkpoints import save_component
from models.conditions import MEL_CONTEXT_SAMPLES, SAMPLES_PER_FRAME, AudioEncoder
from models.portrait.face_mesh import FACE_INDEX
from models.presets import preset
from training.config import parse_run
from training.loop import Figures, LoopConfig, TrainingRun
from training.synthetic.script import loudness_track
from training.synthetic.speech import load_corpus
from training.synthetic.visemes import viseme_track
from training.synthetic.voices import resample
from training.train_lr_a2v import correlation


@dataclass(frozen=True)
class AudioRun:
    speech: Path
    out: Path
    preset: str = "presenter-256"
    batch: int = 32
    segment_frames: int = 50
    speeds: tuple[float, ...] = (0.87, 1.0, 1.15)
    gain: float = 0.25  # deviation of the log-mel's level, in its own units (4 nepers of power)
    noise: float = 0.2
    mask_share: float = 0.12
    closure_weight: float = 1.0
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass
class Utterance:
    """mels float16 [4·(context + F), bins], shifted by the look-ahead; face [F, 52]; closure [F]; its voice."""

    mels: Tensor
    face: Tensor
    closure: Tensor
    voice: str


def utterances(run: AudioRun, encoder: AudioEncoder, split: str, speeds: tuple[float, ...]) -> list[Utterance]:
    """Clips of one split of the corpus, with silence around them, at several speeds."""
    config = encoder.config
    found = []
    for clip in load_corpus(run.speech, split):
        recorded = clip.samples()
        for speed in speeds:
            samples = resample(recorded, int(16_000 * speed), 16_000) if speed != 1 else recorded
            frames = -(-len(samples) // SAMPLES_PER_FRAME) + 16
            sound = np.zeros(frames * SAMPLES_PER_FRAME, np.float32)
            sound[8 * SAMPLES_PER_FRAME :][: len(samples)] = samples
            phones = [(p.name, p.start_s / speed + 8 / 25, p.duration_s / speed) for p in clip.phones]
            face, closure = viseme_track(phones, frames, loudness_track(sound, frames))
            before = MEL_CONTEXT_SAMPLES + config.context_frames * SAMPLES_PER_FRAME
            ahead = config.look_ahead_frames * SAMPLES_PER_FRAME
            mels = encoder.log_mel(F.pad(torch.from_numpy(sound), (before, ahead))[None])[0]
            mels = mels[4 * config.look_ahead_frames :]
            found.append(Utterance(mels.half(), torch.from_numpy(face), torch.from_numpy(closure), clip.voice))
    return found


class Segments:
    """Random segments of utterances, with changes of level, colour and noise, drawn where the tensors are."""

    def __init__(self, sources: list[Utterance], run: AudioRun, context_frames: int) -> None:
        sources = [u for u in sources if len(u.face) > run.segment_frames]
        device = run.loop.device
        self.run, self.context = run, context_frames
        self.frames = np.array([len(u.face) for u in sources])
        self.shares = self.frames / self.frames.sum()
        self.first_frame = np.cumsum(self.frames) - self.frames
        # every utterance has the mels of its context too
        self.first_mel = 4 * (self.first_frame + context_frames * np.arange(len(sources)))
        self.mels, self.face, self.closure = (
            torch.cat([getattr(u, name) for u in sources]).to(device) for name in ("mels", "face", "closure")
        )
        self.rng = np.random.default_rng(run.loop.seed)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mels [B, 4·(context + S), bins], face [B, S, 52], closure [B, S]."""
        run, length, device = self.run, self.run.segment_frames, self.mels.device
        picks = self.rng.choice(len(self.frames), run.batch, p=self.shares)
        starts = self.rng.integers(self.frames[picks] - length + 1)
        firsts = np.stack([self.first_frame[picks] + starts, self.first_mel[picks] + 4 * starts])
        first_frame, first_mel = torch.from_numpy(firsts).to(device)[..., None]
        frames = first_frame + torch.arange(length, device=device)
        mels = self.mels[first_mel + torch.arange(4 * (length + self.context), device=device)].float()
        one = torch.ones(run.batch, 1, 1, device=device)
        level = run.gain * torch.randn_like(one) + 0.6 * run.gain * smooth_colour(run.batch, mels.shape[2], device)
        floor = -1.9 + 1.2 * torch.rand_like(one)  # background noise hides what is below it
        mels = torch.logaddexp(4 * (mels + level), 4 * (floor + 0.25 * torch.randn_like(mels))) / 4
        mels = mels + run.noise * torch.rand_like(one) * torch.randn_like(mels)
        mask = torch.rand(run.batch, 1, mels.shape[2], device=device) > run.mask_share
        return mels * mask, self.face[frames], self.closure[frames]


def smooth_colour(batch: int, bins: int, device: torch.device) -> Tensor:
    """Smooth random curves over the bins, [batch, 1, bins], unit deviation: microphones and rooms."""
    knots = torch.randn(batch, 1, 8, device=device)
    return F.interpolate(knots, size=bins, mode="linear", align_corners=True)


def main() -> None:
    run = parse_run(AudioRun, "Train the speech encoder.")
    config = preset(run.preset).audio
    torch.manual_seed(run.loop.seed)
    torch.set_num_threads(run.loop.threads)
    encoder = AudioEncoder(config)
    sources = utterances(run, encoder, "train", run.speeds)
    held_out = utterances(run, encoder, "heldout", (1.0,))
    faces = torch.cat([u.face for u in sources])
    deviation, mean = faces.std(0), faces.mean(0)
    active = deviation > 0.01
    seconds = sum(len(u.face) for u in sources) / 25
    print(f"{seconds / 60:.1f} min of speech at all speeds, {int(active.sum())} active actions", flush=True)
    segments = Segments(sources, run, config.context_frames)
    device = run.loop.device
    encoder.to(device)
    deviation, mean, active = deviation.to(device), mean.to(device), active.to(device)
    training = TrainingRun(run.out, encoder, run.loop)
    jaw = FACE_INDEX["jawOpen"]

    def loss_of_step() -> tuple[Tensor, Figures]:
        mels, face, closure = segments.batch()
        with training.autocast():
            found = encoder.face_head(encoder(mels)).float()
        error = (found - (face - mean) / deviation.clamp_min(0.02))[..., active]
        return (error.square() * (1 + run.closure_weight * closure[..., None])).mean(), {}

    def report(model: AudioEncoder) -> dict[str, float]:
        rows: dict[str, list[float]] = {}
        for u in held_out:
            found = model.face_head(model(u.mels.to(device).float()[None]))[0]
            wanted = (u.face.to(device) - mean) / deviation.clamp_min(0.02)
            rows.setdefault("r_jaw_" + u.voice, []).append(correlation(found[:, jaw], wanted[:, jaw]))
            rows.setdefault("error", []).append(float((found - wanted)[:, active].square().mean()))
        return {name: float(np.mean(values)) for name, values in rows.items()}

    training.train(loss_of_step, report)
    with torch.no_grad():  # the saved head gives plain action values
        scale = torch.where(active, deviation.clamp_min(0.02), torch.zeros_like(deviation))
        training.ema.face_head.weight.mul_(scale[:, None])
        training.ema.face_head.bias.mul_(scale).add_(mean)
    save_component(run.out / "weights", "audio", training.ema)


if __name__ == "__main__":
    main()
