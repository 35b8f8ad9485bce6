"""The built-in voice in a process of its own, from the side of the event loop.

A sentence is synthesised when it is asked for, so that a text begins to sound after its first one, and an
interrupted text costs nothing more. If the process dies it is started again and goes on with the sentence it was at.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import multiprocessing
import signal
import threading
from collections.abc import AsyncIterator, Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from streamer.errors import AvatarError, MissingExtraError
from streamer.voice import worker

READY_TIMEOUT_S = 60.0
SENTENCE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 2.0
MAX_TRIES = 2  # of one sentence, in as many processes
NOT_INSTALLED = "Speaking a text needs the voice: pip install 'infinity-avatar[say]'."


def _start_without_interrupts(process: multiprocessing.process.BaseProcess) -> None:
    """Starts a process that Ctrl-C does not reach, not even while it is being born. Runs in a thread."""
    resource_tracker.ensure_running()  # here, because it lets interrupts through again when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class VoiceError(AvatarError):
    """The voice cannot speak this."""


class _Died(Exception):
    """The process ended while it was asked for something."""


class Voice:
    """The voice of the server, shared by all sessions; sentences of different texts take turns.

    Args:
        target: what the process runs; takes its end of the pipe.
        is_installed: whether there is a voice at all; by default whether hibari-tts can be found.
    """

    def __init__(self, target: Callable[[Connection], None] = worker.main, is_installed: bool | None = None):
        self.is_installed = importlib.util.find_spec("hibari") is not None if is_installed is None else is_installed
        self.restarts = -1  # the first start is none
        self._target = target
        self._jobs = itertools.count()
        self._waiting: dict[int, asyncio.Future[tuple[Any, ...]]] = {}
        self._starting = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None  # None once the process has gone
        self._ours: Connection | None = None  # the same, until it is closed
        self._reader: threading.Thread | None = None
        self._ready: asyncio.Future[None] | None = None
        self._unusable: str | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def warm_up(self) -> None:
        """Starts the process, so that the first text does not wait for it; a failure shows when it is used."""
        if self.is_installed:
            with contextlib.suppress(AvatarError, _Died):
                await self._running()

    def check(self) -> None:
        """
        Raises:
            MissingExtraError: if the voice is not installed.
            VoiceError: if it cannot be loaded here.
        """
        if not self.is_installed:
            raise MissingExtraError(NOT_INSTALLED)
        if self._unusable is not None:
            raise VoiceError(self._unusable)

    async def speak(self, text: str, seed: int) -> AsyncIterator[np.ndarray]:
        """Sentences of a text, int16 [S] at 48 kHz, each synthesised when it is asked for.

        Raises:
            MissingExtraError: if the voice is not installed.
            VoiceError: if it fails at the text, or its process keeps dying.
        """
        self.check()
        done, tries, job, pipe = 0, 0, -1, None
        try:
            while True:
                try:
                    current = await self._running()
                    if pipe is not current:
                        job, pipe = next(self._jobs), current
                        await self._send(pipe, ("begin", job, text, seed, done))
                    kind, *rest = await self._ask(pipe, job)
                except _Died as error:
                    tries += 1
                    if tries >= MAX_TRIES:
                        raise VoiceError("The voice died at this text.") from error
                    pipe = None
                    continue
                if kind == "failed":
                    raise VoiceError(rest[0])
                if kind == "end":
                    pipe = None
                    return
                done, tries = done + 1, 0
                if rest[0]:
                    yield np.frombuffer(rest[0], np.int16)
        finally:
            if pipe is not None and not self._is_closed:
                with contextlib.suppress(_Died):
                    await self._send(pipe, ("drop", job))

    async def close(self) -> None:
        """Ends the process; texts being spoken fail."""
        self._is_closed = True
        async with self._starting:
            await self._stop()

    async def _ask(self, pipe: Connection, job: int) -> tuple[Any, ...]:
        """The answer to `next` of a job, without the job.

        Raises:
            _Died: if the process ends, or does not answer.
        """
        answer: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
        self._waiting[job] = answer
        try:
            await self._send(pipe, ("next", job))
            async with asyncio.timeout(SENTENCE_TIMEOUT_S):
                return await answer
        except TimeoutError as error:
            self._kill()
            raise _Died from error
        finally:
            self._waiting.pop(job, None)

    async def _send(self, pipe: Connection, message: tuple[Any, ...]) -> None:
        async with self._sending:
            if pipe is not self._pipe:
                raise _Died
            try:
                # in a thread: a pipe that is full of texts would hold up the loop
                await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(pipe.send, message)))
            except OSError as error:
                raise _Died from error

    async def _running(self) -> Connection:
        """The pipe of a process that is ready.

        Raises:
            VoiceError: if the voice cannot be loaded, or the server stops.
            _Died: if it ended while it was loading.
        """
        async with self._starting:
            if self._is_closed:
                raise VoiceError("The server is stopping.")
            if self._pipe is None:
                await self._start()
        assert self._ready is not None and self._pipe is not None
        pipe = self._pipe
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await asyncio.shield(self._ready)
        except TimeoutError as error:
            self._kill()
            raise _Died from error
        return pipe

    async def _start(self) -> None:
        await self._stop()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=self._target, args=(theirs,), name="infinity-avatar voice", daemon=True)
        await asyncio.to_thread(_start_without_interrupts, process)
        theirs.close()
        loop = asyncio.get_running_loop()
        self._process, self._pipe, self._ours, self._ready = process, ours, ours, loop.create_future()
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self.restarts += 1
        self._reader = threading.Thread(target=self._read, args=(loop, ours), name="voice reader", daemon=True)
        self._reader.start()

    def _read(self, loop: asyncio.AbstractEventLoop, pipe: Connection) -> None:
        """Runs in a thread: hands what arrives to the loop, and the end of it too."""
        while True:
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                message = None
            try:
                loop.call_soon_threadsafe(self._on_message, pipe, message)
            except RuntimeError:  # the loop is closed
                return
            if message is None:
                return

    def _on_message(self, pipe: Connection, message: tuple[Any, ...] | None) -> None:
        if pipe is not self._pipe:
            return
        assert self._ready is not None
        if message is None:
            self._pipe = None
            self._fail(_Died())
        elif message[0] == "ready":
            if not self._ready.done():
                self._ready.set_result(None)
        elif message[0] == "unusable":
            self._unusable = message[1]
            self._fail(VoiceError(message[1]))
        else:
            kind, job, *rest = message
            answer = self._waiting.get(job)
            if answer is not None and not answer.done():
                answer.set_result((kind, *rest))

    def _fail(self, error: Exception) -> None:
        futures = [self._ready, *self._waiting.values()]
        for future in futures:
            if future is not None and not future.done():
                future.set_exception(error)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def _stop(self) -> None:
        """The process and the thread are gone afterwards."""
        process, reader, ours = self._process, self._reader, self._ours
        self._process = self._reader = self._pipe = self._ours = None
        self._fail(_Died())
        if process is None:
            return
        process.terminate()
        await asyncio.to_thread(process.join, STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join, STOP_TIMEOUT_S)
        if reader is not None:
            # the process has gone, so its end of the pipe has: the thread reads the end
            await asyncio.to_thread(reader.join, STOP_TIMEOUT_S)
        async with self._sending:  # not while a thread may still write to it
            if ours is not None:
                ours.close()
        process.close()
