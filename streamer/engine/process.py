"""The engine's child process: started, watched and ended without holding up the event loop."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from typing import Any

from streamer.engine import worker
from streamer.engine.channel import Log, ParentChannel, Ready, StartFailed
from streamer.engine.config import EngineConfig, EngineFacts
from streamer.errors import EngineError

log = logging.getLogger("streamer.engine")
_END_S = 1.0  # for the child to end by itself, before it is made to
_spawning = threading.Lock()


class EngineProcess:
    """One child process and the channel to it.

    Args:
        config: of the engine.
        known: what an engine before this one measured; None to measure.
        on_message: is given what the child says, once it is ready.
        on_end: is called once if the child dies after it was ready; not by `end`.
    """

    def __init__(
        self,
        config: EngineConfig,
        known: EngineFacts | None,
        on_message: Callable[[Any], None],
        on_end: Callable[[], None],
    ) -> None:
        self._config, self._known = config, known
        self._on_message, self._on_end = on_message, on_end
        self._process: multiprocessing.process.BaseProcess | None = None
        self._channel: ParentChannel | None = None
        self._ready: asyncio.Future[EngineFacts] | None = None

    async def start(self) -> EngineFacts:
        """Start the child and wait until it is ready.

        Raises:
            EngineError: if it does not come up; it is gone then.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready = asyncio.get_running_loop().create_future()
        self._channel = ParentChannel(ours, self._take, self._ended)
        try:
            try:
                await _uninterrupted(self._spawn(theirs))
            finally:
                theirs.close()
            async with asyncio.timeout(self._config.start_timeout_s):
                return await self._ready
        except TimeoutError:
            await _uninterrupted(self.end())
            raise EngineError(f"the engine was not ready within {self._config.start_timeout_s:g} s") from None
        except BaseException as error:
            await _uninterrupted(self.end())
            if isinstance(error, OSError):
                raise EngineError(f"the engine process cannot be started: {error}") from error
            raise

    async def _spawn(self, connection: socket.socket) -> None:
        self._process = await asyncio.to_thread(_spawn, self._config, self._known, connection)

    @property
    def channel(self) -> ParentChannel:
        if self._channel is None:
            raise EngineError("the engine is not started")
        return self._channel

    def kill(self) -> None:
        """End the child at once; `on_end` is called."""
        if self._process is not None:
            self._process.kill()

    async def end(self) -> int | None:
        """Close the channel and see the child gone; its exit code. Idempotent."""
        if self._channel is not None:
            self._channel.close()
        process, self._process = self._process, None
        return None if process is None else await asyncio.to_thread(_reap, process)

    def _take(self, message: Any) -> None:
        match message:
            case Log(level=level, text=text):
                log.log(level, "%s", text)
            case Ready(facts=facts):
                self._settle(lambda ready: ready.set_result(facts))
            case StartFailed(message=text):
                error = EngineError(f"the engine cannot start: {text}")
                self._settle(lambda ready: ready.set_exception(error))
            case _:
                self._on_message(message)

    def _ended(self) -> None:
        if self._ready is not None and not self._ready.done():
            error = EngineError("the engine process died while it was starting")
            self._settle(lambda ready: ready.set_exception(error))
        else:
            self._on_end()

    def _settle(self, settle: Callable[[asyncio.Future[EngineFacts]], None]) -> None:
        if self._ready is not None and not self._ready.done():
            settle(self._ready)


async def _uninterrupted(work: Any) -> Any:
    """Await something to its end even if the waiting task is cancelled; the cancellation comes after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:  # the task's own, raised below
            break
    if cancelled is not None:
        raise cancelled
    return task.result()


def _spawn(
    config: EngineConfig, known: EngineFacts | None, connection: socket.socket
) -> multiprocessing.process.BaseProcess:
    """Start the child. It is born with SIGINT blocked, until it has chosen to ignore it."""
    resource_tracker.ensure_running()  # here, because it unblocks SIGINT when it starts
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=worker.run, args=(connection, config, known), name="avatar-engine", daemon=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _spawning:  # the child's libgomp reads the environment when it is loaded, which may be before our code
            own = os.environ.get("OMP_WAIT_POLICY")
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            try:
                process.start()
            finally:
                if own is None:
                    del os.environ["OMP_WAIT_POLICY"]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process


def _reap(process: multiprocessing.process.BaseProcess) -> int | None:
    """Wait for the child's end, which the closed channel is the sign for; then insist."""
    for insist in (lambda: None, process.terminate, process.kill):
        insist()
        process.join(_END_S)
        if process.exitcode is not None:
            break
    code = process.exitcode
    if code is not None:
        process.close()
    return code
