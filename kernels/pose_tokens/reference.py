"""The definition of pose tokens: blobs at the keypoints, drawn on a map, cut into patches."""

import torch
from torch import Tensor

Channels = tuple[tuple[int, int, float], ...]  # a channel: its first point, the one after its last, blob radius


def pose_maps_reference(keypoints: Tensor, height: int, width: int, channels: Channels, ceiling: float) -> Tensor:
    """Keypoints [..., P, 3] → fp32 maps [..., C, height, width].

    A channel is the sum over its points of visibility · exp(-((row - y)² + (column - x)²) / (2 · radius²)), at most
    `ceiling`; rows and columns are the middles of the map's cells, x and y are parts of its width and height.
    """
    rows = torch.arange(height, device=keypoints.device) + 0.5
    columns = torch.arange(width, device=keypoints.device) + 0.5
    maps = []
    for start, stop, radius in channels:
        x, y, visible = (part.float() for part in keypoints[..., start:stop, :].unbind(-1))
        along_y = torch.exp(-((rows - y[..., None] * height) ** 2) / (2 * radius**2)) * visible[..., None]
        along_x = torch.exp(-((columns - x[..., None] * width) ** 2) / (2 * radius**2))
        maps.append(along_y.transpose(-1, -2) @ along_x)
    return torch.stack(maps, dim=-3).clamp_max(ceiling)


def patches(maps: Tensor) -> Tensor:
    """Maps [B, 4T, C, 4h, 4w] → [B, T, h·w, 4·C·16], ordered (frame, channel, row, column) inside a patch."""
    batch, frames, channels, height, width = maps.shape
    shape = (batch, frames // 4, 4, channels, height // 4, 4, width // 4, 4)
    return maps.reshape(shape).permute(0, 1, 4, 6, 2, 3, 5, 7).reshape(
        batch, frames // 4, height * width // 16, 64 * channels
    )  # fmt: skip
