"""Memory that both processes see: a ring of slots a stream, each with room for a chunk's sound and its frames.

The memory's descriptor travels over the engine's socket.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import numpy as np

from models.timing import FRAMES_PER_LATENT, SAMPLES_PER_LATENT
from streamer.child.arrays import anonymous_file

SLOTS = 4
_ALIGNMENT = 64


@dataclass(frozen=True)
class RingShape:
    """Sizes of a ring: of chunks of up to `latents` latents and frames of height and width `frame_size`."""

    latents: int
    frame_size: tuple[int, int]

    @property
    def frames(self) -> int:
        return FRAMES_PER_LATENT * self.latents

    @property
    def sound_bytes(self) -> int:
        return _aligned(4 * SAMPLES_PER_LATENT * self.latents)

    @property
    def slot_bytes(self) -> int:
        height, width = self.frame_size
        return self.sound_bytes + _aligned(self.frames * height * 3 // 2 * width)


class Ring:
    """The slots of one stream in one process.

    Nothing needs to be closed: the memory is unmapped when the ring and all views of it are gone.

    Args:
        shape: of the slots.
        descriptor: of the memory, from another process, closed here; None makes new memory.
    """

    def __init__(self, shape: RingShape, descriptor: int | None = None) -> None:
        self.shape = shape
        size = SLOTS * shape.slot_bytes
        own = anonymous_file(size) if descriptor is None else descriptor
        try:
            self._memory = mmap.mmap(own, size)
        finally:
            if descriptor is not None:
                os.close(own)
        self._descriptor = own if descriptor is None else None

    @property
    def descriptor(self) -> int:
        """To be sent to the other process; there until `forget_descriptor`."""
        if self._descriptor is None:
            raise ValueError("the descriptor of this ring is closed")
        return self._descriptor

    def forget_descriptor(self) -> None:
        """Close the descriptor; views stay valid."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def sound(self, slot: int, latents: int) -> np.ndarray:
        """Float32 [latents·2560] of a slot, a view."""
        count = latents * SAMPLES_PER_LATENT
        return np.frombuffer(self._memory, np.float32, count, slot * self.shape.slot_bytes)

    def frames(self, slot: int, count: int) -> np.ndarray:
        """uint8 [count, H·3/2, W] of a slot, a view."""
        height, width = self.shape.frame_size
        offset = slot * self.shape.slot_bytes + self.shape.sound_bytes
        flat = np.frombuffer(self._memory, np.uint8, count * height * 3 // 2 * width, offset)
        return flat.reshape(count, height * 3 // 2, width)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
