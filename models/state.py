"""What passes from chunk to chunk. Owned by a session, never by a module."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from models.conditions import AudioState
from models.vae import DecoderCache


@dataclass
class ChunkState:
    """State of one stream; `AvatarPipeline.step` returns the next one and leaves this one as it was.

    Latents are normalised. m is 0 before the first chunk and the preset's `motion_latents` after it.
    """

    seed: int
    chunk_latents: int
    frame_index: int  # media time of the next frame to come out, in frames; negative during the look-ahead
    latent_index: int  # latents made so far, without the reference
    text: Tensor  # [1, Lt, text_width]
    lr_reference: Tensor  # [1, C, 1, h, w]
    hr_reference: Tensor  # [1, C, 1, 2h, 2w]
    reference_keypoints: Tensor  # [143, 3], background included
    audio: AudioState
    audio_tokens: Tensor  # [context, audio_width], tokens before the next chunk's first frame
    lr_motion: Tensor | None = None  # [1, C, m, h, w]
    hr_motion: Tensor | None = None  # [1, C, m, 2h, 2w]
    motion_keypoints: Tensor | None = None  # [4m, 143, 3]
    lr_cache: DecoderCache | None = None
    hr_cache: DecoderCache | None = None
    motion_energy: float = 1.0
    stage_ms: dict[str, float] = field(default_factory=dict)  # milliseconds so far, by stage

    def copy(self) -> ChunkState:
        """An independent copy."""
        return copy.deepcopy(self)

    def to(self, device: torch.device | str) -> ChunkState:
        """The same state with its tensors on another device."""

        def moved(value: object) -> object:
            if isinstance(value, Tensor | AudioState):
                return value.to(device)
            if isinstance(value, tuple):
                return tuple(moved(item) for item in value)
            return value

        values = {item.name: moved(getattr(self, item.name)) for item in fields(self)}
        return ChunkState(**{**values, "stage_ms": dict(self.stage_ms)})  # type: ignore[arg-type]
