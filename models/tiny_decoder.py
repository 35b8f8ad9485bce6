"""Tiny decoder of Wan2.1 latents: our own implementation of the architecture of TAEHV's decoder (`taew2_1`).

Names and shapes of the parameters are those of github.com/madebyollin/taehv (MIT), so that its public weights load by
name: `checkpoints.load_weights(path, decoder, prefix="decoder.")` leaves the encoder beside them.
Three stages at 1/8, 1/4 and 1/2 resolution, of 1, 1 and 2 frames a latent, each of three convolutional blocks that
also see the frame before; those frames are all that has to be carried from chunk to chunk. A latent of 704×1280
takes 1.189 TFLOP, at half rate 1.046 (counted by `torch.utils.flop_counter`, two a multiply-add).

TAEHV was fitted to the latents that a diffusion model works on: normalised ones go in as they are, without the mean
and deviation that Wan's own decoder undoes first.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from models.configs import TinyDecoderConfig
from models.vae import DecoderCache

FRAMES = 4  # a latent
_BLOCKS = 3  # a stage
_LAST_GROWTH = 19  # place in the decoder of the layer that makes the last two frames of one


class SoftClamp(nn.Module):
    """Latents of any size → within -3 … 3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class MemoryBlock(nn.Module):
    """A residual block that also sees its input of the frame before; zeros before the first.

    Frames lie in the batch dimension, time outermost: the frame before is then a shift by B rows, and channels_last
    tensors stay so.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _convolution(2 * width, width),
            nn.ReLU(inplace=True),
            _convolution(width, width),
            nn.ReLU(inplace=True),
            _convolution(width, width),
        )

    def forward(self, x: Tensor, batch: int, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [T·B, C, H, W], memory [B, C, H, W] or None → (the same shape, the memory for the next chunk)."""
        before = torch.zeros_like(x[:batch]) if memory is None else memory
        if len(x) > batch:
            before = torch.cat([before, x[:-batch]])
        y = F.relu(self.conv(torch.cat([x, before], dim=1)) + x)
        return y, x[-batch:].clone()  # a view would keep all frames of the chunk in a session's state


class Growth(nn.Module):
    """Each frame → `stride` frames of twice the height and width: a 1×1 convolution, then pixels are repeated."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, x: Tensor, batch: int, kept: int) -> Tensor:
        """x [T·B, C, H, W] → [T·kept·B, C, 2H, 2W], channels_last: the first `kept` of each frame's `stride`."""
        # TAEHV enlarges first, which for a 1×1 convolution gives the same pixels at four times the cost.
        grown = F.conv2d(x, self.conv.weight[: kept * x.shape[1]])
        pattern = "(t b) (frame c) h w -> (t frame b) (h rows) (w columns) c"
        return repeat(grown, pattern, b=batch, frame=kept, rows=2, columns=2).permute(0, 3, 1, 2)


class TinyDecoder(nn.Module):
    """Decodes normalised Wan2.1 latents (f8, t4, 16 channels); the first latent of a stream is one frame."""

    def __init__(self, config: TinyDecoderConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [SoftClamp()]
        layers += [_convolution(config.latent_channels, config.widths[0]), nn.ReLU(inplace=True)]
        for stride, (width, following) in zip((1, 2, 2), pairwise(config.widths), strict=True):
            layers += [MemoryBlock(width) for _ in range(_BLOCKS)]
            # The place of TAEHV's enlargement is kept, since the parameters are named by their layer's place.
            layers += [nn.Identity(), Growth(width, stride), _convolution(width, following, bias=False)]
        layers += [nn.ReLU(inplace=True), _convolution(config.widths[-1], 3)]
        self.decoder = nn.Sequential(*layers)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, 1 + k, h, w], the first of one frame → frames [B, 1 + 4k, 3, 8h, 8w] in 0 … 1."""
        return self.decode_chunk(latents, None)[0]

    def decode_chunk(
        self, latents: Tensor, cache: DecoderCache | None, is_half_rate: bool = False
    ) -> tuple[Tensor, DecoderCache]:
        """Decode the next T latents of a stream.

        Args:
            latents: [B, C, T, h, w], normalised, of any floating dtype.
            cache: what the call before returned; None at the start, where the first latent is one frame.
            is_half_rate: decode the first and third frame of each latent, and give each of them twice.

        Returns:
            frames [B, 4T, 3, 8h, 8w] (three fewer at the start) in 0 … 1, of the weights' dtype (or that of autocast),
            not contiguous in memory; and the cache, one [B, C, H, W] a block, which is the same at either rate.
        """
        frames, cache_after = self.decode_raw(latents, cache, is_half_rate)
        frames = frames.clamp_(0, 1)
        if is_half_rate:
            frames = frames.repeat_interleave(2, dim=1)
        return (frames[:, FRAMES - 1 :] if cache is None else frames), cache_after

    def decode_raw(
        self, latents: Tensor, cache: DecoderCache | None, is_half_rate: bool = False
    ) -> tuple[Tensor, DecoderCache]:
        """What the layers make of latents, and the cache: every frame once, those before the first too, not clipped."""
        batch = latents.shape[0]
        flat = rearrange(latents, "b c t h w -> (t b) c h w")
        x = flat.to(next(self.parameters()).dtype, memory_format=torch.channels_last)
        memories = iter((None,) * _BLOCKS * 3 if cache is None else cache)
        carried = []
        for place, layer in enumerate(self.decoder):
            if isinstance(layer, MemoryBlock):
                x, memory = layer(x, batch, next(memories))
                carried.append(memory)
            elif isinstance(layer, Growth):
                # No block comes after the last growth, so that frames which are not shown need not be made there.
                x = layer(x, batch, 1 if is_half_rate and place == _LAST_GROWTH else layer.stride)
            else:
                x = layer(x)
        return rearrange(x, "(t b) c h w -> b t c h w", b=batch), tuple(carried)


def _convolution(channels: int, width: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1, bias=bias)
