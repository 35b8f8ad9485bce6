"""Stage 3: the animator: keypoints from sound, prompt and motion plan, and the flow that moves the picture with them.

    python -m training.train_animator training/configs/animator.yaml data=DATA latents=LATENTS out=RUN

Both halves learn from exact keypoints: the planner to predict them, the field to move the reference so that it
looks like the frame they belong to. The prompt encoder learns here too, and is frozen afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.animator import Animator, point_weights
from models.checkpoints import load_component, save_component
from models.conditions import TextEncoder
from models.configs import Preset
from models.pose import PERSON_POINTS
from models.presets import preset
from training.config import parse_run
from training.frames import half_size, takes
from training.latents import LIPS, TakeBank, TakeLatents, aperture, load_latents, to_tensor
from training.loop import Figures, LoopConfig, TrainingRun
from training.train_lr_a2v import correlation
from training.train_vae import psnr


@dataclass(frozen=True)
class AnimatorRun:
    """`windows` stretches of `frames` frames teach the planner in a step, `pictures` frames the field.

    Takes of keypoints alone teach the planner beside the others.
    """

    data: Path
    latents: Path
    out: Path
    preset: str = "presenter-256"
    start: str = ""
    freeze_text: bool = False  # where LR-A2V has already learned with it
    windows: int = 48
    frames: int = 8
    pictures: int = 16
    drop_text: float = 0.1
    token_noise: float = 0.2
    rest_noise: float = 0.003  # of the keypoints at rest, parts of the picture
    keypoint_noise: float = 0.002  # of the keypoints that the field is given, most of the time less
    closure_weight: float = 4.0  # further weight of the lips where p, b, m shut them
    loop: LoopConfig = field(default_factory=LoopConfig)


class Prompted(nn.Module):
    """Animator and prompt encoder, which learn together."""

    def __init__(self, config: Preset, token_noise: float = 0.0, rest_noise: float = 0.0) -> None:
        super().__init__()
        if config.animator is None:
            raise ValueError(f"preset {config.name!r} has no animator")
        self.token_noise, self.rest_noise = token_noise, rest_noise
        self.animator, self.text = Animator(config.animator), TextEncoder(config.text)

    def plan(self, bank: TakeBank, takes: np.ndarray, first: np.ndarray, frames: int, prompts: list[str]) -> Tensor:
        """Keypoints [B, frames, 143, 3] of stretches of takes from frames `first` on, both int64 [B]."""
        index = torch.from_numpy(np.stack([takes, first])).to(bank.device)
        starts = 4 * bank.starts[index[0]]
        window = self.animator.config.token_window
        heard = (index[1][:, None] + torch.arange(1 - window, frames, device=bank.device)).clamp_min(0)
        shown = starts[:, None] + index[1][:, None] + torch.arange(frames, device=bank.device)
        tokens = self._noisy(bank.tokens[starts[:, None] + heard].float(), self.token_noise)
        rest = bank.references["keypoints"][bank.presenters[index[0]]]
        noisy = self._noisy(rest, self.rest_noise)
        text = self.text(self.text.tokenize(prompts).to(bank.device))
        planned = self.animator.points(tokens, bank.motion[shown].float(), text, noisy)
        return planned + (rest - noisy)[:, None]  # the planner adds to what it was given, its noise included

    def _noisy(self, values: Tensor, deviation: float) -> Tensor:
        """Values [B, …] with noise of up to a deviation, in training."""
        if not self.training:
            return values
        share = torch.rand(len(values), 1, 1, device=values.device)
        return values + deviation * share * torch.randn_like(values)


class Stretches:
    """Draws stretches of takes for the planner."""

    def __init__(self, latents: list[TakeLatents], seed: int) -> None:
        self.bank, self.rng = TakeBank(latents), np.random.default_rng(seed)

    def draw(self, size: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Takes and first frames, int64 [size] each."""
        takes = self.rng.integers(len(self.bank.counts), size=size)
        return takes, self.rng.integers(0, 4 * self.bank.counts[takes] - frames + 1)

    def truth(self, values: Tensor, takes: np.ndarray, first: np.ndarray, frames: int) -> Tensor:
        """Values [F, …] of the stretches, float32 [B, frames, …]."""
        starts = 4 * self.bank.starts[torch.from_numpy(takes).to(self.bank.device)]
        shown = starts[:, None] + torch.from_numpy(first).to(self.bank.device)[:, None]
        return values[shown + torch.arange(frames, device=self.bank.device)].float()


class Pictures:
    """Draws frames at LR size with the references that they came from."""

    def __init__(self, data: Path, heldout: bool, latents: list[TakeLatents], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        presenters = {take.name: take.presenter for take in latents}
        self.sources = [take for take in takes(data, heldout) if take.name in presenters]
        self.presenters = [presenters[take.name] for take in self.sources]
        self.rest = {take.presenter: take.reference["keypoints"].cpu() for take in latents}
        paths = {name: next(data.glob(f"**/reference_{name}_*.png")) for name in set(self.presenters)}
        self.references = {name: reference_picture(path) for name, path in paths.items()}

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames and references [B, 3, h, w] in 0 … 1, keypoints and keypoints at rest [B, 143, 3]."""
        rows = [self._one(int(index)) for index in self.rng.integers(len(self.sources), size=size)]
        return tuple(torch.stack(column) for column in zip(*rows, strict=True))  # type: ignore[return-value]

    def _one(self, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        take, name = self.sources[index], self.presenters[index]
        frame = int(self.rng.integers(len(take.frames)))
        shown = to_tensor(half_size(np.array(take.frames[frame : frame + 1])))[0]
        return shown, self.references[name], torch.from_numpy(take.keypoints[frame].copy()), self.rest[name]


def reference_picture(path: Path) -> Tensor:
    """Reference at LR size, [3, h, w] in 0 … 1."""
    return to_tensor(half_size(np.array(Image.open(path).convert("RGB"))[None]))[0]


def make_report(
    stretches: Stretches, pictures: Pictures, device: torch.device
) -> Callable[[Prompted], dict[str, float]]:
    """Held-out figures: planned points (pixels of 256), apertures with true and with shuffled sound, moved pictures."""
    takes, first = stretches.draw(96, 25)
    truth = stretches.truth(stretches.bank.keypoints, takes, first, 25)
    shown, references, keypoints, rest = (values.to(device) for values in pictures.draw(48))

    def report(model: Prompted) -> dict[str, float]:
        prompts = [stretches.bank.prompts[take] for take in takes]
        planned = model.plan(stretches.bank, takes, first, 25, prompts)
        other = (first + 4 * stretches.bank.counts[takes] // 2) % (4 * stretches.bank.counts[takes] - 25)
        unheard = model.plan(stretches.bank, takes, other, 25, prompts)
        distance = (planned - truth)[..., :PERSON_POINTS, :2].norm(dim=-1) * 256
        moved = model.animator.move(references, rest, keypoints[:, None])[:, 0]
        return {
            "face_px": float(distance[..., :70].mean()),
            "lips_px": float(distance[..., LIPS].mean()),
            "aperture_r": correlation(aperture(planned), aperture(truth)),
            "aperture_r_shuffled": correlation(aperture(unheard), aperture(truth)),
            "amplitude": float(aperture(planned).std() / aperture(truth).std()),
            "moved_psnr": psnr(moved, shown),
            "still_psnr": psnr(references, shown),
        }

    return report


def main() -> None:
    run = parse_run(AnimatorRun, "Train the animator.")
    config = preset(run.preset)
    torch.manual_seed(run.loop.seed)
    device = run.loop.device
    training_takes, held_out = (load_latents(run.latents, heldout, device) for heldout in (False, True))
    model = Prompted(config, run.token_noise, run.rest_noise)
    if run.start:
        load_component(Path(run.start), "animator", model.animator)
        load_component(Path(run.start), "text", model.text)
    model.text.requires_grad_(not run.freeze_text)
    model.to(device)
    spoken = load_latents(run.latents, False, device, with_pictures=False)
    stretches = Stretches(spoken, run.loop.seed + 1)
    pictures = Pictures(run.data, False, training_takes, run.loop.seed + 2)
    report = make_report(Stretches(held_out, 7), Pictures(run.data, True, held_out, 7), torch.device(device))
    training = TrainingRun(run.out, model, run.loop)
    weights = point_weights().to(device)
    lips = torch.zeros(PERSON_POINTS, device=device)
    lips[LIPS] = run.closure_weight

    def points_loss() -> Tensor:
        takes, first = stretches.draw(run.windows, run.frames)
        prompts = [stretches.bank.prompts[take] if torch.rand(()) >= run.drop_text else "" for take in takes]
        planned = model.plan(stretches.bank, takes, first, run.frames, prompts)
        truth = stretches.truth(stretches.bank.keypoints, takes, first, run.frames)
        closure = stretches.truth(stretches.bank.closure, takes, first, run.frames)
        error = (planned - truth)[..., :PERSON_POINTS, :2]
        return 1e4 * (error.square().sum(-1) * (weights + lips * closure[..., None])).mean()

    def field_loss() -> Tensor:
        shown, references, keypoints, rest = (values.to(device) for values in pictures.draw(run.pictures))
        share = torch.rand(len(shown), 1, 1, device=device).square()
        shaken = keypoints + run.keypoint_noise * share * torch.randn_like(keypoints)
        rest = rest + run.rest_noise * torch.rand_like(share) * torch.randn_like(rest)
        error = model.animator.move(references, rest, shaken[:, None])[:, 0] - shown
        return 1000 * error.square().mean() + 20 * error.abs().mean()

    def loss_of_step() -> tuple[Tensor, Figures]:
        points, moved = points_loss(), field_loss()
        return points + moved, {"points": points.detach(), "moved": moved.detach()}

    training.train(loss_of_step, report)
    save_component(run.out / "weights", "animator", training.ema.animator)
    save_component(run.out / "weights", "text", training.ema.text)


if __name__ == "__main__":
    main()
