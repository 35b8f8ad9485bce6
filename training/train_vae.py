"""Stage 1: the causal VAE, from principal components of patches to overlapping kernels with residuals.

python -m training.train_vae training/configs/vae.yaml data=DATA out=RUN
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from models.checkpoints import load_component, save_component
from models.presets import preset
from models.vae import CausalVAE
from training.config import parse_run
from training.frames import TakeFrames, half_size, takes
from training.latents import to_tensor
from training.loop import Figures, LoopConfig, Prefetcher, TrainingRun


@dataclass(frozen=True)
class VAERun:
    """`freeze_encoder` keeps latents (and all that was trained on them) valid while the decoder goes on."""

    data: Path
    out: Path
    preset: str = "presenter-256"
    start: str = ""  # weights folder to start from; empty: principal components
    batch: int = 4
    crop: int = 128
    small_share: float = 0.3  # share of samples at LR size
    mouth_weight: float = 4.0
    gradient_weight: float = 0.5
    latent_noise: float = 0.1
    freeze_encoder: bool = False
    loop: LoopConfig = field(default_factory=LoopConfig)


def patch_basis(sources: list[TakeFrames], rank: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of 4×8×8 patches in -1 … 1: mean [768], encode [rank, 768], decode [768, rank].

    Components are scaled towards equal deviation (power 0.6), which is kinder to diffusion and keeps the decode
    linear map exact.
    """
    rows = []
    for take in sources:
        for _ in range(max(4, 120 // len(sources))):
            start = rng.integers(len(take.frames) - 4)
            clip = np.array(take.frames[start : start + 4])
            for frames in (clip, half_size(clip)):
                patches = rearrange(to_tensor(frames) * 2 - 1, "f c (y p) (x q) -> (y x) (f c p q)", p=8, q=8)
                size = frames.shape[1] // 8
                weight = mouth_map(take.mouth[start] * size, size, size * 0.12).ravel() + 0.15
                rows.append(patches[rng.choice(size * size, 90, p=weight / weight.sum())])
    patches = torch.cat(rows).double()
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    basis = vectors.flip(1)[:, :rank]
    scale = values.flip(0)[:rank].clamp_min(1e-8) ** (-0.3)
    scale = scale / ((patches - mean) @ basis * scale).std()
    return mean.float(), (basis * scale).T.float(), (basis / scale).float()


def mouth_map(centre: np.ndarray, size: int, radius: float) -> np.ndarray:
    """Bump [size, size] of height 1 around centre (x, y) in cells, wider than high."""
    x, y = np.arange(size) + 0.5 - centre[0], np.arange(size) + 0.5 - centre[1]
    return np.exp(-(x[None] ** 2) / (2 * radius**2) - y[:, None] ** 2 / (2 * (0.75 * radius) ** 2)).astype(np.float32)


class Samples:
    """Random clips: crops at full size, nearer the face more often, and whole frames at LR size."""

    def __init__(self, run: VAERun) -> None:
        self.run = run
        self.sources = takes(run.data, heldout=False)

    def refresh(self) -> None:
        """Take in what the generator has finished since."""
        self.sources = takes(self.run.data, heldout=False)

    def batch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Clips uint8 [B, 5 or 9, crop, crop, 3] and weights float32 [B, 1, 1, crop, crop]."""
        frames = 9 if rng.random() < 0.25 else 5
        pairs = [self._clip(frames, rng) for _ in range(self.run.batch)]
        clips, weights = (np.stack(column) for column in zip(*pairs, strict=True))
        return clips, weights[:, None, None]

    def _clip(self, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        crop = self.run.crop
        take = self.sources[rng.integers(len(self.sources))]
        start = rng.integers(len(take.frames) - frames)
        size = take.frames.shape[1]
        mouth = take.mouth[start] * size
        if rng.random() < self.run.small_share:
            clip, centre = half_size(np.array(take.frames[start : start + frames])), mouth / 2
            offset = ((size // 2 - crop) // 2,) * 2
            clip = clip[:, offset[1] : offset[1] + crop, offset[0] : offset[0] + crop]
            radius = 7.0
        else:
            near = (
                mouth - crop / 2 + rng.normal(0, 30, 2) if rng.random() < 0.6 else rng.integers(0, size - crop + 1, 2)
            )
            offset = np.clip(np.round(near), 0, size - crop).astype(int)
            clip = np.array(
                take.frames[start : start + frames, offset[1] : offset[1] + crop, offset[0] : offset[0] + crop]
            )
            centre, radius = mouth - offset, 14.0
        if rng.random() < 0.5:
            clip, centre = clip[:, :, ::-1].copy(), np.array([crop - centre[0], centre[1]])
        return clip, 1 + self.run.mouth_weight * mouth_map(centre, crop, radius)


def reconstruction_loss(output: Tensor, target: Tensor, weight: Tensor, gradient_weight: float) -> Tensor:
    """Weighted squared error (in units of 30 dB) and absolute error of spatial and temporal differences."""
    error = output - target
    loss = 1000 * (error.square() * weight).mean()
    horizontal, vertical = error.diff(dim=4).abs() * weight[..., 1:], error.diff(dim=3).abs() * weight[..., 1:, :]
    temporal = error.diff(dim=1).abs() * weight
    return loss + 10 * gradient_weight * (horizontal.mean() + vertical.mean() + 0.5 * temporal.mean())


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of values in 0 … 1."""
    return -10 * math.log10(float((a - b).detach().square().mean()) + 1e-12)


def make_report(sources: list[TakeFrames]) -> Callable[[CausalVAE], dict[str, float]]:
    """(VAE) → PSNR of held-out clips at full and half size, and around the mouth at full size."""
    clips = [(take, int(share * (len(take.frames) - 13))) for take in sources for share in (0.1, 0.5, 0.9)]

    def report(vae: CausalVAE) -> dict[str, float]:
        rows: dict[str, list[float]] = {"psnr": [], "psnr_half": [], "psnr_mouth": []}
        for take, start in clips:
            clip = np.array(take.frames[start : start + 13])
            device = vae.latent_mean.device
            full, half = to_tensor(clip[None], device), to_tensor(half_size(clip)[None], device)
            decoded = vae.decode(vae.encode(full)).clamp(0, 1)
            rows["psnr"].append(psnr(decoded, full))
            rows["psnr_half"].append(psnr(vae.decode(vae.encode(half)).clamp(0, 1), half))
            x, y = (take.mouth[start] * clip.shape[1]).astype(int)
            box = np.s_[:, :, :, max(0, y - 16) : y + 16, max(0, x - 24) : x + 24]
            rows["psnr_mouth"].append(psnr(decoded[box], full[box]))
        return {name: float(np.mean(values)) for name, values in rows.items() if values}

    return report


@torch.no_grad()
def set_latent_statistics(vae: CausalVAE, sources: list[TakeFrames], rng: np.random.Generator) -> None:
    """Mean and deviation of each latent channel over full and half size, so that latents are near unit normal."""
    vae.latent_mean.zero_()
    vae.latent_std.fill_(1)
    rows = []
    for take in sources:
        start = rng.integers(len(take.frames) - 4)
        clip = np.array(take.frames[start : start + 4])
        for frames in (clip, half_size(clip)):
            latents = vae.encode_groups(to_tensor(frames[None], vae.latent_mean.device))
            rows.append(latents.transpose(0, 1).flatten(1))
    latents = torch.cat(rows, dim=1)
    vae.latent_mean.copy_(latents.mean(1))
    vae.latent_std.copy_(latents.std(1))


def main() -> None:
    run = parse_run(VAERun, "Train the causal VAE.")
    config = preset(run.preset)
    rng = np.random.default_rng(run.loop.seed)
    torch.manual_seed(run.loop.seed)
    samples = Samples(run)
    vae = CausalVAE(config.vae)
    if run.start:
        load_component(Path(run.start), "vae", vae)
    else:
        vae.start_linear(*patch_basis(samples.sources, config.vae.latent_channels, rng))
    vae.encoder.requires_grad_(not run.freeze_encoder)
    vae.to(run.loop.device)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = TrainingRun(run.out, vae, run.loop)
    report = make_report(takes(run.data, heldout=True))
    with torch.no_grad():
        print("start", report(vae), flush=True)
    batches = Prefetcher(samples.batch, run.loop.seed, training.step, run.loop.prefetch_threads)

    def loss_of_step() -> tuple[Tensor, Figures]:
        if training.step % 200 == 0:
            samples.refresh()
        pixels, weights = batches.next()
        clip, weight = to_tensor(pixels, training.device), torch.from_numpy(weights).to(training.device)
        with training.autocast():
            with torch.set_grad_enabled(not run.freeze_encoder):
                latents = vae.encode(clip)
            share = torch.rand(len(clip), 1, 1, 1, 1, device=clip.device)
            decoded = vae.decode(latents + run.latent_noise * share * torch.randn_like(latents)).float()
        loss = reconstruction_loss(decoded, clip, weight, run.gradient_weight)
        return loss + 1e-3 * latents.float().square().mean(), {}

    training.train(loss_of_step, report)
    batches.close()
    if not run.freeze_encoder and not run.start:
        set_latent_statistics(training.ema, samples.sources, rng)
    save_component(run.out / "weights", "vae", training.ema)


if __name__ == "__main__":
    main()
