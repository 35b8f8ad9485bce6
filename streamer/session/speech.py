"""What a session says: texts, files, agents' streams, and the interruption of all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from streamer.errors import MissingExtraError, ProtocolError
from streamer.media.hearing import LISTEN_S
from streamer.protocol import Queued
from streamer.session.chunks import ChunkLoop
from streamer.session.cutter import Cutter
from streamer.session.hub import Hub
from streamer.session.parts import SessionParts, SessionSpec
from streamer.session.sources import StreamUtterance, Utterance, check_text, spoken
from streamer.session.tasks import Tasks


class Speech:
    """Puts utterances into the cutter's queue and fills them.

    Args:
        chunks: silences what plays.
    """

    def __init__(
        self, spec: SessionSpec, parts: SessionParts, cutter: Cutter, chunks: ChunkLoop, hub: Hub, tasks: Tasks
    ):
        self._spec = spec
        self._parts = parts
        self._cutter = cutter
        self._chunks = chunks
        self._hub = hub
        self._tasks = tasks
        self._names = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue for a file that is still to come.

        Raises:
            CapacityError: if the queue is full.
        """
        with self._cutter.queue.place():
            yield

    def say(self, text: str, name: str | None = None) -> str:
        """Queues a text; returns the utterance's id.

        Raises:
            ProtocolError, CapacityError: if it cannot be said.
        """
        text = check_text(text)
        try:
            self._parts.voice.check()
        except MissingExtraError as error:
            raise ProtocolError(str(error), "no_voice") from error
        with self.place():
            utterance = Utterance(self._name(name), "text")
            self._enqueue(utterance)
        self._tasks.spawn(utterance.fill(spoken(self._parts.voice, text, self._spec.seed)))
        return utterance.name

    async def play_file(self, file: IO[bytes]) -> tuple[str, int | None]:
        """Queues a sound file that a `place` is taken for, and closes it in the end.

        Returns:
            The utterance's id and its length in ms, if known.

        Raises:
            AudioError, ProtocolError: if there is no sound in it.
        """
        try:
            sound = self._parts.uploads.sound(file)
            utterance = Utterance(self._name(None), "file")
            filling = self._tasks.spawn(utterance.fill(sound.blocks()))
        except BaseException:
            file.close()
            raise
        try:
            await utterance.has_sound.wait()
            if utterance.failure is not None:
                raise ProtocolError(utterance.failure.message, "bad_audio")
            self._enqueue(utterance)
        except BaseException:
            utterance.close()
            filling.cancel()
            raise
        return utterance.name, None if sound.duration_s is None else round(1000 * sound.duration_s)

    def open_stream(self, sample_rate: int, name: str | None) -> StreamUtterance:
        """Queues an utterance that is still to come.

        Raises:
            ProtocolError, CapacityError: if it cannot be queued.
        """
        with self.place():
            utterance = StreamUtterance(self._name(name), sample_rate, time.monotonic(), self._cutter.queue)
            self._enqueue(utterance)
        return utterance

    def clear_streams(self) -> None:
        """Forgets what agents appended and is not yet played; texts and files stay."""
        self._chunks.clear_streams()

    def interrupt(self, cause: str = "client") -> tuple[str | None, int | None]:
        """Silences and clears everything; see `ChunkLoop.interrupt`."""
        return self._chunks.interrupt(cause)

    async def listen(self) -> None:
        """Lets the caller's voice interrupt what is said, for as long as the session lives."""
        clock, cutter = self._parts.clock, self._cutter
        media_s = clock.media_s()
        while True:
            media_s = max(media_s + LISTEN_S, clock.media_s())
            await clock.wait_until(media_s)
            hearing = cutter.hearing
            if hearing is None or not cutter.is_microphone_on or not cutter.is_utterance_playing:
                continue
            if hearing.listen():
                hearing.forget_speech()
                self.interrupt("caller")

    def close(self) -> None:
        """Forgets what waits, and lets go of whoever fills it."""
        self._cutter.queue.clear()

    def _enqueue(self, utterance: Utterance) -> None:
        self._cutter.queue.add(utterance)
        self._hub.emit(Queued(utterance=utterance.name))

    def _name(self, wanted: str | None) -> str:
        if wanted is not None:
            return wanted
        self._names += 1
        return f"utterance-{self._names}"
