"""The seam behind which everything talks: one picture and sound in, chunks of frames out.

Whoever makes frames (the engine, the offline renderer, the evaluation) knows `TalkingModel` and nothing else of a
family of models. Importing this loads no torch: the media process names rungs too.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from models.timing import FRAMES_PER_LATENT
from models.timing import SAMPLES_PER_LATENT as LATENT_SAMPLES

if TYPE_CHECKING:
    import torch
    from torch import Tensor


MAX_CHUNK_LATENTS = 6


class Rung(enum.IntEnum):
    """What is left out of a chunk when time is short, from nothing to everything; each costs less than the one before.

    Below FULL guidance and half of the LR steps are left out too, where a preset has them. A model without a refiner
    leaves out steps in its place.
    """

    FULL = 0
    HALF_RATE = 1  # every second frame, shown twice
    NO_REFINER = 2  # LR frames enlarged, or the moved picture alone; all of them
    NO_REFINER_HALF_RATE = 3
    HOLD = 4  # the last frame stays

    @property
    def is_half_rate(self) -> bool:
        return self in (Rung.HALF_RATE, Rung.NO_REFINER_HALF_RATE)


class StreamState(Protocol):
    """What passes from chunk to chunk of one stream: a value, never changed in place, of constant size."""

    @property
    def frame_index(self) -> int:
        """Media time of the next frame to come out, in frames; negative during the look-ahead."""
        ...


P = TypeVar("P")
S = TypeVar("S", bound=StreamState)


class Chunk(NamedTuple, Generic[S]):
    """What a step makes.

    Attributes:
        frames: uint8 [T, H, W, 3] in main memory, or float [T, 3, H, W] in 0 … 1 on the model's device; the caller's
            own, to be changed at will.
        state: to go on from.
        stage_ms: milliseconds that this stream's share of the chunk took, by stage.
    """

    frames: Tensor
    state: S
    stage_ms: dict[str, float]


class TalkingModel(Protocol[P, S]):
    """A family of models, loaded. Holds no stream's state: one serves many streams.

    P is all that it makes of a picture, once, and never changes; S the state of a stream. A chunk is n = 1 … 6 latents
    of 4 frames; a stream's chunks may differ in length, but for a model with `fixed_latents`. Later sound cannot change
    earlier frames, and frames do not depend on how the sound was cut.
    """

    @property
    def fps(self) -> int: ...

    @property
    def sample_rate(self) -> int:
        """Of the sound it hears, Hz."""
        ...

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames, pixels, even."""
        ...

    @property
    def delay_frames(self) -> int:
        """The frames of a step end this many frames before its sound does: the look-ahead."""
        ...

    @property
    def fixed_latents(self) -> int | None:
        """The n that every step must have, where the model has only one; None: any of 1 … 6."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The ways to make a chunk, FULL first, each cheaper than the one before; HOLD is not among them."""
        ...

    def prepare(self, picture: Tensor, /) -> P:
        """What is made once of a reference picture, uint8 [H, W, 3] or float [3, H, W] in 0 … 1.

        Raises:
            ValueError: if nothing can be made of it, in words for the user.
        """
        ...

    def rehearsal(self) -> S:
        """A stream that stands for any, to warm up and to measure with."""
        ...

    def still(self, state: S, /) -> Tensor:
        """A stream's presenter at rest as one frame, [1, …] as in `Chunk.frames`."""
        ...

    def start(
        self,
        reference: Tensor | P,
        /,
        prompt: str = "",
        seed: int = 0,
        chunk_latents: int | None = None,
        motion_energy: float = 1.0,
        first_frame: int = 0,
    ) -> S:
        """State of a new stream of a picture or of what `prepare` made of it.

        Args:
            prompt: emotion and manner in words.
            seed: of everything random.
            chunk_latents: n that steps are expected to have; None is the model's own.
            motion_energy: 0 … 2, scale of head and torso motion.
            first_frame: media time of the sound that comes first, in frames, a multiple of 4.

        Raises:
            ValueError: as `prepare`, or if an argument is out of range.
        """
        ...

    def step(self, samples: Tensor, state: S, rung: Rung = Rung.FULL, /) -> Chunk[S]:
        """The next chunk.

        Args:
            samples: float [n·2560] mono 16 kHz in -1 … 1.
            state: of the stream; not changed.

        Raises:
            ValueError: if the samples have another shape.
        """
        ...

    def step_batch(self, samples: Sequence[Tensor], states: Sequence[S], rung: Rung = Rung.FULL, /) -> list[Chunk[S]]:
        """The next chunk of several streams, each of them as `step` would make it."""
        ...

    def hold(self, samples: Tensor, state: S, /) -> S:
        """Past a chunk without frames: the sound is heard, motion stands still, what follows starts there."""
        ...

    def set_prompt(self, state: S, prompt: str | None = None, motion_energy: float | None = None) -> S:
        """The same stream with another prompt or motion energy from the next chunk on; None leaves it."""
        ...

    def set_reference(self, state: S, reference: Tensor | P, /) -> S:
        """The same stream with another presenter from the next chunk on: sound, plan and prompt go on."""
        ...

    def to_i420(self, frames: Tensor, /) -> Tensor:
        """Frames as in `Chunk.frames` → planes that encoders take, uint8 [T, H·3/2, W]."""
        ...


def new_latents(samples: Tensor) -> int:
    """n of a chunk of n·2560 samples.

    Raises:
        ValueError: if it is none.
    """
    new, rest = divmod(samples.shape[0], LATENT_SAMPLES)
    if rest or not 1 <= new <= MAX_CHUNK_LATENTS:
        raise ValueError(f"samples must be 1 … {MAX_CHUNK_LATENTS} times {LATENT_SAMPLES}, got {samples.shape[0]}")
    return new


def check_stream(chunk_latents: int | None, first_frame: int) -> None:
    """Hold what a stream starts with against what `TalkingModel.start` allows.

    Raises:
        ValueError: if it is out of range.
    """
    if chunk_latents is not None and not 1 <= chunk_latents <= MAX_CHUNK_LATENTS:
        raise ValueError(f"chunk_latents must be within 1 … {MAX_CHUNK_LATENTS}, got {chunk_latents}")
    if first_frame < 0 or first_frame % FRAMES_PER_LATENT:
        raise ValueError(f"first_frame must be a multiple of {FRAMES_PER_LATENT}, at least 0, got {first_frame}")
