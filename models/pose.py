"""Pose: keypoint layout, 8-channel pose maps, pose tokens, and the shipped keypoint estimator (§3.2).

Keypoints are [..., 143, 3]: x and y as parts of the picture's width and height, and visibility 0 or 1.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels.pose_tokens
from kernels.pose_tokens import Channels
from models.configs import PoseConfig

FACE_POINTS, BODY_POINTS, HAND_POINTS, BACKGROUND_POINTS = 70, 11, 21, 20
KEYPOINTS = FACE_POINTS + BODY_POINTS + 2 * HAND_POINTS + BACKGROUND_POINTS
PERSON_POINTS = KEYPOINTS - BACKGROUND_POINTS

CONTOUR = slice(0, 17)
BROWS = slice(17, 27)
NOSE = slice(27, 36)
EYES = slice(36, 48)
OUTER_LIPS = slice(48, 60)
INNER_LIPS = slice(60, 70)
BODY = slice(70, 81)
HANDS = slice(81, 123)
BACKGROUND = slice(123, 143)

# channel of the pose map: its first point, the one after its last, radius of their blobs in map cells
POSE_CHANNELS: Channels = (
    (CONTOUR.start, CONTOUR.stop, 1.0),
    (BROWS.start, NOSE.stop, 1.0),
    (EYES.start, EYES.stop, 0.8),
    (OUTER_LIPS.start, OUTER_LIPS.stop, 0.8),
    (INNER_LIPS.start, INNER_LIPS.stop, 0.7),
    (BODY.start, BODY.stop, 1.2),
    (HANDS.start, HANDS.stop, 0.8),
    (BACKGROUND.start, BACKGROUND.stop, 1.0),
)
POSE_TOKEN_DIM = 4 * 4 * 4 * len(POSE_CHANNELS)


def pose_tokens(keypoints: Tensor, lr_height: int, lr_width: int) -> Tensor:
    """Keypoints of whole latents → tokens on the LR latent grid, which is the refiner's token grid.

    Args:
        keypoints: [B, 4T, 143, 3], four frames a latent (the reference's frame repeated four times).
        lr_height, lr_width: h, w of the LR latents; the maps have 4h × 4w cells.

    Returns:
        [B, T, h·w, 512]: 4×4×4 patches of 8 maps [4T, 4h, 4w], each the sum of the Gaussian blobs of its points,
        clipped at 1.5.
    """
    return kernels.pose_tokens.pose_tokens(keypoints, lr_height, lr_width, POSE_CHANNELS)


class PoseEstimator(Protocol):
    """Reads keypoints off small frames."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames [G, 3, H, W] in 0 … 1 → keypoints [G, 143, 3]."""


class CropRegressor(nn.Module):
    """Pixels of a small picture → points: a linear map plus a small MLP on the same pixels."""

    def __init__(self, pixels: int, hidden: int, points: int) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, 2 * points)
        self.mlp = nn.Sequential(nn.Linear(pixels, hidden), nn.GELU(), nn.Linear(hidden, 2 * points))
        for parameter in self.mlp[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, picture: Tensor) -> Tensor:
        """Picture [G, 3, h, w] in 0 … 1 → points [G, points, 2]."""
        pixels = picture.flatten(1) - 0.5
        return (self.linear(pixels) + self.mlp(pixels)).unflatten(1, (-1, 2))


class KeypointNet(nn.Module):
    """Two looks: the whole frame for all points, then a crop around the mouth for the lips.

    Trained on the exact keypoints of the synthetic presenters. Points of the background do not move: they are
    those of the reference, set by `with_background`.
    """

    visibility: Tensor

    def __init__(self, config: PoseConfig) -> None:
        super().__init__()
        self.config = config
        height, width = config.mouth_crop
        self.coarse = CropRegressor(3 * config.coarse_size**2, config.hidden, PERSON_POINTS)
        self.mouth = CropRegressor(3 * height * width, config.hidden, INNER_LIPS.stop - OUTER_LIPS.start)
        self.register_buffer("visibility", torch.ones(PERSON_POINTS))

    def coarse_points(self, frames: Tensor) -> Tensor:
        """Frames [G, 3, H, W] → person points [G, 123, 2] by the first look."""
        size = (self.config.coarse_size, self.config.coarse_size)
        return self.coarse(F.interpolate(frames, size=size, mode="area"))

    def mouth_crops(self, frames: Tensor, centres: Tensor) -> Tensor:
        """Crops [G, 3, h, w] in 1/128ths of the frame around centres [G, 2]."""
        height, width = self.config.mouth_crop
        y, x = torch.meshgrid(
            (torch.arange(height, device=frames.device) + 0.5 - height / 2) / 128,
            (torch.arange(width, device=frames.device) + 0.5 - width / 2) / 128,
            indexing="ij",
        )
        grid = torch.stack([x, y], dim=-1)[None] + centres[:, None, None]
        return F.grid_sample(frames, grid * 2 - 1, mode="bilinear", padding_mode="border", align_corners=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [G, 3, H, W] in 0 … 1 → keypoints [G, 143, 3]; background points invisible."""
        points = self.coarse_points(frames)
        lips = slice(OUTER_LIPS.start, INNER_LIPS.stop)
        for _ in range(2):
            centres = points[:, lips].mean(1)
            points[:, lips] = centres[:, None] + self.mouth(self.mouth_crops(frames, centres))
        keypoints = points.new_zeros(len(points), KEYPOINTS, 3)
        keypoints[:, :PERSON_POINTS, :2] = points
        keypoints[:, :PERSON_POINTS, 2] = self.visibility
        return keypoints


def background_points(reference: Tensor, person: Tensor) -> Tensor:
    """Up to 20 corners of the room in a reference frame: places of strong gradient away from the person.

    Args:
        reference: [3, H, W] in 0 … 1. person: [123, 3], keypoints of the person in it.

    Returns:
        [20, 3] keypoints; visibility 0 for those that were not found.
    """
    grey = reference.mean(0)
    rows, columns = grey.shape
    energy = torch.zeros_like(grey)
    energy[1:-1, 1:-1] = (grey[2:, 1:-1] - grey[:-2, 1:-1]).abs() * (grey[1:-1, 2:] - grey[1:-1, :-2]).abs()
    visible = person[person[:, 2] > 0.5]
    left, right = visible[:, 0].min() - 0.08, visible[:, 0].max() + 0.08
    top = visible[:, 1].min() - 0.15
    x = (torch.arange(columns, device=grey.device) + 0.5) / columns
    y = (torch.arange(rows, device=grey.device) + 0.5) / rows
    covered = (x > left) & (x < right) & (y[:, None] > top) | (y[:, None] > 0.8)
    energy = energy.masked_fill(covered, 0)
    found = torch.zeros(BACKGROUND_POINTS, 3, device=grey.device)
    radius = max(rows, columns) // 16
    for index in range(BACKGROUND_POINTS):
        best = int(energy.argmax())
        row, column = divmod(best, columns)
        if energy[row, column] <= 1e-5:
            break
        found[index] = torch.tensor([(column + 0.5) / columns, (row + 0.5) / rows, 1.0])
        energy[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = 0
    return found
