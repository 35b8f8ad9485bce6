"""Train the networks that find a face.

    python -m training.portraits.train_landmarks training/configs/landmarks.yaml [key=value …]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.checkpoints import load_component
from models.portrait.face_mesh import load_face_mesh
from models.portrait.face_networks import FaceNetworks, part_vertices
from models.portrait.landmarks import FinderConfig
from models.portrait.weights import save_portrait_component
from training.config import parse_run
from training.loop import Figures, LoopConfig, TrainingRun
from training.portraits.face_batches import FaceSource, box_batch, face_batch, part_batch
from training.synthetic.portraits.people import TEST_SEED
from training.synthetic.portraits.shards import PortraitSet

_BETA = 0.01  # crop sides below which an error counts by its square


@dataclass(frozen=True)
class LandmarkRun:
    """portraits: folder of the shards; start: weights folder to go on from, if any; held_out: people at the end of the
    shards that only the log's figures see."""

    portraits: Path
    out: Path
    start: str = ""
    faces: int = 32
    eyes: int = 32
    mouths: int = 24
    boxes: int = 10
    held_out: int = 20
    loop: LoopConfig = field(default_factory=LoopConfig)


def point_loss(points: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Smooth error in hundredths of a crop, depth for half; weights [B, P] or [P]."""
    error = F.smooth_l1_loss(points, targets, beta=_BETA, reduction="none") * torch.tensor([1.0, 1.0, 0.5])
    return 100 * (error.sum(2) * weights).sum() / weights.expand(error.shape[:2]).sum()


def box_loss(out: Tensor, heat: Tensor, values: Tensor) -> Tensor:
    """Focal loss of the heat (CornerNet's), absolute error of the values near the middles."""
    logit = out[:, 0]
    probability = logit.sigmoid().clamp(1e-5, 1 - 1e-5)
    hit = heat == 1
    positive = -((1 - probability) ** 2) * F.logsigmoid(logit) * hit
    negative = -(probability**2) * F.logsigmoid(-logit) * (1 - heat) ** 4 * ~hit
    near = (heat > 0.5).float()[:, None]
    error = (out[:, 1:] - values).abs() * near * torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5]).view(1, 5, 1, 1)
    return (positive + negative).sum() / hit.sum().clamp(min=1) + 2 * error.sum() / near.sum().clamp(min=1)


def face_weights() -> Tensor:
    """How much each landmark counts: lids and lips most."""
    weights = torch.ones(load_face_mesh().count)
    for vertices in (part_vertices().left_eye, part_vertices().right_eye, part_vertices().mouth):
        weights[vertices.tolist()] = 1.5
    for name, loop in load_face_mesh().loops.items():
        if name.startswith(("lid", "lip")):
            weights[loop.tolist()] = 3
    return weights


def start_from_means(networks: FaceNetworks, source: FaceSource, rng: np.random.Generator) -> None:
    """Let every network start from the mean of what it will be asked for."""
    networks.face.mean.copy_(face_batch(source, 128, rng)[1].mean(0))
    networks.eye.mean.copy_(part_batch(source, "eye", 128, rng)[1].mean(0))
    networks.mouth.mean.copy_(part_batch(source, "mouth", 128, rng)[1].mean(0))


def main() -> None:
    """Entry of `python -m training.portraits.train_landmarks`."""
    run = parse_run(LandmarkRun, __doc__.split("\n")[0])
    torch.manual_seed(run.loop.seed)
    portraits = PortraitSet(run.portraits)
    people = np.unique(portraits.seeds[portraits.seeds < TEST_SEED])
    kept, held = people[: -run.held_out], people[-run.held_out :]
    source = FaceSource(portraits, np.nonzero(np.isin(portraits.seeds, kept))[0])
    unseen = FaceSource(portraits, np.nonzero(np.isin(portraits.seeds, held))[0])
    print(f"{len(kept)} people, {len(source.rows)} pictures; {len(held)} people held out", flush=True)
    networks = FaceNetworks()
    networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    training = TrainingRun(run.out, networks, run.loop)
    rng = np.random.default_rng([run.loop.seed, training.step])
    if not training.step:
        if run.start:
            load_component(Path(run.start), "landmarks", networks)
        else:
            start_from_means(networks, source, rng)
        training.ema.load_state_dict(networks.state_dict())
    weights = face_weights()
    edges = {"eye": weights[part_vertices().left_eye], "mouth": weights[part_vertices().mouth]}
    edges["eye"] = torch.cat([edges["eye"], torch.tensor([3.0])])  # and the iris

    def step() -> tuple[Tensor, Figures]:
        crops, targets, seen = face_batch(source, run.faces, rng)
        canvases, heat, values = box_batch(source, run.boxes, rng)
        parts = {"eye": part_batch(source, "eye", run.eyes, rng), "mouth": part_batch(source, "mouth", run.mouths, rng)}
        with training.autocast():
            points = networks.face(crops)
            boxes = networks.box(canvases)
            seen_parts = {name: getattr(networks, name)(batch[0]) for name, batch in parts.items()}
        losses = {"face": point_loss(points, targets, seen * weights), "box": box_loss(boxes, heat, values)}
        for name, (_, wanted) in parts.items():
            losses[name] = point_loss(seen_parts[name], wanted, edges[name])
        return sum(losses.values(), torch.zeros(())), {name: loss.detach() for name, loss in losses.items()}

    def report(ema: FaceNetworks) -> dict:
        rng = np.random.default_rng(1)
        crops, targets, _ = face_batch(unseen, 64, rng)
        error = (ema.face(crops) - targets)[..., :2].norm(dim=2) * 3.3  # a face's crop is some 3.3 eye distances
        figures = {"face": float(error.mean()), "edges": float(error[:, weights == 3].mean())}
        for name, scale in (("eye", 1.05), ("mouth", 1.5)):
            crops, targets = part_batch(unseen, name, 64, rng)
            wrong = (getattr(ema, name)(crops) - targets)[..., :2].norm(dim=2) * scale
            figures[name] = float(wrong[:, edges[name] == 3].mean())
        save_portrait_component(run.out, "landmarks", ema, FinderConfig())
        return figures

    training.train(step, report)


if __name__ == "__main__":
    main()
