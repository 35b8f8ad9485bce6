"""Stages 5 to 7: PG-Refiner by masked flow matching (Eq. 5–8), then on the one step that serves.

python -m training.train_refiner training/configs/refiner.yaml latents=LATENTS out=RUN
python -m training.train_refiner training/configs/refiner_one_step.yaml latents=LATENTS out=RUN2 start=RUN/weights
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kernels.low_pass import low_pass
from models.checkpoints import load_component, save_component
from models.configs import Preset
from models.pose import BACKGROUND, PERSON_POINTS, pose_tokens
from models.presets import preset
from models.refiner import PGRefiner, upsample_latents
from models.sampling import noised
from training.config import parse_run
from training.latents import (
    LIPS,
    Streams,
    TakeBank,
    TakeLatents,
    load_channel_weights,
    load_latents,
    own_motion_latents,
    region_weights,
    shaken,
)
from training.loop import Figures, LoopConfig, TrainingRun


@dataclass(frozen=True)
class RefinerRun:
    """`crop` in HR latents, a multiple of the attention window's 16; 32 is the whole picture at 256²."""

    latents: Path
    out: Path
    preset: str = "presenter-256"
    start: str = ""
    batch: int = 6
    crop: int = 16
    clean_start_share: float = 0.75  # share of windows at t = 0
    restart_share: float = 0.15  # of streams that are put elsewhere before a window, with true motion latents
    drop_pose: float = 0.2
    drop_lr: float = 0.2
    drop_motion_latents: float = 0.15
    neutral_reference: float = 0.85
    motion_noise: float = 0.3
    keypoint_noise: float = 0.0015
    face_weight: float = 3.0
    mouth_weight: float = 6.0
    eye_weight: float = 4.0
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass
class Batch:
    """clean [B, C, n, H, W], reference [B, C, 1, H, W], motion_latents [B, C, m, H, W],
    degraded [B, C, 1 + m + n, H, W], pose [B, 1 + m + n, tokens, 512], weights [B, n, H, W],
    base [B, C, n, H, W] where there is an animator."""

    clean: Tensor
    reference: Tensor
    motion_latents: Tensor
    degraded: Tensor
    pose: Tensor
    weights: Tensor
    base: Tensor | None


class Windows:
    """The windows of a batch of streams of HR latents, or of one crop each, with degraded LR latents and pose tokens.

    `carry` hands in what the model made of a window; the next window of the stream has it as its motion latents.
    """

    def __init__(
        self, bank: TakeBank, run: RefinerRun, config: Preset, seed: int, crop: int, augment: bool
    ) -> None:
        self.bank, self.run, self.config, self.crop, self.augment = bank, run, config, crop, augment
        self.rng = np.random.default_rng(seed)
        restart = run.restart_share if augment else 0.0
        self.streams = Streams(self.bank.counts, run.batch, config.motion_latents, restart)
        self.pick = torch.full((run.batch,), -1, device=self.bank.device)
        self.corners = np.zeros((run.batch, 2), np.int64)
        self.made: Tensor | None = None

    def batch(self, motion_latents: int, new: int) -> Batch:
        rng, run, bank, config, count = self.rng, self.run, self.bank, self.config, motion_latents + new
        self.streams.place(rng, new)
        takes, first = bank.index(self.streams, motion_latents)
        size, cells, grid, crop = len(takes), config.hr_latent_size[0], config.lr_latent_size, self.crop
        fresh = torch.from_numpy(self.streams.is_fresh.copy()).to(bank.device)
        neutral = run.neutral_reference if self.augment else 1.0
        self.pick = torch.where(fresh, bank.pick(rng, size, neutral), self.pick)
        self.corners = np.where(self.streams.is_fresh[:, None], self._corners(size, cells, crop), self.corners)
        corners = torch.from_numpy(self.corners).to(bank.device)
        pose = pose_tokens(self._keypoints(takes, first, self.pick, count), *grid).unflatten(2, grid).movedim(-1, 2)
        pose = crops(pose, corners // 2, crop // 2).movedim(2, -1).flatten(2, 3)
        shown_lr = bank.latents["shown_lr" if "shown_lr" in bank.latents else "lr"]
        lr = bank.windows(shown_lr, takes, first, count).transpose(1, 2)
        filtered = low_pass(lr, config.low_pass_sigma)
        degraded = upsample_latents(filtered + config.degradation_noise * torch.randn_like(lr))
        degraded = torch.cat([torch.zeros_like(degraded[:, :, :1]), degraded], dim=2)
        if self.augment:
            pose = pose * (torch.rand(size, 1, 1, 1, device=bank.device) >= run.drop_pose)
            degraded = degraded * (torch.rand(size, 1, 1, 1, 1, device=bank.device) >= run.drop_lr)
        keypoints = bank.windows(bank.keypoints, takes, first + motion_latents, new).flatten(0, 1)
        weights = 1 + run.mouth_weight * region_weights(keypoints, LIPS, cells, 3.0)
        weights = weights + run.face_weight * region_weights(keypoints, slice(0, 48), cells, 8.0)
        for eye in (slice(36, 42), slice(42, 48)):
            weights = weights + run.eye_weight * region_weights(keypoints, eye, cells, 2.0)
        latents = crops(bank.windows(bank.latents["hr"], takes, first, count).transpose(1, 2), corners, crop)
        base = bank.base("hr", takes, first + motion_latents, new)
        return Batch(
            clean=latents[:, :, motion_latents:],
            reference=crops(bank.reference("hr", takes, self.pick)[:, :, None], corners, crop),
            motion_latents=own_motion_latents(self.made, latents[:, :, :motion_latents], fresh),
            degraded=crops(degraded, corners, crop),
            pose=pose,
            weights=crops(weights.unflatten(0, (size, new)), corners, crop),
            base=None if base is None else crops(base, corners, crop),
        )

    def carry(self, batch: Batch, denoised: Tensor) -> None:
        """Go on behind a window, with what was made of it [B, C, n, H, W] as the past."""
        past = torch.cat([batch.motion_latents, denoised.detach()], dim=2)
        self.made = past[:, :, -self.config.motion_latents :]
        self.streams.advance(denoised.shape[2])

    def _corners(self, size: int, full: int, crop: int) -> np.ndarray:
        """Top-left corners int64 [size, 2] (row, column) on even cells (patch 2), more often than not near the face."""
        room = max(full - crop, 0) // 2
        near = np.clip(np.round(self.rng.normal((0.45, 0.5), (0.2, 0.22), (size, 2)) * room), 0, room).astype(int)
        anywhere = self.rng.integers(room + 1, size=(size, 2))
        return 2 * np.where(self.rng.random((size, 1)) < 0.65, near, anywhere)

    def _keypoints(self, takes: Tensor, first: Tensor, pick: Tensor, count: int) -> Tensor:
        """Of the reference, four times, and of the window: [B, 4·(1 + count), 143, 3]; the room is the reference's."""
        bank, run = self.bank, self.run
        reference = bank.reference("keypoints", takes, pick)[:, None].expand(-1, 4, -1, -1)
        keypoints = torch.cat([reference, bank.windows(bank.seen, takes, first, count)], dim=1)
        keypoints[:, :, BACKGROUND] = bank.references["keypoints"][bank.presenters[takes]][:, None, BACKGROUND]
        if self.augment:
            shake = torch.randn_like(keypoints[:, :, :PERSON_POINTS, :2])
            shake = shake * torch.rand(len(keypoints), 1, 1, 1, device=keypoints.device)
            keypoints[:, :, :PERSON_POINTS, :2] += run.keypoint_noise * shake
        return keypoints


def crops(maps: Tensor, corners: Tensor, size: int) -> Tensor:
    """Maps [B, …, H, W], corners int64 [B, 2] (row, column) → [B, …, size, size]; whole maps that are no larger."""
    if size >= maps.shape[-1]:
        return maps
    steps = torch.arange(size, device=maps.device)
    ones = [1] * (maps.ndim - 3)
    rows = (corners[:, :1] + steps).view(-1, *ones, size, 1).expand(*maps.shape[:-2], size, maps.shape[-1])
    columns = (corners[:, 1:] + steps).view(-1, *ones, 1, size).expand(*maps.shape[:-2], size, size)
    return maps.gather(-2, rows).gather(-1, columns)


def predict(model: PGRefiner, batch: Batch, t: Tensor, motion_noise: float = 0.0) -> Tensor:
    """Noise the new latents to t [B], keep reference and motion clean (Eq. 6), predict them in float32."""
    motion = shaken(batch.motion_latents, motion_noise)
    window = torch.cat([batch.reference, motion, noised(batch.clean, torch.randn_like(batch.clean), t)], dim=2)
    new = batch.clean.shape[2]
    timesteps = torch.cat([t.new_ones(len(t), window.shape[2] - new), t[:, None].expand(-1, new)], dim=1)
    return model(window, timesteps, new, batch.degraded, batch.pose, batch.base).float()


def make_report(
    held_out: list[TakeLatents], run: RefinerRun, config: Preset
) -> Callable[[PGRefiner], dict[str, float]]:
    """Held-out figures of one step on whole pictures: error (all, face), without pose, without LR; reference.

    Measured as it serves: on the third window of streams that start without motion latents and go on from their own.
    """
    new, streams, bank = config.chunk_latents, 8, TakeBank(held_out)

    def report(model: PGRefiner) -> dict[str, float]:
        torch.manual_seed(1)
        cells = config.hr_latent_size[0]
        windows = Windows(bank, replace(run, batch=streams), config, 7, crop=cells, augment=False)
        zero = torch.zeros(streams, device=bank.device)
        for motion_latents in (0, config.motion_latents, config.motion_latents):
            with torch.autocast(bank.device.type, enabled=False):
                batch = windows.batch(motion_latents, new)
            denoised = predict(model, batch, zero)
            windows.carry(batch, denoised)
        weight = batch.weights - 1

        def face(made: Tensor) -> float:
            return float(((made - batch.clean).square().mean(1) * weight).sum() / weight.sum())

        return {
            "error": float((denoised - batch.clean).square().mean()),
            "error_face": face(denoised),
            "without_pose": face(predict(model, replace(batch, pose=torch.zeros_like(batch.pose)), zero)),
            "without_lr": face(predict(model, replace(batch, degraded=torch.zeros_like(batch.degraded)), zero)),
            "reference_face": face(batch.reference),
        }

    return report


def main() -> None:
    run = parse_run(RefinerRun, "Train the PG-Refiner.")
    config = preset(run.preset)
    torch.manual_seed(run.loop.seed)
    device = run.loop.device
    training_takes, held_out = (load_latents(run.latents, heldout, device) for heldout in (False, True))
    model = PGRefiner(config.refiner)
    if run.start:
        load_component(Path(run.start), "refiner", model)
    model.to(device)
    channels = load_channel_weights(run.latents, device)
    windows = Windows(TakeBank(training_takes), run, config, run.loop.seed + 1, run.crop, augment=True)
    report = make_report(held_out, run, config)
    training = TrainingRun(run.out, model, run.loop)
    rng = np.random.default_rng(run.loop.seed + training.step)

    def loss_of_step() -> tuple[Tensor, Figures]:
        new = config.chunk_latents if rng.random() < 0.8 else int(rng.integers(1, 7))
        motion_latents = 0 if rng.random() < run.drop_motion_latents else config.motion_latents
        batch = windows.batch(motion_latents, new)
        t = torch.sigmoid(torch.randn(run.batch, device=device) - 0.5)
        t = torch.where(torch.rand(run.batch, device=device) < run.clean_start_share, torch.zeros_like(t), t)
        with training.autocast():
            denoised = predict(model, batch, t, run.motion_noise)
        windows.carry(batch, denoised)
        error = ((denoised - batch.clean).square() * channels).mean(1)
        scale = 1 / (1 - t).clamp_min(0.25)
        return (error * batch.weights * scale[:, None, None, None]).mean(), {"plain": error.detach().mean()}

    training.train(loss_of_step, report)
    save_component(run.out / "weights", "refiner", training.ema)


if __name__ == "__main__":
    main()
