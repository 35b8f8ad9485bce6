"""Tiny encoder of Wan2.1 latents: our own implementation of the architecture of TAEHV's encoder (`taew2_1`).

The other half of `tiny_decoder`: names and shapes of the parameters are those of TAEHV, so that its public weights load
by name (`checkpoints.load_weights(path, encoder, prefix="encoder.")`). Unlike Wan's own encoder it takes frames in
groups of four from the first one on: 0-3, 4-7, 8-11. A video of other length is filled up with its last frame.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from models.tiny_decoder import FRAMES, MemoryBlock

EncoderCache = tuple[Tensor, ...]  # one [B, C, H, W] a block: its input of the frame before

_BLOCKS = 3  # a stage
_STRIDES = (2, 2, 1)  # frames to one, at 1/1, 1/2 and 1/4 resolution


class Merge(nn.Module):
    """`stride` frames → one, by a 1×1 convolution over the channels of all of them."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width * stride, width, 1, bias=False)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """x [T·B, C, H, W] → [T/stride·B, C, H, W]."""
        return self.conv(rearrange(x, "(t frame b) c h w -> (t b) (frame c) h w", b=batch, frame=self.stride))


class TinyEncoder(nn.Module):
    """Encodes video into normalised Wan2.1 latents (f8, t4, 16 channels), each of its own four frames."""

    def __init__(self, latent_channels: int = 16, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True)]
        for stride in _STRIDES:
            layers += [Merge(width, stride), nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)]
            layers += [MemoryBlock(width) for _ in range(_BLOCKS)]
        layers.append(nn.Conv2d(width, latent_channels, 3, padding=1))
        self.encoder = nn.Sequential(*layers)

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, T, 3, H, W] in 0 … 1 → latents [B, C, ceil(T / 4), H/8, W/8]; the last frame fills up a group."""
        missing = -frames.shape[1] % FRAMES
        filled = torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1)
        return self.encode_chunk(filled, None)[0]

    def encode_chunk(self, frames: Tensor, cache: EncoderCache | None) -> tuple[Tensor, EncoderCache]:
        """Encode the next groups of a stream.

        Args:
            frames: [B, 4k, 3, H, W] in 0 … 1, of any floating dtype.
            cache: what the call before returned; None at the start.

        Returns:
            latents [B, C, k, H/8, W/8] of the weights' dtype, and the cache.

        Raises:
            ValueError: for a number of frames, height or width that does not fit.
        """
        batch, count, _, height, width = frames.shape
        if not count or count % FRAMES or height % 8 or width % 8:
            raise ValueError(f"wanted groups of 4 frames of multiples of 8 pixels, got {count} of {height}×{width}")
        flat = rearrange(frames, "b t c h w -> (t b) c h w")
        x = flat.to(next(self.parameters()).dtype, memory_format=torch.channels_last)
        memories = iter((None,) * _BLOCKS * len(_STRIDES) if cache is None else cache)
        carried = []
        for layer in self.encoder:
            if isinstance(layer, MemoryBlock):
                x, memory = layer(x, batch, next(memories))
                carried.append(memory)
            elif isinstance(layer, Merge):
                x = layer(x, batch)
            else:
                x = layer(x)
        return rearrange(x, "(t b) c h w -> b c t h w", b=batch), tuple(carried)
