"""The asyncio side of the engine: starts the process, holds its streams, and starts it again when it dies.

Nothing here computes or blocks, and nothing that waits is unbounded: a stream has four slots, and a step that finds
none free waits for one until its own deadline, then fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from models.threads import calm_threads
from streamer.child import ChildProcess
from streamer.engine.config import EngineConfig, EngineFacts, StreamSpec
from streamer.engine.messages import MESSAGES, CloseStream, Done, NotDone, Opened
from streamer.engine.stream import EngineChunk, EngineStream, StepCancelled
from streamer.engine.worker import run
from streamer.errors import CapacityError, ChildError, ChildLost, EngineError, EngineLost

__all__ = ["Engine", "EngineChunk", "EngineStream", "StepCancelled"]

log = logging.getLogger("streamer.engine")
HANGING_S = 2.0  # of silence, after which it is said that it hangs
MAX_STARTS = 5  # in a row that fail, before the engine is given up
_FIRST_DELAY_S, _MAX_DELAY_S = 0.25, 4.0  # before it is started again after it died without finishing a step


class Engine:
    """The engine process and its streams. Made by `launch`; `async with` closes it.

    Attributes:
        facts: what the process says of itself.
        restarts: times it was started again.
    """

    facts: EngineFacts

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.restarts = 0
        self._streams: dict[int, EngineStream] = {}
        self._numbers = itertools.count(1)
        self._process = self._new_process(None)
        self._is_up = False
        self._is_settled = asyncio.Event()  # it is up, or there is a failure
        self._has_died = asyncio.Event()
        self._unproven_starts = 0
        self._heard_s = time.monotonic()
        self._failure: Callable[[], EngineError] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    @classmethod
    async def launch(cls, config: EngineConfig) -> Engine:
        """Start the process and wait until its weights are loaded and it is warm.

        Raises:
            EngineError: if it cannot start.
        """
        engine = cls(config)
        engine.facts = await engine._start()
        engine._come_up()
        engine._supervisor = asyncio.create_task(engine._supervise(), name="engine-supervisor")
        engine._watch()
        return engine

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_ready(self) -> bool:
        """False while the process is being started again, and after `close`."""
        return self._is_up

    @property
    def state(self) -> Literal["ready", "starting", "hanging"]:
        """What it is doing; it hangs when a step has waited for 2 s without a word of the process."""
        if not self._is_up:
            return "starting"
        return "hanging" if self._silent_s() > HANGING_S else "ready"

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    async def open(self, spec: StreamSpec) -> EngineStream:
        """Open a stream; waits for the engine if it is just being started again.

        Raises:
            CapacityError: if `max_streams` are open.
            PictureError: if the reference has another size or type than the engine's frames.
            EngineError: if the stream cannot be opened, or the engine is closed or given up.
        """
        if len(self._streams) >= self.config.max_streams:
            raise CapacityError(f"the engine is full: {self.config.max_streams} streams are open")
        stream = EngineStream(next(self._numbers), spec, self.facts, self._send, self._forget)
        self._streams[stream.number] = stream  # the place is taken from now on
        try:
            while not stream.is_open:
                await self._is_settled.wait()
                if self._failure is not None:
                    raise self._failure()
                if stream.is_open:  # by the restart that this waited for
                    break
                with contextlib.suppress(EngineLost):
                    await stream.open()
            return stream
        except BaseException:
            await stream.close()
            raise

    async def close(self) -> None:
        """End the process; streams are closed with it. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="engine-close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._give_up("the engine is closed")
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
        for stream in list(self._streams.values()):
            await stream.close()
        await self._process.end()

    def _new_process(self, known: EngineFacts | None) -> ChildProcess:
        """A process that is not started yet.

        Args:
            known: what an engine before this one measured; None to measure.
        """
        calm_threads()
        args = (self.config, known)
        return ChildProcess("the engine", run, args, MESSAGES, on_message=self._take, on_end=self._ended)

    async def _start(self) -> EngineFacts:
        try:
            ready = await self._process.start(self.config.start_timeout_s)
        except ChildError as error:
            raise EngineError(f"the engine cannot start: {error}") from error
        return ready.facts  # type: ignore[no-any-return]

    def _send(self, message: Any, descriptors: Sequence[int]) -> None:
        try:
            self._process.send(message, descriptors)
        except ChildLost as error:
            raise EngineLost("the engine process is gone") from error
        except ChildError as error:
            raise EngineError("the engine does not read what it is asked") from error

    def _forget(self, number: int) -> bool:
        if self._streams.pop(number, None) is None:
            return False
        with contextlib.suppress(EngineError):  # a process that is gone holds no streams
            self._send(CloseStream(number), ())
        return True

    def _take(self, message: Any, _: list[int]) -> None:
        self._heard_s = time.monotonic()
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        match message:
            case Opened(failure=failure):
                stream.take_opened(failure)
            case Done():
                self._unproven_starts = 0
                stream.take_done(message)
            case NotDone():
                stream.take_not_done(message)

    def _ended(self) -> None:
        """The process died."""
        self._is_up = False
        self._is_settled.clear()
        for stream in self._streams.values():
            stream.lose()
        self._has_died.set()

    def _give_up(self, message: str) -> None:
        self._failure, self._is_up = lambda: EngineError(message), False
        for stream in self._streams.values():
            stream.fail(self._failure)
        self._is_settled.set()

    def _come_up(self) -> None:
        self._is_up = True
        self._heard_s = time.monotonic()
        self._is_settled.set()

    async def _supervise(self) -> None:
        try:
            while self._failure is None:
                await self._has_died.wait()
                self._has_died.clear()
                await self._start_again()
        except Exception as error:  # nobody else watches over the engine
            log.exception("the engine cannot be watched over")
            self._give_up(f"the engine could not be started again: {error}")

    async def _start_again(self) -> None:
        log.warning("the engine process ended (exit code %s); it is started again", await self._process.end())
        for attempt in range(1, MAX_STARTS + 1):
            if self._unproven_starts:
                await asyncio.sleep(min(_FIRST_DELAY_S * 2 ** (self._unproven_starts - 1), _MAX_DELAY_S))
            self._unproven_starts += 1
            self._process = self._new_process(self.facts)
            try:
                self.facts = replace(self.facts, pid=(await self._start()).pid)
                break
            except EngineError as error:
                log.error("the engine did not start (attempt %d of %d): %s", attempt, MAX_STARTS, error)
                if attempt == MAX_STARTS:
                    self._give_up(f"the engine could not be started again: {error}")
                    return
        self.restarts += 1
        results = await asyncio.gather(*(stream.open() for stream in self._streams.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                log.error("a stream could not be opened again: %s", result)
        if not self._has_died.is_set():
            self._come_up()

    def _silent_s(self) -> float:
        """For how long a step has waited without a word of the process."""
        oldest = [s for stream in self._streams.values() if (s := stream.oldest_s) is not None]
        return time.monotonic() - max(min(oldest), self._heard_s) if oldest else 0.0

    def _watch(self) -> None:
        """End a process that has not answered for `hang_s` although steps wait: it is started again then."""
        if self.is_ready and self._silent_s() > self.config.hang_s:
            log.error("the engine has not answered for %g s and is ended", self.config.hang_s)
            self._process.kill()
        self._watchdog = asyncio.get_running_loop().call_later(self.config.hang_s / 4, self._watch)
