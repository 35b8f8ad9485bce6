"""The engine process: takes chunks off a socket, the earliest deadline first, and makes their frames.

One thread does everything, in turn: read what has arrived, run one chunk (on a GPU one of several streams at once),
answer. What arrives while a chunk runs is read after it; a rewind that comes too late to stop a chunk takes its result
back instead. The process ends when the socket does, which is when its parent closes it or dies.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.timing import FRAMES_PER_LATENT, SAMPLES_PER_LATENT
from streamer.child import ChildChannel
from streamer.child.arrays import read_array
from streamer.engine.backend import Chunk, make_backend
from streamer.engine.config import EngineConfig, EngineFacts
from streamer.engine.ladder import CLIMB_ROOM, Due, Ladder, Rung, StreamRung
from streamer.engine.messages import CloseStream, Done, NotDone, Open, Opened, Ready, Rewind, Step
from streamer.engine.shared_frames import Ring

WARM_LATENTS = 3
WARM_LIMIT_S = 20.0  # a preset that is hopeless here must still start


def run(channel: ChildChannel, config: EngineConfig, known: EngineFacts | None) -> None:
    """The process's whole life.

    Args:
        known: what an engine before this one measured, which is not measured again.
    """
    Worker(channel, config, known).serve()


@dataclass(frozen=True)
class Conditions:
    """What a caller may change between steps; `reference_index` counts its pictures."""

    prompt: str
    motion_energy: float
    reference: np.ndarray = field(compare=False)
    reference_index: int = 0


@dataclass(frozen=True)
class Snapshot:
    """All that a step changes; the one before the newest step is kept for a rewind."""

    state: Any
    conditions: Conditions  # that are in the state
    last_frame: np.ndarray  # uint8 [H·3/2, W], what a hold shows


@dataclass(frozen=True)
class Job:
    request: Step
    conditions: Conditions


class WorkerStream:
    """One stream in the engine process."""

    def __init__(self, request: Open, ring: Ring, snapshot: Snapshot) -> None:
        self.number = request.stream
        self.ring = ring
        self.jobs: deque[Job] = deque()
        self.conditions = snapshot.conditions
        self.now = snapshot
        self.before: Snapshot | None = None
        self.newest_step: int | None = None
        self.rung = StreamRung()

    def add(self, request: Step, reference: np.ndarray | None) -> None:
        """Queue a chunk, with the conditions that hold from it on."""
        changes: dict[str, Any] = {}
        if request.prompt is not None:
            changes["prompt"] = request.prompt
        if request.motion_energy is not None:
            changes["motion_energy"] = request.motion_energy
        if reference is not None:
            changes |= {"reference": reference, "reference_index": self.conditions.reference_index + 1}
        self.conditions = dataclasses.replace(self.conditions, **changes)
        self.jobs.append(Job(request, self.conditions))

    def rewind(self, step: int) -> bool:
        """Forget a step; True if it was still queued."""
        if self.jobs and self.jobs[-1].request.step == step:
            self.jobs.pop()
            return True
        if self.newest_step == step and self.before is not None:
            self.now, self.before, self.newest_step = self.before, None, None
        return False

    def advance(self, step: int, snapshot: Snapshot) -> None:
        self.before, self.now, self.newest_step = self.now, snapshot, step


class Worker:
    """The streams of a process, and the loop over them.

    Raises:
        Exception: whatever loading the weights raises.
    """

    def __init__(self, channel: ChildChannel, config: EngineConfig, known: EngineFacts | None) -> None:
        self._channel = channel
        self._backend = make_backend(config)
        height, width = self._backend.frame_size
        self._streams: dict[int, WorkerStream] = {}
        latents = self._backend.fixed_latents or WARM_LATENTS
        if known is not None:
            rung_s = known.rung_s
        else:
            rung_s = measure_rungs(self._warm_up(latents), self._backend.rungs, latents)
        self._ladder = Ladder(rung_s)
        latent_s = FRAMES_PER_LATENT / self._backend.fps
        self._channel.send(
            Ready(
                EngineFacts(
                    fps=self._backend.fps,
                    sample_rate=self._backend.sample_rate,
                    frame_size=(height, width),
                    delay_frames=self._backend.delay_frames,
                    preset=config.name,
                    device=config.device,
                    warm_rtf=rung_s[Rung.FULL] / latent_s,
                    rung_s=rung_s,
                    pid=os.getpid(),
                    fixed_latents=self._backend.fixed_latents,
                )
            )
        )

    def _warm_up(self, latents: int) -> Callable[[Rung], object]:
        """A stream of noise, one chunk a call."""
        state = self._backend.rehearsal()
        samples = np.random.default_rng(0).normal(0, 0.1, latents * SAMPLES_PER_LATENT).astype(np.float32)

        def make(rung: Rung) -> None:
            nonlocal state
            _, state, _ = self._backend.step_batch([samples], [state], rung)[0]

        return make

    def serve(self) -> None:
        """Raises EOFError when the parent closes its end, or is gone."""
        while True:
            waiting = self._waiting()
            arrived = self._channel.receive(is_waiting=not waiting)
            if arrived is not None:
                self._take(*arrived)
            else:
                self._run(waiting)

    def _take(self, message: Any, descriptors: list[int]) -> None:
        match message:
            case Open():
                self._open(message, *descriptors)
            case Step(stream=number):
                reference = self._read_reference(descriptors[0]) if descriptors else None
                if (stream := self._streams.get(number)) is not None:
                    stream.add(message, reference)
            case Rewind(stream=number, step=step):
                if number in self._streams and self._streams[number].rewind(step):
                    self._channel.send(NotDone(number, step))
            case CloseStream(stream=number):
                self._streams.pop(number, None)

    def _read_reference(self, descriptor: int) -> np.ndarray:
        return read_array(descriptor, (3, *self._backend.frame_size))

    def _open(self, request: Open, ring_descriptor: int, reference_descriptor: int) -> None:
        try:
            ring = Ring(request.shape, ring_descriptor)
            reference = self._read_reference(reference_descriptor)
            state = self._backend.start(
                reference,
                request.prompt,
                request.seed,
                request.shape.latents,
                request.motion_energy,
                request.first_frame,
            )
        except Exception as error:
            logging.exception("a stream could not be opened")
            self._channel.send(Opened(request.stream, f"the stream could not be opened: {error}"))
            return
        conditions = Conditions(request.prompt, request.motion_energy, reference)
        shown = Snapshot(state, conditions, self._backend.still(state))
        self._streams[request.stream] = WorkerStream(request, ring, shown)
        self._channel.send(Opened(request.stream))

    def _waiting(self) -> list[WorkerStream]:
        """Streams with a chunk to make, the earliest deadline first."""
        waiting = [stream for stream in self._streams.values() if stream.jobs]
        return sorted(waiting, key=lambda stream: stream.jobs[0].request.deadline_s)

    def _run(self, waiting: list[WorkerStream]) -> None:
        """Make the first chunk of the first stream, and with it those of others that it has time for."""
        rung, together = self._choose(waiting, time.monotonic())
        self._make([(stream, stream.jobs.popleft()) for stream in together], rung)

    def _choose(self, waiting: list[WorkerStream], now_s: float) -> tuple[Rung, list[WorkerStream]]:
        """The rung of the first stream, and the streams whose chunks are made in one step by that rung."""
        dues = [Due(stream.jobs[0].request.deadline_s, stream.jobs[0].request.latents) for stream in waiting]
        rung = self._ladder.choose(waiting[0].rung, dues, now_s)
        together, ready_s = waiting[:1], now_s + self._ladder.predicted_s(rung, dues[0].latents)
        for place in range(1, len(waiting)):
            finish_s = ready_s + self._ladder.predicted_s(rung, dues[place].latents)
            if rung is Rung.HOLD or len(together) >= self._backend.largest_batch or finish_s > dues[0].deadline_s:
                break
            stream_rung = dataclasses.replace(waiting[place].rung)
            if self._ladder.choose(stream_rung, dues[place:], ready_s) is rung:
                waiting[place].rung = stream_rung
                together.append(waiting[place])
                ready_s = finish_s
        return rung, together

    def _make(self, batch: list[tuple[WorkerStream, Job]], rung: Rung) -> None:
        """Make chunks in one step, each into its slot, and answer."""
        started_s = time.monotonic()
        try:
            made = self._step(batch, rung)
        except Exception as error:
            logging.exception("a step failed")
            if len(batch) == 1:
                stream, job = batch[0]
                self._channel.send(NotDone(stream.number, job.request.step, f"the step failed: {error}"))
            else:  # whichever it was: the others shall not pay for it
                for one in batch:
                    self._make([one], rung)
            return
        finished_s = time.monotonic()
        for (stream, job), (snapshot, stage_ms) in zip(batch, made, strict=True):
            step, latents = job.request.step, job.request.latents
            first_frame, frames = stream.now.state.frame_index, FRAMES_PER_LATENT * latents
            stream.advance(step, snapshot)
            full_s = CLIMB_ROOM * self._ladder.predicted_s(Rung.FULL, latents)
            self._channel.send(
                Done(stream.number, step, first_frame, frames, rung, stage_ms, started_s, finished_s, full_s)
            )

    def _step(self, batch: list[tuple[WorkerStream, Job]], rung: Rung) -> list[tuple[Snapshot, dict[str, float]]]:
        """Frames of chunks into their slots; of each the snapshot after it, and milliseconds by stage."""
        states = [self._with_conditions(stream.now, job.conditions) for stream, job in batch]
        samples = [stream.ring.sound(job.request.slot, job.request.latents) for stream, job in batch]
        began_s = time.monotonic()
        if rung is Rung.HOLD:
            after = [self._hold(*one, *heard) for one, *heard in zip(batch, samples, states, strict=True)]
        else:
            made = self._backend.step_batch(samples, states, rung)
            after = [self._shown(*one, chunk) for one, chunk in zip(batch, made, strict=True)]
        latents = sum(job.request.latents for _, job in batch)
        self._ladder.record(rung, latents, time.monotonic() - began_s)
        return after

    def _hold(
        self, stream: WorkerStream, job: Job, samples: np.ndarray, state: Any
    ) -> tuple[Snapshot, dict[str, float]]:
        """Past a chunk, with the last frame in its slot."""
        last = stream.now.last_frame
        self._frames(stream, job)[:] = last
        return Snapshot(self._backend.hold(samples, state), job.conditions, last), {}

    def _shown(self, stream: WorkerStream, job: Job, chunk: Chunk) -> tuple[Snapshot, dict[str, float]]:
        """A chunk's frames, in its slot."""
        planes, state, stage_ms = chunk
        self._frames(stream, job)[:] = planes
        return Snapshot(state, job.conditions, planes[-1].copy()), stage_ms

    @staticmethod
    def _frames(stream: WorkerStream, job: Job) -> np.ndarray:
        return stream.ring.frames(job.request.slot, FRAMES_PER_LATENT * job.request.latents)

    def _with_conditions(self, now: Snapshot, wanted: Conditions) -> Any:
        """The state, with what the caller changed since it was made."""
        state, had = now.state, now.conditions
        if wanted.reference_index != had.reference_index:
            state = self._backend.set_reference(state, wanted.reference)
        prompt = wanted.prompt if wanted.prompt != had.prompt else None
        energy = wanted.motion_energy if wanted.motion_energy != had.motion_energy else None
        if prompt is not None or energy is not None:
            state = self._backend.set_prompt(state, prompt, energy)
        return state


def measure_rungs(
    make: Callable[[Rung], object],
    rungs: Sequence[Rung],
    latents: int,
    clock: Callable[[], float] = time.monotonic,
) -> dict[Rung, float]:
    """Seconds a latent of every rung of a model: the faster of two chunks of so many latents, after a cold one.

    Where that takes longer than `WARM_LIMIT_S`, the cold figure stands for the rungs that were not reached.

    Args:
        make: makes one chunk by a rung.
    """
    began_s = clock()
    make(Rung.FULL)
    cold_s = clock() - began_s
    latent_s: dict[Rung, float] = {}
    for rung in rungs:
        times: list[float] = []
        while len(times) < 2 and clock() - began_s < WARM_LIMIT_S:
            step_began_s = clock()
            make(rung)
            times.append(clock() - step_began_s)
        latent_s[rung] = max(1e-4, min(times, default=cold_s)) / latents
    return latent_s
