"""The asyncio side of one stream: its slots, its steps on the way, and what takes them back."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.timing import SAMPLES_PER_LATENT
from streamer.child.arrays import array_file
from streamer.engine.config import EngineFacts, StreamSpec, check_energy
from streamer.engine.ladder import Rung
from streamer.engine.messages import Done, NotDone, Open, Rewind, Step
from streamer.engine.shared_frames import SLOTS, Ring, RingShape
from streamer.errors import EngineError, EngineLost, PictureError, StepCancelled

MAX_PROMPT_CHARACTERS = 1000  # more than any encoder reads: `Preset.text.max_bytes`


@dataclass
class EngineChunk:
    """Frames of one step.

    Attributes:
        first_frame: stream frame index of frames[0]; the first chunk's is -delay_frames.
        frames: uint8 [T, H·3/2, W], I420, a view on shared memory; to be left alone after `release`.
        rung: of the ladder that made them.
        stage_ms: milliseconds by stage; empty for a held chunk.
        queued_s, started_s, finished_s: monotonic seconds.
        is_late: finished after its deadline.
        full_s: what it would have taken on the full rung, as far as the ladder can tell, with the room that the ladder
            wants for a climb.
    """

    first_frame: int
    frames: np.ndarray
    rung: Rung
    stage_ms: dict[str, float]
    queued_s: float
    started_s: float
    finished_s: float
    is_late: bool
    full_s: float
    _give_back: Callable[[], None] | None = field(default=None, repr=False)

    def release(self) -> None:
        """Give the frames' memory back to the stream. Idempotent."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            self.frames = self.frames[:0]
            give_back()


@dataclass
class _Pending:
    """A step that was sent to the engine."""

    step: int
    slot: int
    queued_s: float
    deadline_s: float
    future: asyncio.Future[EngineChunk]
    is_rewound: bool = False
    first_frame: int | None = None  # once it is done


class EngineStream:
    """One presenter's stream in the engine. Made by `Engine.open`.

    Args:
        number: of the stream, unique in the engine's life.
        send: sends a message with descriptors to the process that runs now.
        forget: tells the engine that the stream is closed; False if it knows already.
    """

    def __init__(
        self,
        number: int,
        spec: StreamSpec,
        facts: EngineFacts,
        send: Callable[[Any, Sequence[int]], None],
        forget: Callable[[int], bool],
    ) -> None:
        self.number = number
        self._facts, self._send, self._forget = facts, send, forget
        reference = usable_reference(spec.reference, facts.frame_size)
        self._spec = replace(spec, reference=reference, prompt=spec.prompt[:MAX_PROMPT_CHARACTERS])
        self._ring = Ring(RingShape(spec.chunk_latents, facts.frame_size))
        self._free = deque(range(SLOTS))
        self._waiters: deque[asyncio.Future[int]] = deque()
        self._pending: dict[int, _Pending] = {}
        self._newest: _Pending | None = None
        self._steps = 0
        self._changed: set[str] = set()  # fields of the spec that the engine has not been told of
        self._opening: asyncio.Future[None] | None = None
        # Why no step can be made. An error a raise: one that is raised again and again would keep all its frames.
        self._failure: Callable[[], EngineError] | None = lambda: EngineLost("the stream is not open yet")
        self.frame_index = -facts.delay_frames
        """Stream index of the first frame that the next step makes, as far as steps are done."""
        self.on_lost: Callable[[], None] = _nothing
        """Called when the engine dies under the open stream, whether a step is on its way or not."""

    async def step(self, samples: np.ndarray, deadline_s: float) -> EngineChunk:
        """Make the next chunk.

        Steps of a stream run in the order of these calls. Where all slots are taken, by chunks that are not released
        or not made yet, the call waits for one, but no longer than until its deadline.

        Args:
            samples: float32 [n·2560], 16 kHz, n up to the stream's `chunk_latents`.
            deadline_s: monotonic seconds by which the frames should be there. The ladder leaves out what it must.

        Raises:
            ValueError: if the samples have another shape.
            StepCancelled: if `rewind` took it back.
            EngineLost: if the engine died, or is being started again. The step did not happen: the stream goes on at
                the frame index it had. Later steps work once `Engine.is_ready` is true again.
            EngineError: if the step failed, no slot was free until the deadline, or the stream is closed.
        """
        latents, rest = divmod(len(samples), SAMPLES_PER_LATENT)
        if np.ndim(samples) != 1 or rest or not 1 <= latents <= self._spec.chunk_latents:
            raise ValueError(
                f"samples must be 1 … {self._spec.chunk_latents} times {SAMPLES_PER_LATENT}, got {np.shape(samples)}"
            )
        queued_s = time.monotonic()
        slot = await self._take_slot(deadline_s)
        if self._failure is not None:  # since the slot was handed over
            self._give_back(slot)
            raise self._failure()
        future = self._submit(slot, samples, latents, queued_s, deadline_s)
        try:
            return await future
        except asyncio.CancelledError:
            if _has_result(future):
                future.result().release()  # it came in the same moment, and nobody will ever see it
            raise
        finally:
            del future  # its error holds this frame: without the circle, closed streams are gone at once

    async def rewind(self) -> bool:
        """Forget the newest step, whether it waits, runs or is done; the next starts from the state before it.

        A step that is still pending raises `StepCancelled` at once; what the engine may still make of it is thrown
        away. A chunk that was handed out stays valid until it is released.

        Returns:
            False if there is none: one level only, none if the newest failed or the engine was lost since.
        """
        newest, self._newest = self._newest, None
        while self._waiters:
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_exception(StepCancelled("the step was taken back"))
                return True
        if newest is None:
            return False
        newest.is_rewound = True
        if newest.first_frame is not None:
            self.frame_index = newest.first_frame
        if not newest.future.done():
            newest.future.set_exception(StepCancelled("the step was taken back"))
        self._send(Rewind(self.number, newest.step), ())
        return True

    async def update(
        self, *, prompt: str | None = None, motion_energy: float | None = None, reference: np.ndarray | None = None
    ) -> None:
        """Change the stream from the next call of `step` on; None leaves a thing as it is.

        Raises:
            ValueError: if motion_energy is out of range.
            PictureError: if the reference has another size or type than the engine's frames.
        """
        changes: dict[str, Any] = {}
        if prompt is not None:
            changes["prompt"] = prompt[:MAX_PROMPT_CHARACTERS]
        if motion_energy is not None:
            check_energy(motion_energy)
            changes["motion_energy"] = motion_energy
        if reference is not None:
            changes["reference"] = usable_reference(reference, self._facts.frame_size)
        self._spec = replace(self._spec, **changes)
        self._changed |= changes.keys()

    async def close(self) -> None:
        """Close the stream; pending steps raise EngineError. Idempotent. Chunks stay valid until released."""
        self.on_lost = _nothing  # what it would tell is let go, and this stream by it
        if self._forget(self.number):
            self.fail(lambda: EngineError("the stream is closed"))
            self._ring.forget_descriptor()

    # What follows is for the engine, which hears the process.

    @property
    def is_open(self) -> bool:
        return self._failure is None

    @property
    def oldest_s(self) -> float | None:
        """When the step that waits longest was asked for; None if none waits."""
        return min((pending.queued_s for pending in self._pending.values()), default=None)

    async def open(self) -> None:
        """Open it in the process that runs now, where it left off.

        Raises:
            EngineLost: if the process dies meanwhile. EngineError: if it cannot be opened.
        """
        self._changed.clear()
        self._opening = asyncio.get_running_loop().create_future()
        request = Open(
            self.number,
            self._ring.shape,
            self._spec.prompt,
            self._spec.seed,
            self._spec.motion_energy,
            self.frame_index + self._facts.delay_frames,
        )
        opening = self._opening
        self._send(request, (os.dup(self._ring.descriptor), array_file(self._spec.reference)))
        await opening

    def take_opened(self, failure: str | None) -> None:
        self._failure = None if failure is None else lambda: EngineError(failure)
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            if self._failure is None:
                opening.set_result(None)
            else:
                opening.set_exception(self._failure())

    def take_done(self, message: Done) -> None:
        pending = self._pending.pop(message.step, None)
        if pending is None:
            return
        if not pending.is_rewound:
            pending.first_frame = message.first_frame
            self.frame_index = message.first_frame + message.frames
        if pending.future.done():  # rewound, or its caller was cancelled
            self._give_back(pending.slot)
            return
        slot = pending.slot
        pending.future.set_result(
            EngineChunk(
                message.first_frame,
                self._ring.frames(slot, message.frames),
                message.rung,
                message.stage_ms,
                pending.queued_s,
                message.started_s,
                message.finished_s,
                message.finished_s > pending.deadline_s,
                message.full_s,
                lambda: self._give_back(slot),
            )
        )

    def take_not_done(self, message: NotDone) -> None:
        pending = self._pending.pop(message.step, None)
        if pending is None:
            return
        self._give_back(pending.slot)
        if self._newest is pending:
            self._newest = None
        if not pending.future.done():
            pending.future.set_exception(EngineError(message.failure or "the step was forgotten"))

    def lose(self) -> None:
        """The process died."""
        was_open = self.is_open
        self.fail(lambda: EngineLost("the engine died; it is being started again"))
        if was_open:
            self.on_lost()

    def fail(self, failure: Callable[[], EngineError]) -> None:
        """No step can be made from now on, and none on the way will be answered."""
        self._failure = failure
        self._newest = None
        waiting: list[asyncio.Future[Any]] = [*self._waiters, *(p.future for p in self._pending.values())]
        if self._opening is not None:
            waiting.append(self._opening)
            self._opening = None
        for future in waiting:
            if not future.done():
                future.set_exception(failure())
        self._waiters.clear()
        pending, self._pending = self._pending, {}
        for step in pending.values():
            self._give_back(step.slot)

    async def _take_slot(self, deadline_s: float) -> int:
        if self._failure is not None:
            raise self._failure()
        if self._free:
            return self._free.popleft()
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                return await waiter
        except TimeoutError:
            if _has_result(waiter):
                return waiter.result()
            raise EngineError(f"no slot was free until the deadline: {SLOTS} chunks are out or on their way") from None
        except asyncio.CancelledError:
            if _has_result(waiter):
                self._give_back(waiter.result())
            raise
        finally:
            del waiter  # as in `step`

    def _give_back(self, slot: int) -> None:
        """A slot is free: for the step that waits longest, if one does."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        self._free.append(slot)

    def _submit(
        self, slot: int, samples: np.ndarray, latents: int, queued_s: float, deadline_s: float
    ) -> asyncio.Future[EngineChunk]:
        self._ring.sound(slot, latents)[:] = samples
        self._steps += 1
        future: asyncio.Future[EngineChunk] = asyncio.get_running_loop().create_future()
        pending = self._newest = _Pending(self._steps, slot, queued_s, deadline_s, future)
        self._pending[pending.step] = pending
        changed, self._changed = self._changed, set()
        request = Step(
            self.number,
            pending.step,
            slot,
            latents,
            deadline_s,
            self._spec.prompt if "prompt" in changed else None,
            self._spec.motion_energy if "motion_energy" in changed else None,
        )
        self._send(request, (array_file(self._spec.reference),) if "reference" in changed else ())
        return future


def usable_reference(reference: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """A reference picture as the engine takes it, or PictureError."""
    if reference.shape != (3, *frame_size) or reference.dtype.kind != "f":
        raise PictureError(
            f"the reference must be a float picture of 3 x {frame_size[0]} x {frame_size[1]},"
            f" not {reference.dtype} {' x '.join(map(str, reference.shape))}"
        )
    return np.ascontiguousarray(reference, np.float32)


def _nothing() -> None:
    """Nobody wants to know."""


def _has_result(future: asyncio.Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
