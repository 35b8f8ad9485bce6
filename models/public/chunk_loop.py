"""The chunk loop of the FlashHead families: latents, frames with the picture's colours, and the next chunk's prefix.

A chunk is a whole small video of `frames`; its first `motion_frames` were the last of the chunk before and are not
shown again. What passes on are the latents of the last ones, made anew from the frames as they are shown, so that what
the colour match took out does not come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.colour import LabStatistics, lab_statistics, match_colours

Encode = Callable[[Tensor], Tensor]  # a whole video [B, 3, F, H, W] around -1 … 1 → normalised latents [B, C, f, h, w]
Decode = Callable[[Tensor], Tensor]  # and back
Sample = Callable[[Tensor], Tensor]  # prefix [B, C, p, h, w] → latents [B, C, f, h, w] that start with it


class AutoEncoder(Protocol):
    """Both ways of whole videos."""

    def encode(self, video: Tensor, /) -> Tensor: ...

    def decode(self, latents: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class ChunkShape:
    """Frames of a chunk, and how many of them come from the chunk before."""

    motion_frames: int
    frames: int = 33

    @property
    def new_frames(self) -> int:
        return self.frames - self.motion_frames


@dataclass(frozen=True)
class Still:
    """What is made once of a picture: it serves every stream of it."""

    picture: Tensor  # [1, 3, 1, H, W] in -1 … 1
    latents: Tensor  # [1, C, f, h, w], of the picture as a still video
    colours: LabStatistics

    @property
    def prefix(self) -> Tensor:
        """[1, C, 1, h, w], of a chunk that nothing comes before."""
        return self.latents[:, :, :1]


@torch.inference_mode()
def still_of(picture: Tensor, encode: Encode, shape: ChunkShape) -> Still:
    """Of a picture [1, 3, 1, H, W] in -1 … 1, in the dtype of the models."""
    return Still(picture, encode(picture.expand(-1, -1, shape.frames, -1, -1)), lab_statistics(picture))


def stacked(stills: Sequence[Still]) -> Still:
    """Stills of B streams as one whose tensors are [B, …]."""
    colours = LabStatistics(
        torch.cat([still.colours.mean for still in stills]), torch.cat([still.colours.deviation for still in stills])
    )
    return Still(
        torch.cat([still.picture for still in stills]), torch.cat([still.latents for still in stills]), colours
    )


@torch.inference_mode()
def make_chunk(
    sample: Sample,
    prefix: Tensor,
    colours: LabStatistics,
    encode: Encode,
    decode: Decode,
    motion_frames: int,
    strength: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The next chunk of B streams.

    Args:
        sample: sampler and network, bound to the chunk's sound.
        prefix: latents [B, C, p, h, w] of the motion frames; `Still.prefix` at the start.
        colours: of the streams' stills.
        strength: 0 … 1, of the colour match.

    Returns:
        frames [B, 3, F, H, W], around -1 … 1 and within it where colours are matched, of which the first
        `motion_frames` were shown before; and the prefix of the next chunk.
    """
    frames = match_colours(decode(sample(prefix)), colours, strength)
    return frames, encode(frames[:, :, -motion_frames:])
