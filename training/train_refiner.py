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
from training.latents import LIPS, TakeLatents, load_channel_weights, load_latents, region_weights
from training.loop import LoopConfig, TrainingRun


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
    drop_pose: float = 0.2
    drop_lr: float = 0.2
    drop_motion_latents: float = 0.15
    neutral_reference: float = 0.85
    motion_noise: float = 0.3
    keypoint_noise: float = 0.0015
    face_weight: float = 3.0
    mouth_weight: float = 6.0
    loop: LoopConfig = field(default_factory=LoopConfig)


@dataclass
class Batch:
    """clean [B, C, m + n, H, W], reference [B, C, 1, H, W], degraded [B, C, 1 + m + n, H, W],
    pose [B, 1 + m + n, tokens, 512], weights [B, n, H, W]."""

    clean: Tensor
    reference: Tensor
    degraded: Tensor
    pose: Tensor
    weights: Tensor

    def to(self, device: str) -> Batch:
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class Windows:
    """Draws windows of HR latents, or crops of them, with degraded LR latents and pose tokens."""

    def __init__(self, takes: list[TakeLatents], run: RefinerRun, config: Preset, seed: int, augment: bool) -> None:
        self.takes, self.run, self.config, self.augment = takes, run, config, augment
        self.rng = np.random.default_rng(seed)

    def batch(self, size: int, motion_latents: int, new: int, crop: int) -> Batch:
        rows = [self._window(motion_latents, new, crop) for _ in range(size)]
        return Batch(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def _corner(self, full: int, crop: int) -> tuple[int, int]:
        """Top-left corner on even cells (patch 2), near the face more often than not."""
        if crop >= full:
            return 0, 0
        room = (full - crop) // 2
        if self.rng.random() < 0.65:
            row, column = self.rng.normal(0.45, 0.2), self.rng.normal(0.5, 0.22)
            return 2 * int(np.clip(round(row * room), 0, room)), 2 * int(np.clip(round(column * room), 0, room))
        return 2 * int(self.rng.integers(room + 1)), 2 * int(self.rng.integers(room + 1))

    def _window(self, motion_latents: int, new: int, crop: int) -> tuple[Tensor, ...]:
        rng, run, config = self.rng, self.run, self.config
        take = self.takes[rng.integers(len(self.takes))]
        tensors, size = take.tensors, config.hr_latent_size[0]
        first = int(rng.integers(motion_latents, take.latents - new + 1))
        start, count = first - motion_latents, motion_latents + new
        row, column = self._corner(size, crop)
        area = np.s_[..., row : row + crop, column : column + crop]
        reference, reference_points = take.reference["hr"].float(), take.reference["keypoints"]
        if self.augment and rng.random() >= run.neutral_reference:
            pick = rng.integers(tensors["reference_hr"].shape[1])
            reference = tensors["reference_hr"][:, pick : pick + 1].float()
            reference_points = tensors["reference_keypoints"][pick]
        keypoints = torch.cat(
            [reference_points.expand(4, -1, -1), tensors["keypoints"][4 * start : 4 * (start + count)]]
        )
        keypoints = keypoints.clone()
        keypoints[:, BACKGROUND] = take.reference["keypoints"][BACKGROUND]
        if self.augment:
            shake = torch.randn(len(keypoints), PERSON_POINTS, 2, device=keypoints.device)
            keypoints[:, :PERSON_POINTS, :2] += run.keypoint_noise * float(rng.random()) * shake
        pose = pose_tokens(keypoints[None], *config.lr_latent_size)[0]
        grid = config.lr_latent_size
        pose = pose.unflatten(1, grid)[:, row // 2 : (row + crop) // 2, column // 2 : (column + crop) // 2].flatten(
            1, 2
        )
        lr = tensors["lr"][None, :, start : start + count].float()
        filtered = low_pass(lr, config.low_pass_sigma)
        degraded = upsample_latents(filtered + config.degradation_noise * torch.randn_like(lr))[0]
        degraded = torch.cat([torch.zeros_like(degraded[:, :1]), degraded], dim=1)[area]
        if self.augment:
            pose = pose * float(rng.random() >= run.drop_pose)
            degraded = degraded * float(rng.random() >= run.drop_lr)
        shown = tensors["keypoints"][4 * first : 4 * (first + new)]
        weights = 1 + run.mouth_weight * region_weights(shown, LIPS, size, 3.0)
        weights = weights + run.face_weight * region_weights(shown, slice(0, 48), size, 8.0)
        return tensors["hr"][:, start : start + count].float()[area], reference[area], degraded, pose, weights[area]


def predict(model: PGRefiner, batch: Batch, new: int, t: Tensor, motion_noise: float = 0.0) -> Tensor:
    """Noise the new latents to t [B], keep reference and motion clean (Eq. 6), predict them."""
    clean, motion = batch.clean[:, :, -new:], batch.clean[:, :, :-new]
    if motion_noise:
        share = torch.rand(len(t), 1, 1, 1, 1, device=t.device)
        motion = motion + motion_noise * share * (torch.rand_like(share) < 0.6) * torch.randn_like(motion)
    window = torch.cat([batch.reference, motion, noised(clean, torch.randn_like(clean), t)], dim=2)
    timesteps = torch.cat([t.new_ones(len(t), window.shape[2] - new), t[:, None].expand(-1, new)], dim=1)
    return model(window, timesteps, new, batch.degraded, batch.pose)


def make_report(windows: Windows) -> Callable[[PGRefiner], dict[str, float]]:
    """Held-out figures of one step on whole pictures: error (all, face), without pose, without LR; reference."""
    new = windows.config.chunk_latents
    batch = windows.batch(8, 1, new, windows.config.hr_latent_size[0])

    def face(error: Tensor) -> float:
        weight = batch.weights - 1
        return float((error * weight).sum() / weight.sum())

    def report(model: PGRefiner) -> dict[str, float]:
        torch.manual_seed(1)
        clean, zero = batch.clean[:, :, -new:], batch.clean.new_zeros(len(batch.clean))
        error = (predict(model, batch, new, zero) - clean).square().mean(1)
        no_pose = replace(batch, pose=torch.zeros_like(batch.pose))
        no_lr = replace(batch, degraded=torch.zeros_like(batch.degraded))
        return {
            "error": float(error.mean()),
            "error_face": face(error),
            "without_pose": face((predict(model, no_pose, new, zero) - clean).square().mean(1)),
            "without_lr": face((predict(model, no_lr, new, zero) - clean).square().mean(1)),
            "reference_face": face((batch.reference - clean).square().mean(1)),
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
    windows = Windows(training_takes, run, config, run.loop.seed + 1, augment=True)
    report = make_report(Windows(held_out, run, config, 7, augment=False))
    training = TrainingRun(run.out, model, run.loop)
    rng = np.random.default_rng(run.loop.seed + training.step)

    def loss_of_step() -> tuple[Tensor, dict[str, float]]:
        new = config.chunk_latents if rng.random() < 0.8 else int(rng.integers(1, 7))
        motion_latents = 0 if rng.random() < run.drop_motion_latents else config.motion_latents
        batch = windows.batch(run.batch, motion_latents, new, run.crop).to(device)
        t = torch.sigmoid(torch.randn(run.batch, device=device) - 0.5)
        t = torch.where(torch.rand(run.batch, device=device) < run.clean_start_share, torch.zeros_like(t), t)
        error = (predict(model, batch, new, t, run.motion_noise) - batch.clean[:, :, -new:]).square()
        error = (error * channels).mean(1)
        scale = 1 / (1 - t).clamp_min(0.25)
        return (error * batch.weights * scale[:, None, None, None]).mean(), {"plain": float(error.detach().mean())}

    training.train(loss_of_step, report)
    save_component(run.out / "weights", "refiner", training.ema)


if __name__ == "__main__":
    main()
