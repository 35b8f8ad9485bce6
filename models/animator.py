"""Animator: moves the reference picture to where the sound, the prompt and the motion plan put the presenter.

The shipped presets give sound, prompt and plan to the model, so little of the picture is left to chance: where each
keypoint goes can be predicted by a small network, and what lies between keypoints moves with them. The animator does
both. Its moved pictures, encoded, are what LR-A2V and the PG-Refiner start from: they then have to learn what a
moved picture lacks (the inside of the mouth, lids, what comes into sight, shading) and not the face itself.

The split into keypoints and a dense backward flow follows First Order Motion (Siarohin et al., 2019); keypoints are
the paper's own (§3.2). At paper scale there is no animator: both models start from the reference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import AnimatorConfig
from models.layers import start_at_zero
from models.motion import MOTION_SCALE
from models.pose import BODY, CONTOUR, EYES, INNER_LIPS, OUTER_LIPS, PERSON_POINTS

# Face, head, neck and shoulders: what a head-and-shoulders picture shows. Where the rest is can only be guessed there.
DRAGGING_POINTS = (*range(BODY.start), 70, 71, 72, 75)
_LIPS = slice(OUTER_LIPS.start, INNER_LIPS.stop)
_ANCHORS = [27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45]  # nose and corners of the eyes: where the face is
_KEYPOINT_SCALE = 30.0  # displacements are a few hundredths of the picture
_FLOW_SCALE = 0.05


class PointPlanner(nn.Module):
    """Sound tokens, motion plan, prompt and the keypoints at rest → keypoints of a frame."""

    motion_scale: Tensor

    def __init__(self, config: AnimatorConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.token_window * config.audio_width + config.motion_dim + config.text_tokens * config.text_width
        self.input = nn.Linear(inputs + 2 * len(DRAGGING_POINTS), config.points_width)
        self.hidden = nn.Sequential(
            nn.SiLU(), nn.Linear(config.points_width, config.points_width), nn.SiLU(), nn.Dropout(config.dropout)
        )
        self.output = nn.Linear(config.points_width, 2 * PERSON_POINTS)
        self.register_buffer("motion_scale", torch.tensor(MOTION_SCALE[: config.motion_dim]), persistent=False)
        start_at_zero(self.output)

    def forward(self, tokens: Tensor, motion: Tensor, text: Tensor, reference: Tensor) -> Tensor:
        """Points of F frames.

        Args:
            tokens: [B, token_window - 1 + F, audio_width], the sound up to each frame.
            motion: [B, F, motion_dim], the motion plan.
            text: [B, Lt, text_width] prompt tokens.
            reference: [B, 143, 3], keypoints at rest.

        Returns:
            keypoints [B, F, 143, 3]: the person's points moved, all else as in the reference.
        """
        frames = motion.shape[1]
        heard = tokens.unfold(1, self.config.token_window, 1).flatten(2)
        still = torch.cat([text.flatten(1), 4 * (reference[:, DRAGGING_POINTS, :2] - 0.5).flatten(1)], dim=1)
        conditions = [heard, motion / self.motion_scale, still[:, None].expand(-1, frames, -1)]
        change = self.output(self.hidden(self.input(torch.cat(conditions, dim=2)))) / _KEYPOINT_SCALE
        keypoints = reference[:, None].repeat(1, frames, 1, 1)
        keypoints[:, :, :PERSON_POINTS, :2] += change.unflatten(2, (PERSON_POINTS, 2)).to(keypoints.dtype)
        return keypoints


class MotionField(nn.Module):
    """Keypoints at rest and moved → a backward flow: for each place of the frame, where in the reference it was.

    Keypoints drag their surroundings along; a small network adds what that does not know: hair, silhouettes, and how
    far the room behind is left alone.
    """

    radius: Tensor

    def __init__(self, config: AnimatorConfig) -> None:
        super().__init__()
        self.cells = config.flow_cells
        self.input = nn.Linear(4 * len(DRAGGING_POINTS), config.flow_width)
        self.hidden = nn.Sequential(nn.SiLU(), nn.Linear(config.flow_width, config.flow_width), nn.SiLU())
        self.output = nn.Linear(config.flow_width, 2 * self.cells**2)
        start_at_zero(self.output)
        radius = torch.full((len(DRAGGING_POINTS),), 0.035)
        radius[_LIPS], radius[BODY.start :] = 0.014, 0.08
        self.register_buffer("radius", radius, persistent=False)

    def forward(self, reference: Tensor, keypoints: Tensor) -> Tensor:
        """Keypoints at rest [B, 143, 3] and moved [B, T, 143, 3] → flow [B, T, 2, cells, cells], parts of a picture."""
        rest = reference[:, None, DRAGGING_POINTS, :2].expand(-1, keypoints.shape[1], -1, -1)
        moved = keypoints[:, :, DRAGGING_POINTS, :2]
        known = torch.cat([4 * (rest - 0.5), _KEYPOINT_SCALE * (moved - rest)], dim=-1).flatten(2)
        learned = self.output(self.hidden(self.input(known))).unflatten(2, (2, self.cells, self.cells))
        return self._dragged(rest, moved) + _FLOW_SCALE * learned.float()

    def _dragged(self, rest: Tensor, moved: Tensor) -> Tensor:
        """Flow [B, T, 2, cells, cells] of the points [B, T, P, 2] alone: Gaussian weights around each."""
        places = (torch.arange(self.cells, device=moved.device) + 0.5) / self.cells
        distance = (places - moved[..., None]).square() / (2 * self.radius[:, None, None] ** 2)  # [B, T, P, 2, cells]
        along_x, along_y = torch.exp(-distance).unbind(-2)
        weight = along_y.transpose(-1, -2) @ along_x
        drag = [(along_y * (rest - moved)[..., axis, None]).transpose(-1, -2) @ along_x for axis in (0, 1)]
        return torch.stack(drag, dim=2) / (weight + 0.05)[:, :, None]


class Animator(nn.Module):
    """Point planner and motion field; `models.configs.AnimatorConfig`."""

    def __init__(self, config: AnimatorConfig) -> None:
        super().__init__()
        self.config = config
        self.points, self.field = PointPlanner(config), MotionField(config)

    def move(self, picture: Tensor, reference: Tensor, keypoints: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0 … 1, keypoints at rest [B, 143, 3] and moved [B, T, 143, 3] → [B, T, 3, H, W]."""
        return moved_picture(picture, self.field(reference, keypoints))


def moved_picture(picture: Tensor, flow: Tensor) -> Tensor:
    """Picture [B, 3, H, W] seen through backward flows [B, T, 2, h, w] in parts of the picture → [B, T, 3, H, W]."""
    batch, frames = flow.shape[:2]
    height, width = picture.shape[2:]
    fine = F.interpolate(flow.flatten(0, 1), size=(height, width), mode="bilinear", align_corners=False)
    x, y = ((2 * torch.arange(size, device=flow.device, dtype=flow.dtype) + 1) / size - 1 for size in (width, height))
    still = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)  # as affine_grid, at no cost
    grid = torch.add(still, fine.permute(0, 2, 3, 1), alpha=2)
    pictures = picture.expand(frames, -1, -1, -1) if batch == 1 else picture.repeat_interleave(frames, dim=0)
    moved = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved.unflatten(0, (batch, frames))


def with_planned_features(seen: Tensor, planned: Tensor) -> Tensor:
    """Keypoints read off LR frames, with lips and lids as they were planned.

    What small frames show of a shut lip or lid is a pixel or two, and LR-A2V, in doubt, paints it half shut. The
    planner knows. The features keep the planned shape and go where the face is seen.

    Args:
        seen, planned: [T, 143, 3] of the same frames.

    Returns:
        keypoints [T, 143, 3].
    """
    shift = (seen - planned)[:, _ANCHORS, :2].mean(1, keepdim=True)
    keypoints = seen.clone()
    for points in (EYES, _LIPS):
        keypoints[:, points, :2] = planned[:, points, :2] + shift
    return keypoints


def point_weights(lips: float = 6.0, eyes: float = 4.0) -> Tensor:
    """How much each point counts in training, [123]: lips and lids more, the jaw a little more, hands not at all."""
    weights = torch.ones(PERSON_POINTS)
    weights[_LIPS], weights[EYES], weights[CONTOUR] = lips, eyes, 1.5
    weights[BODY.stop :] = 0.05
    return weights
