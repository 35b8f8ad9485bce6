"""The built-in voice in a process of its own, from the side of the event loop.

A sentence is synthesised when it is asked for, so that a text begins to sound after its first one, and an
interrupted text costs nothing more. If the process dies it is started again and goes on with the sentence it was at.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from streamer.child import ChildChannel, ChildProcess, Limits
from streamer.child.arrays import read_array
from streamer.errors import AvatarError, ChildError, ChildLost, MissingExtraError
from streamer.voice import worker

READY_TIMEOUT_S = 60.0
SENTENCE_TIMEOUT_S = 30.0  # from when the process begins with it
MAX_TRIES = 2  # of one sentence, in as many processes
LIMITS = Limits(memory_bytes=2 << 30, file_bytes=64 << 20)
NOT_INSTALLED = "Speaking a text needs the voice: pip install 'infinity-avatar[say]'."


class VoiceError(AvatarError):
    """The voice cannot speak this."""


class Voice:
    """The voice of the server, shared by all sessions, each of which has a `Speaker`.

    Args:
        target: what the process runs.
        is_installed: whether there is a voice at all; by default whether hibari-tts can be found.
    """

    def __init__(self, target: Callable[[ChildChannel], None] = worker.run, is_installed: bool | None = None):
        self.is_installed = importlib.util.find_spec("hibari") is not None if is_installed is None else is_installed
        self.restarts = -1  # the first start is none
        self._target = target
        self._turn = asyncio.Lock()  # whoever waits longest is next, and a speaker waits once at a time
        self._child: ChildProcess | None = None
        self._unusable: str | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    async def warm_up(self) -> None:
        """Starts the process, so that the first text does not wait for it; a failure shows when it is used."""
        if self.is_installed:
            async with self._turn:
                with contextlib.suppress(AvatarError):
                    await self._running()

    def check(self) -> None:
        """
        Raises:
            MissingExtraError: if the voice is not installed.
            VoiceError: if it cannot be loaded here, or the server stops.
        """
        if not self.is_installed:
            raise MissingExtraError(NOT_INSTALLED)
        if self._unusable is not None:
            raise VoiceError(self._unusable)
        if self._is_closed:
            raise VoiceError("The server is stopping.")

    def speaker(self) -> Speaker:
        """For one session."""
        return Speaker(self)

    async def sentence(self, text: str, number: int, seed: int) -> np.ndarray | None:
        """A sentence of a text, int16 [S] at 48 kHz, S may be 0; None if the text has no more.

        Raises:
            MissingExtraError: if the voice is not installed.
            VoiceError: if it fails at the text, or its process keeps dying.
        """
        # shielded: a process whose answer is not waited for would have to be ended, and others use it
        work = asyncio.ensure_future(self._sentence(worker.Speak(text, number, seed)))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(work)

    async def _sentence(self, wanted: worker.Speak) -> np.ndarray | None:
        async with self._turn:
            answer, descriptors = await self._ask(wanted)
        match answer:
            case worker.Sound(samples=samples) if samples:
                return read_array(descriptors[0], (samples,), "int16")
            case worker.Sound():
                return np.zeros(0, np.int16)
            case worker.Unspeakable(message=message):
                raise VoiceError(message)
        return None

    async def _ask(self, wanted: worker.Speak) -> tuple[Any, list[int]]:
        for _ in range(MAX_TRIES):
            with contextlib.suppress(ChildLost):
                child = await self._running()
                return await child.ask(wanted, SENTENCE_TIMEOUT_S)
        self.check()
        raise VoiceError("The voice died at this text.")

    async def _running(self) -> ChildProcess:
        """A process that is ready.

        Raises:
            VoiceError: if the voice cannot be loaded, or the server stops.
            ChildLost: if it ended while it was loading.
        """
        self.check()
        if self._child is not None and self._child.is_running:
            return self._child
        if self._child is not None:
            await self._child.end()
        self._child = ChildProcess("the voice", self._target, (), worker.MESSAGES, limits=LIMITS)
        self.restarts += 1
        try:
            await self._child.start(READY_TIMEOUT_S)
        except ChildLost:
            raise
        except ChildError as error:
            self._unusable = str(error)
            raise VoiceError(self._unusable) from error
        return self._child

    async def close(self) -> None:
        """Ends the process; texts being spoken fail. Idempotent."""
        self._is_closed = True
        if self._child is not None:
            await self._child.end()
        async with self._turn:  # a process that was just being started
            if self._child is not None:
                await self._child.end()


class Speaker:
    """A session's place in the queue of the voice.

    Its texts are spoken one after the other, and speakers take turns with each sentence: one session's sound waits for
    one sentence of each other session at most, whatever is waiting there.
    """

    def __init__(self, voice: Voice):
        self._voice = voice
        self._turn = asyncio.Lock()

    def check(self) -> None:
        """As `Voice.check`."""
        self._voice.check()

    async def speak(self, text: str, seed: int) -> AsyncIterator[np.ndarray]:
        """Sentences of a text, int16 [S] at 48 kHz, each synthesised when it is asked for.

        Raises:
            MissingExtraError, VoiceError: as `Voice.sentence`.
        """
        number = 0
        async with self._turn:
            while (sound := await self._voice.sentence(text, number, seed)) is not None:
                number += 1
                if len(sound):
                    yield sound
