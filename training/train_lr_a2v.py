"""Stages 2 and 4: LR-A2V by flow matching (Eq. 1–3), then on the few steps that serve.

    python -m training.train_lr_a2v training/configs/lr_a2v.yaml latents=LATENTS out=RUN
    python -m training.train_lr_a2v training/configs/lr_few_step.yaml latents=LATENTS out=RUN2 start=RUN/weights

The second stage is the first with every timestep on the grid of the serving sampler and a falling rate: with
the motion plan given, little is left to chance, and the conditional mean of one step is sharp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoints import load_component, save_component
from models.conditions import TextEncoder
from models.configs import Preset
from models.lr_a2v import LRA2V
from models.pose import EYES
from models.presets import preset
from models.sampling import noised
from training.config import parse_run
from training.latents import (
    LIPS,
    Streams,
    TakeBank,
    TakeLatents,
    aperture,
    load_channel_weights,
    load_latents,
    own_motion_latents,
    region_weights,
    shaken,
)
from training.loop import Figures, LoopConfig, TrainingRun


@dataclass(frozen=True)
class LRA2VRun:
    """`timestep_grid` > 0 draws t from 0, 1/grid, …; 0 draws `clean_start_share` at 0, the rest logit-normal(-0.5).

    `text`: weights folder whose prompt encoder is kept as it is, since the animator was trained with it; without an
    animator it is empty, and the prompt encoder learns here.
    """

    latents: Path
    out: Path
    preset: str = "presenter-256"
    start: str = ""
    text: str = ""
    batch: int = 6
    timestep_grid: int = 0
    clean_start_share: float = 0.6
    restart_share: float = 0.1  # of streams that are put elsewhere before a window, with true motion latents
    drop_text: float = 0.1
    drop_audio: float = 0.1
    drop_motion_latents: float = 0.2
    neutral_reference: float = 0.8
    motion_noise: float = 0.35
    token_noise: float = 0.15
    mouth_weight: float = 8.0
    eye_weight: float = 3.0
    lip_weight: float = 0.25
    closure_weight: float = 2.0  # further weight of the lips' error where p, b, m shut them
    loop: LoopConfig = field(default_factory=LoopConfig)


Report = Callable[["Conditioned"], dict[str, float]]


class Conditioned(nn.Module):
    """LR-A2V and the prompt encoder, which learn together."""

    def __init__(self, config: Preset) -> None:
        super().__init__()
        self.lr_a2v, self.text = LRA2V(config.lr_a2v), TextEncoder(config.text)


@dataclass
class Batch:
    """clean [B, C, n, h, w]; reference [B, C, 1, h, w]; motion_latents [B, C, m, h, w]; audio [B, 1, 1 + m + n, K, D];
    motion [B, 1 + m + n, 4, M]; weights [B, n, h, w]; corners [B, n, 2] of lip crops; closure [B, n, 4]; prompts;
    base [B, C, n, h, w] where there is an animator."""

    clean: Tensor
    reference: Tensor
    motion_latents: Tensor
    audio: Tensor
    motion: Tensor
    weights: Tensor
    corners: Tensor
    closure: Tensor
    prompts: list[str]
    base: Tensor | None


CROP_ROWS, CROP_COLUMNS = 5, 6


class Windows:
    """The windows of a batch of streams, with everything that LR-A2V is given, on the takes' device.

    `carry` hands in what the model made of a window; the next window of the stream has it as its motion latents.
    """

    def __init__(self, bank: TakeBank, run: LRA2VRun, config: Preset, seed: int, augment: bool) -> None:
        self.bank, self.run, self.config, self.augment = bank, run, config, augment
        self.rng = np.random.default_rng(seed)
        restart = run.restart_share if augment else 0.0
        self.streams = Streams(self.bank.counts, run.batch, config.motion_latents, restart)
        self.pick = torch.full((run.batch,), -1, device=self.bank.device)
        self.made: Tensor | None = None

    def batch(self, motion_latents: int, new: int) -> Batch:
        rng, run, bank, count = self.rng, self.run, self.bank, motion_latents + new
        self.streams.place(rng, new)
        takes, first = bank.index(self.streams, motion_latents)
        size = len(takes)
        fresh = torch.from_numpy(self.streams.is_fresh.copy()).to(bank.device)
        audio = bank.audio_windows(takes, first, count, self.config.lr_a2v.audio_window)
        motion = bank.windows(bank.motion, takes, first, count).unflatten(1, (-1, 4))
        prompts = [bank.prompts[take] for take in self.streams.takes]
        if self.augment:
            share = torch.rand(size, 1, 1, 1, device=audio.device)
            audio = audio + run.token_noise * share * torch.randn_like(audio)
            audio = audio * (torch.rand_like(share) >= run.drop_audio)
            prompts = [prompt if rng.random() >= run.drop_text else "" for prompt in prompts]
            self.pick = torch.where(fresh, bank.pick(rng, size, run.neutral_reference), self.pick)
        other_motion = bank.further["motion"][takes, self.pick] * (self.pick >= 0)[:, None]
        reference_motion = other_motion[:, None, None].expand(-1, 1, 4, -1)
        shown = first + motion_latents
        keypoints = bank.windows(bank.keypoints, takes, shown, new).flatten(0, 1)
        cells = self.config.lr_latent_size[0]
        weights = 1 + run.mouth_weight * region_weights(keypoints, LIPS, cells, 1.6)
        weights = weights + run.eye_weight * region_weights(keypoints, EYES, cells, 3.0)
        latents = bank.windows(bank.latents["lr"], takes, first, count).transpose(1, 2)
        truth = latents[:, :, :motion_latents]
        return Batch(
            clean=latents[:, :, motion_latents:],
            reference=bank.reference("lr", takes, self.pick)[:, :, None],
            motion_latents=own_motion_latents(self.made, truth, fresh),
            audio=torch.cat([torch.zeros_like(audio[:, :1]), audio], dim=1)[:, None],
            motion=torch.cat([reference_motion, motion], dim=1),
            weights=weights.unflatten(0, (size, new)),
            corners=lip_corners(keypoints, cells).unflatten(0, (size, new)),
            closure=bank.windows(bank.closure, takes, shown, new).unflatten(1, (-1, 4)),
            prompts=prompts,
            base=bank.base("lr", takes, shown, new),
        )

    def carry(self, batch: Batch, denoised: Tensor) -> None:
        """Go on behind a window, with what was made of it [B, C, n, h, w] as the past."""
        past = torch.cat([batch.motion_latents, denoised.detach()], dim=2)
        self.made = past[:, :, -self.config.motion_latents :]
        self.streams.advance(denoised.shape[2])


def lip_corners(keypoints: Tensor, size: int) -> Tensor:
    """Keypoints [4T, 143, 3] → top-left cells (row, column) [T, 2] of lip crops on a grid of size × size."""
    centres = keypoints[:, LIPS, :2].mean(1).unflatten(0, (-1, 4)).mean(1) * size
    corner = torch.stack([centres[:, 1] - CROP_ROWS / 2, centres[:, 0] - CROP_COLUMNS / 2], dim=1).round()
    return corner.clamp_min(0).minimum(corner.new_tensor([size - CROP_ROWS, size - CROP_COLUMNS])).long()


def lip_crops(latents: Tensor, corners: Tensor) -> Tensor:
    """Latents [B, C, n, h, w], corners [B, n, 2] → [B, n, C·rows·columns]."""
    rows = corners[..., 0, None] + torch.arange(CROP_ROWS, device=latents.device)
    columns = corners[..., 1, None] + torch.arange(CROP_COLUMNS, device=latents.device)
    batch = torch.arange(len(latents), device=latents.device)[:, None, None, None]
    frame = torch.arange(latents.shape[2], device=latents.device)[None, :, None, None]
    crops = latents.permute(0, 2, 3, 4, 1)[batch, frame, rows[..., :, None], columns[..., None, :]]
    return crops.flatten(2)


def fit_lip_probe(takes: list[TakeLatents], size: int, penalty: float = 300.0) -> tuple[Tensor, float]:
    """Ridge regression from lip crops of latents to the apertures of their four frames, in deviations.

    Returns:
        weights [C·rows·columns, 4], and the correlation on the takes it was fitted on.
    """
    crops, targets = [], []
    for take in takes:
        keypoints = take.tensors["keypoints"]
        crops.append(lip_crops(take.tensors["lr"].float()[None], lip_corners(keypoints, size)[None])[0])
        targets.append(aperture(keypoints).view(-1, 4))
    x, y = torch.cat(crops), torch.cat(targets)
    x, y = x - x.mean(0), (y - y.mean(0)) / y.std()
    weights = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], device=x.device), x.T @ y)
    return weights, correlation(x @ weights, y)


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation of two tensors of one shape, in double precision; 0 where one of them does not move."""
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1].nan_to_num())


def predict(model: Conditioned, batch: Batch, t: Tensor, motion_noise: float = 0.0) -> Tensor:
    """Noise the new latents to t [B] (Eq. 1), keep reference and motion clean (Eq. 6), predict them in float32."""
    motion = shaken(batch.motion_latents, motion_noise)
    window = torch.cat([batch.reference, motion, noised(batch.clean, torch.randn_like(batch.clean), t)], dim=2)
    new = batch.clean.shape[2]
    timesteps = torch.cat([t.new_ones(len(t), window.shape[2] - new), t[:, None].expand(-1, new)], dim=1)
    text = model.text(model.text.tokenize(batch.prompts).to(t.device))
    return model.lr_a2v(window, timesteps, new, text, batch.audio, batch.motion, base=batch.base).float()


def make_report(held_out: list[TakeLatents], run: LRA2VRun, config: Preset, probe: Tensor) -> Report:
    """Held-out figures of one step from noise: error (all, mouth), apertures with true and with shuffled sound tokens.
    The base is the true sound's in both.

    Measured as it serves: on the third window of streams that start without motion latents and go on from their own.
    """
    new, streams, bank = config.chunk_latents, 36, TakeBank(held_out)

    def report(model: Conditioned) -> dict[str, float]:
        torch.manual_seed(1)
        windows = Windows(bank, replace(run, batch=streams), config, 7, augment=False)
        zero = torch.zeros(streams, device=bank.device)
        for motion_latents in (0, config.motion_latents, config.motion_latents):
            with torch.autocast(bank.device.type, enabled=False):
                batch = windows.batch(motion_latents, new)
            denoised = predict(model, batch, zero)
            windows.carry(batch, denoised)
        shuffled = predict(model, replace(batch, audio=batch.audio.roll(1, 0)), zero)
        error = (denoised - batch.clean).square().mean(1)
        still = (batch.reference - batch.clean).square().mean(1)
        mouth = batch.weights - 1
        truth, lips, lips_shuffled = (lip_crops(x, batch.corners) @ probe for x in (batch.clean, denoised, shuffled))
        return {
            "error": float(error.mean()),
            "error_face": float((error * mouth).sum() / mouth.sum()),
            "reference_face": float((still * mouth).sum() / mouth.sum()),
            "lips_r": correlation(lips, truth),
            "lips_r_shuffled": correlation(lips_shuffled, truth),
            "lips_amplitude": float(lips.std() / truth.std()),
        }

    return report


def main() -> None:
    run = parse_run(LRA2VRun, "Train LR-A2V.")
    config = preset(run.preset)
    torch.manual_seed(run.loop.seed)
    device = run.loop.device
    training_takes, held_out = (load_latents(run.latents, heldout, device) for heldout in (False, True))
    model = Conditioned(config)
    if run.start:
        load_component(Path(run.start), "lr_a2v", model.lr_a2v)
        load_component(Path(run.start), "text", model.text)
    if run.text:
        load_component(Path(run.text), "text", model.text)
        model.text.requires_grad_(False)
    model.to(device)
    channels = load_channel_weights(run.latents, device)
    probe, fit = fit_lip_probe(training_takes, config.lr_latent_size[0])
    print(f"takes {len(training_takes)}, held out {len(held_out)}, lip probe r {fit:.3f}", flush=True)
    windows = Windows(TakeBank(training_takes), run, config, run.loop.seed + 1, augment=True)
    report = make_report(held_out, run, config, probe)
    training = TrainingRun(run.out, model, run.loop)
    rng = np.random.default_rng(run.loop.seed + training.step)

    def draw_timesteps() -> Tensor:
        if run.timestep_grid:
            return torch.randint(run.timestep_grid, (run.batch,), device=device) / run.timestep_grid
        t = torch.sigmoid(torch.randn(run.batch, device=device) - 0.5)
        return torch.where(torch.rand(run.batch, device=device) < run.clean_start_share, torch.zeros_like(t), t)

    def loss_of_step() -> tuple[Tensor, Figures]:
        new = config.chunk_latents if rng.random() < 0.8 else int(rng.integers(1, 7))
        motion_latents = 0 if rng.random() < run.drop_motion_latents else config.motion_latents
        batch = windows.batch(motion_latents, new)
        t = draw_timesteps()
        with training.autocast():
            denoised = predict(model, batch, t, run.motion_noise)
        windows.carry(batch, denoised)
        error = denoised - batch.clean
        scale = 1 / (1 - t).clamp_min(0.25)
        pixels = ((error.square() * channels).mean(1) * batch.weights * scale[:, None, None, None]).mean()
        lips = (lip_crops(error, batch.corners) @ probe).square() * (1 + run.closure_weight * batch.closure)
        lips = (lips.mean((1, 2)) * scale).mean()
        return pixels + run.lip_weight * lips, {"pixels": pixels.detach(), "lips": lips.detach()}

    training.train(loss_of_step, report)
    save_component(run.out / "weights", "lr_a2v", training.ema.lr_a2v)
    save_component(run.out / "weights", "text", training.ema.text)


if __name__ == "__main__":
    main()
