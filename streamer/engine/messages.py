"""What the engine's two processes say to each other, over a `streamer.child` channel."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.engine.config import EngineFacts
from streamer.engine.ladder import Rung
from streamer.engine.shared_frames import RingShape

# To the child.


@dataclass(frozen=True)
class Open:
    """A new stream; with the descriptors of its ring and of its reference picture."""

    stream: int
    shape: RingShape
    prompt: str
    seed: int
    motion_energy: float
    first_frame: int


@dataclass(frozen=True)
class Step:
    """A chunk; its sound is in the slot. None: as before. With the descriptor of a new reference, if there is one."""

    stream: int
    step: int
    slot: int
    latents: int
    deadline_s: float
    prompt: str | None = None
    motion_energy: float | None = None


@dataclass(frozen=True)
class Rewind:
    """Forget this step, which is the stream's newest."""

    stream: int
    step: int


@dataclass(frozen=True)
class CloseStream:
    stream: int


# From the child.


@dataclass(frozen=True)
class Ready:
    facts: EngineFacts


@dataclass(frozen=True)
class Opened:
    """A stream is open; or not, and why."""

    stream: int
    failure: str | None = None


@dataclass(frozen=True)
class Done:
    """A step's frames are in its slot. `full_s` as in `EngineChunk`."""

    stream: int
    step: int
    first_frame: int
    frames: int
    rung: Rung
    stage_ms: dict[str, float]
    started_s: float
    finished_s: float
    full_s: float


@dataclass(frozen=True)
class NotDone:
    """A step was forgotten before it ran (`failure` None), or failed; its slot is free."""

    stream: int
    step: int
    failure: str | None = None


MESSAGES = (Open, Step, Rewind, CloseStream, Ready, Opened, Done, NotDone)
