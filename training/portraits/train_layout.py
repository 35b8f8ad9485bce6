"""Train the layout network.

    python -m training.portraits.train_layout training/configs/layout.yaml [key=value …]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoints import save_component
from models.portrait.layout import LayoutNet
from training.config import parse_run
from training.loop import Figures, LoopConfig, TrainingRun
from training.portraits.layout_batches import layout_batch
from training.synthetic.portraits.people import TEST_SEED
from training.synthetic.portraits.shards import PortraitSet

_SEEN_SHARE = 0.25  # of a face's landmarks, in pictures that are learned from


@dataclass(frozen=True)
class LayoutRun:
    """portraits: folder of the shards; held_out: people at its end that only the log's figures see."""

    portraits: Path
    out: Path
    batch: int = 16
    held_out: int = 20
    loop: LoopConfig = field(default_factory=LoopConfig)


def layout_loss(out: Tensor, target: Tensor, inside: Tensor) -> tuple[Tensor, Figures]:
    """Depth and shares where the person is, the matte everywhere in the picture; and slopes of the front's depth."""
    matte = target[:, 4:]
    weight = matte * inside / (matte * inside).mean().clamp(min=0.05)
    front, back = out[:, :1], out[:, :1] - out[:, 1:2]
    depth = (weight * (front - target[:, :1]).abs()).mean() + 0.5 * (weight * (back - target[:, 1:2]).abs()).mean()
    shares = (weight * (out[:, 2:4].sigmoid() - target[:, 2:4]).abs()).mean()
    covered = matte * inside
    slope = torch.zeros(())
    for axis in (2, 3):
        both = covered.narrow(axis, 1, covered.shape[axis] - 1) * covered.narrow(axis, 0, covered.shape[axis] - 1)
        slope = slope + ((front.diff(dim=axis) - target[:, :1].diff(dim=axis)).abs() * both).mean()
    entropy = F.binary_cross_entropy_with_logits(out[:, 4:], matte, reduction="none")
    edge = ((entropy + (out[:, 4:].sigmoid() - matte).abs()) * inside).mean()
    figures = {"depth": depth.detach(), "shares": shares.detach(), "matte": edge.detach()}
    return depth + 2 * shares + slope + edge, figures


def measure_layout(out: Tensor, target: Tensor, inside: Tensor) -> dict[str, Tensor]:
    """Figures of each example [B]: overlap of the mattes; errors of the shares and of both depths (face units), with
    the mean depth of the person taken out, where the person is."""
    person = (target[:, 4] > 0.5) & (inside[:, 0] > 0)
    guess = (out[:, 4] > 0) & (inside[:, 0] > 0)
    count = person.flatten(1).sum(1).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (values * person).flatten(1).sum(1) / count

    front, back = out[:, 0] - target[:, 0], out[:, 0] - out[:, 1] - target[:, 1]
    offset = mean(front)[:, None, None]
    overlap = (person & guess).flatten(1).sum(1) / (person | guess).flatten(1).sum(1).clamp(min=1)
    return {
        "matte_iou": overlap,
        "head": mean((out[:, 2].sigmoid() - target[:, 2]).abs()),
        "clavicle": mean((out[:, 3].sigmoid() - target[:, 3]).abs()),
        "front": mean((front - offset).abs()),
        "back": mean((back - offset).abs()),
    }


def main() -> None:
    """Entry of `python -m training.portraits.train_layout`."""
    run = parse_run(LayoutRun, __doc__.split("\n")[0])
    torch.manual_seed(run.loop.seed)
    portraits = PortraitSet(run.portraits)
    people = np.unique(portraits.seeds[portraits.seeds < TEST_SEED])
    kept, held = people[: -run.held_out], people[-run.held_out :]
    is_shown = portraits.all("seen").mean(1) > _SEEN_SHARE
    rows, unseen = (np.nonzero(np.isin(portraits.seeds, group) & is_shown)[0] for group in (kept, held))
    print(f"{len(kept)} people, {len(rows)} pictures; {len(held)} people held out", flush=True)
    network = LayoutNet()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = TrainingRun(run.out, network, run.loop)
    rng = np.random.default_rng([run.loop.seed, training.step])

    def step() -> tuple[Tensor, Figures]:
        crops, hints, target, inside = layout_batch(portraits, rng.choice(rows, run.batch), rng)
        with training.autocast():
            out = training.model(crops, hints)
        return layout_loss(out, target, inside)

    def report(ema: LayoutNet) -> dict:
        crops, hints, target, inside = layout_batch(portraits, unseen[:48], np.random.default_rng(1), is_varied=False)
        save_component(run.out, "layout", ema)
        figures = measure_layout(ema(crops, hints), target, inside)
        alone = measure_layout(ema(crops, torch.zeros_like(hints)), target, inside)
        return {name: float(value.mean()) for name, value in figures.items()} | {
            "matte_alone": float(alone["matte_iou"].mean())
        }

    training.train(step, report)


if __name__ == "__main__":
    main()
