"""What passes from chunk to chunk. Owned by a session, never by a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.conditions import AudioState
from models.configs import SamplingConfig
from models.motion import PlanPlace
from models.vae import DecoderCache


@dataclass(frozen=True)
class Reference:
    """What `AvatarPipeline` makes of a picture, once. Latents are normalised."""

    lr_picture: Tensor  # [1, 3, 8h, 8w] in 0 … 1
    hr_picture: Tensor  # [1, 3, 16h, 16w]
    lr_latents: Tensor  # [1, C, 1, h, w]
    hr_latents: Tensor  # [1, C, 1, 2h, 2w]
    keypoints: Tensor  # [143, 3], background included
    lr_cache: DecoderCache  # of the decoder, after the reference
    hr_cache: DecoderCache


@dataclass(frozen=True)
class ChunkState:
    """State of one stream; `AvatarPipeline.step` returns the next one and leaves this one as it was.

    Latents are normalised. m is 0 before the first chunk and the preset's `motion_latents` after it; HR motion and
    keypoints are None too after a chunk that was not refined.
    """

    seed: int  # of the noise
    chunk_latents: int
    plan: PlanPlace
    frame_index: int  # media time of the next frame to come out, in frames; negative during the look-ahead
    latent_index: int  # latents made so far, without the reference
    text: Tensor  # [1, Lt, text_width]
    reference: Reference
    audio: AudioState
    audio_tokens: Tensor  # [context, audio_width], tokens before the next chunk's first frame
    lr_motion: Tensor | None = None  # [1, C, m, h, w]
    hr_motion: Tensor | None = None  # [1, C, m, 2h, 2w]
    motion_keypoints: Tensor | None = None  # [4m, 143, 3]
    lr_cache: DecoderCache | None = None
    hr_cache: DecoderCache | None = None

    @property
    def motion_counts(self) -> tuple[int, int]:
        """LR and HR motion latents; streams in which they agree can be stepped together."""
        lr_count, hr_count = (0 if motion is None else motion.shape[2] for motion in (self.lr_motion, self.hr_motion))
        return lr_count, hr_count

    def with_hr_of(self, other: ChunkState) -> ChunkState:
        """This state, with what the HR half of the chunk before carried on in another one of the same stream."""
        return replace(
            self, hr_motion=other.hr_motion, motion_keypoints=other.motion_keypoints, hr_cache=other.hr_cache
        )


@dataclass(frozen=True)
class Draft:
    """The LR half of a chunk of B streams, which the HR half starts from.

    Keypoints are None in a chunk that is not refined. `after` are the states that follow, as far as they are known:
    what the HR half carries on is not in them yet.
    """

    states: list[ChunkState]  # before the chunk
    after: list[ChunkState]
    sampling: SamplingConfig
    lr_latents: Tensor  # [B, C, n, h, w]
    lr_frames: Tensor  # [B, 4n, 3, 8h, 8w] in 0 … 1
    keypoints: Tensor | None  # [B, 4n, 143, 3]
    stage_ms: dict[str, float]  # of all streams together


def join(rows: Sequence[Tensor]) -> Tensor:
    """Tensors [1, …] of B streams → [B, …]; of one stream the tensor itself."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows))


def join_caches(caches: Sequence[DecoderCache | None]) -> DecoderCache | None:
    """Decoder caches of B streams → one of [B, …]; None if they are at the start."""
    present = [cache for cache in caches if cache is not None]
    return tuple(join(level) for level in zip(*present, strict=True)) if present else None


def row_of_cache(cache: DecoderCache, row: int) -> DecoderCache:
    """One stream's part of a joined cache."""
    return tuple(level[row : row + 1] for level in cache)
