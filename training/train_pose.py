"""Stage 8: the keypoint estimator on LR frames, true ones and ones that the VAE has decoded.

    python -m training.train_pose training/configs/pose.yaml data=DATA weights=WEIGHTS out=RUN

The linear half of both looks is solved by ridge regression; the small networks then learn what it misses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.checkpoints import load_component, save_component
from models.pose import INNER_LIPS, OUTER_LIPS, PERSON_POINTS, CropRegressor, KeypointNet
from models.presets import preset
from models.vae import CausalVAE
from training.config import parse_run
from training.frames import TakeFrames, half_size, takes
from training.latents import LIPS, aperture, to_tensor
from training.loop import Figures, LoopConfig, TrainingRun
from training.train_lr_a2v import correlation


@dataclass(frozen=True)
class PoseRun:
    data: Path
    weights: Path  # folder with the VAE
    out: Path
    preset: str = "presenter-256"
    batch: int = 64
    groups_per_take: int = 60
    ridge: float = 2.0
    crop_shift: float = 0.006  # deviation of the mouth crop's centre, parts of the picture
    pixel_noise: float = 0.02
    loop: LoopConfig = field(default_factory=LoopConfig)


@torch.no_grad()
def collect(sources: list[TakeFrames], vae: CausalVAE, groups: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Small frames [G, 3, h, w] in 0 … 1, every other one decoded by the VAE, and person keypoints [G, 123, 3]."""
    device = vae.latent_mean.device
    frames, keypoints = [], []
    for take in sources:
        starts = rng.integers(0, len(take.frames) - 4, groups)
        small = np.stack([half_size(np.array(take.frames[start : start + 4])) for start in starts])
        clips = to_tensor(small, device)
        latents = vae.encode_groups(clips)
        latents = latents + 0.15 * torch.rand(groups, 1, 1, 1, 1, device=device) * torch.randn_like(latents)
        warm = vae.decode_chunk(torch.cat([latents, latents], dim=2), None)[0][:, -4:]
        pick = rng.integers(4, size=(2, groups))
        frames += [clips[np.arange(groups), pick[0]], warm[np.arange(groups), pick[1]].clamp(0, 1)]
        keypoints += [torch.from_numpy(take.keypoints[starts + p, :PERSON_POINTS]) for p in pick]
    return torch.cat(frames), torch.cat(keypoints).to(device)


@torch.no_grad()
def solve_linear(regressor: CropRegressor, pictures: Tensor, points: Tensor, ridge: float) -> None:
    """Set a regressor's linear half by ridge regression from pictures [G, 3, h, w] to points [G, P, 2]."""
    x, y = pictures.flatten(1).double() - 0.5, points.flatten(1).double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x = x - x_mean
    weight = torch.linalg.solve(x.T @ x + ridge * torch.eye(x.shape[1], device=x.device), x.T @ (y - y_mean)).T
    regressor.linear.weight.copy_(weight)
    regressor.linear.bias.copy_(y_mean - weight @ x_mean)


def pixel_errors(model: KeypointNet, frames: Tensor, keypoints: Tensor) -> dict[str, float]:
    """Mean distance in 1/256ths of the picture (face, lips), and the correlation of lip apertures."""
    found = model(frames)[:, :PERSON_POINTS]
    distance = (found[..., :2] - keypoints[..., :2]).norm(dim=-1) * 256
    return {
        "face_px": float(distance[:, :70].mean()),
        "lips_px": float(distance[:, LIPS].mean()),
        "aperture_r": correlation(aperture(found), aperture(keypoints)),
    }


def main() -> None:
    run = parse_run(PoseRun, "Train the keypoint estimator.")
    config = preset(run.preset)
    torch.manual_seed(run.loop.seed)
    torch.set_num_threads(run.loop.threads)
    rng = np.random.default_rng(run.loop.seed)
    vae = CausalVAE(config.vae).eval()
    load_component(run.weights, "vae", vae)
    vae.to(run.loop.device)
    frames, keypoints = collect(takes(run.data, heldout=False), vae, run.groups_per_take, rng)
    test_frames, test_keypoints = collect(takes(run.data, heldout=True), vae, 30, rng)
    model = KeypointNet(config.pose).to(run.loop.device)
    model.visibility.copy_((keypoints[..., 2].mean(0) > 0.5).float())
    points = keypoints[..., :2].clamp(-0.25, 1.25)
    size = (config.pose.coarse_size, config.pose.coarse_size)
    solve_linear(model.coarse, F.interpolate(frames, size=size, mode="area"), points, run.ridge)
    lips = points[:, OUTER_LIPS.start : INNER_LIPS.stop]

    def shifted_crops(index: Tensor) -> tuple[Tensor, Tensor]:
        centres = lips[index].mean(1) + run.crop_shift * torch.randn(len(index), 2, device=index.device)
        return model.mouth_crops(frames[index], centres), lips[index] - centres[:, None]

    solve_linear(model.mouth, *shifted_crops(torch.arange(len(frames), device=frames.device)), 3 * run.ridge)
    training = TrainingRun(run.out, model, run.loop)
    with torch.no_grad():
        print(f"frames {len(frames)}; ridge:", pixel_errors(model, test_frames, test_keypoints), flush=True)

    def with_noise(pictures: Tensor) -> Tensor:
        share = torch.rand(len(pictures), 1, 1, 1, device=pictures.device)
        return pictures + run.pixel_noise * share * torch.randn_like(pictures)

    def loss_of_step() -> tuple[Tensor, Figures]:
        index = torch.randint(len(frames), (run.batch,), device=frames.device)
        crops, target = shifted_crops(index)
        shown = with_noise(frames[index])
        with training.autocast():
            coarse = model.coarse_points(shown) - points[index]
            mouth = model.mouth(with_noise(crops)) - target
        return 1e4 * (coarse.square().mean() + 4 * mouth.square().mean()), {}

    training.train(loss_of_step, lambda ema: pixel_errors(ema, test_frames, test_keypoints))
    save_component(run.out / "weights", "pose", training.ema)


if __name__ == "__main__":
    main()
