"""The definition of RGB to I420 in limited range."""

import torch
from torch import Tensor

BT601 = (0.299, 0.114)  # weights of red and blue in luma
BT709 = (0.2126, 0.0722)
STANDARDS = {"bt601": BT601, "bt709": BT709}
Rows = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


def conversion_rows(standard: str) -> Rows:
    """Weights of R, G, B in 0 … 1 for Y (without its offset 16) and for U and V (without their offset 128)."""
    red, blue = STANDARDS[standard]
    luma = (red, 1.0 - red - blue, blue)
    to_u, to_v = 112.0 / (1.0 - blue), 112.0 / (1.0 - red)
    return (
        (219.0 * luma[0], 219.0 * luma[1], 219.0 * luma[2]),
        (-to_u * luma[0], -to_u * luma[1], to_u * (1.0 - luma[2])),
        (to_v * (1.0 - luma[0]), -to_v * luma[1], -to_v * luma[2]),
    )


def rgb_to_i420_reference(frames: Tensor, standard: str) -> Tensor:
    """Frames [T, 3, H, W] in 0 … 1 → uint8 [T, H·3/2, W], in fp32, halves rounded up.

    Frames are clipped to 0 … 1. A chroma sample is the mean of the 2×2 pixels around it, rounded once.
    """
    count, _, height, width = frames.shape
    rgb = frames.float().clamp(0.0, 1.0)
    to_y, to_u, to_v = torch.tensor(conversion_rows(standard), dtype=torch.float32, device=frames.device)
    small = rgb.reshape(count, 3, height // 2, 2, width // 2, 2).mean(dim=(3, 5))
    planes = [
        torch.einsum("tchw,c->thw", rgb, to_y) + 16.0,
        torch.einsum("tchw,c->thw", small, to_u) + 128.0,
        torch.einsum("tchw,c->thw", small, to_v) + 128.0,
    ]
    return torch.cat([torch.floor(plane + 0.5).to(torch.uint8).flatten(1) for plane in planes], dim=1).unflatten(
        1, (height * 3 // 2, width)
    )
