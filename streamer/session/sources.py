"""What is said: utterances from texts, files and streams of PCM, and the queue they wait in.

Every utterance is a bounded buffer of played sound (int16, 48 kHz). Texts and files fill it ahead of time and wait
when it is full; a stream's owner is told to wait instead. Only the event loop touches the buffers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager

import numpy as np

from streamer.errors import AudioError, AvatarError, CapacityError, ProtocolError, SessionError
from streamer.faults import INTERNAL, code_of, sentence
from streamer.media.sound import PLAYED_RATE_HZ, PcmResampler
from streamer.protocol import MAX_TEXT_CHARACTERS, ErrorMessage, Source
from streamer.voice.client import Speaker

log = logging.getLogger(__name__)
AHEAD_SAMPLES = 10 * PLAYED_RATE_HZ  # texts and files are prepared this far
MAX_STREAM_SAMPLES = 120 * PLAYED_RATE_HZ  # of an agent's sound that is not played yet
STREAM_START_SAMPLES = PLAYED_RATE_HZ * 6 // 10  # a stream that is not committed begins with this much
STREAM_PATIENCE_S = 5.0  # an open stream that gets nothing for so long is taken as complete
MAX_QUEUED = 16
TAIL_SAMPLES = PLAYED_RATE_HZ * 3 // 10  # of silence after a text, so that the mouth is seen to close


class Utterance:
    """Something to be said.

    Args:
        name: its id in the protocol.
        source: where it comes from.
        start_samples: buffered samples it begins with, unless it is complete before.
    """

    def __init__(self, name: str, source: Source, start_samples: int = 1):
        self.name = name
        self.source: Source = source
        self.failure: ErrorMessage | None = None
        self.is_started = False
        self.has_sound = asyncio.Event()
        """Set by the first sound, or when it is known that there is none."""
        self._start_samples = start_samples
        self._parts: deque[np.ndarray] = deque()
        self._samples = 0
        self._is_complete = False
        self._is_closed = False
        self._room = asyncio.Event()
        self._room.set()
        self._filling: asyncio.Task[None] | None = None

    @property
    def buffered_samples(self) -> int:
        return self._samples

    @property
    def is_complete(self) -> bool:
        """Whether no more sound will come."""
        return self._is_complete or self._is_closed

    @property
    def is_exhausted(self) -> bool:
        return self.is_complete and not self._samples

    @property
    def is_ready(self) -> bool:
        """Whether it can begin, or go on, or has nothing more to wait for."""
        return self.is_started or self.is_complete or self._samples >= self._start_samples

    def push(self, sound: np.ndarray) -> None:
        """Appends int16 [S]; ignored once it is complete or closed."""
        if self.is_complete or not len(sound):
            return
        self._parts.append(sound)
        self._samples += len(sound)
        if self._samples >= AHEAD_SAMPLES:
            self._room.clear()
        self.has_sound.set()

    async def room(self) -> None:
        """Waits until less than `AHEAD_SAMPLES` are buffered, or it is closed."""
        await self._room.wait()

    def take(self, count: int) -> np.ndarray:
        """The oldest samples, int16 [≤ count]."""
        self.is_started = True
        taken: list[np.ndarray] = []
        missing = min(count, self._samples)
        self._samples -= missing
        while missing:
            part = self._parts.popleft()
            if len(part) > missing:
                self._parts.appendleft(part[missing:])
                part = part[:missing]
            taken.append(part)
            missing -= len(part)
        if self._samples < AHEAD_SAMPLES:
            self._room.set()
        return np.concatenate(taken) if taken else np.zeros(0, np.int16)

    def finish(self) -> None:
        """No more sound will come."""
        self._is_complete = True
        self.has_sound.set()

    def fail(self, error: AvatarError) -> None:
        """No more sound will come, for a reason; what is buffered is still said."""
        self.failure = ErrorMessage(code=code_of(error), message=sentence(str(error)))
        self.finish()

    def close(self) -> None:
        """Forgets everything that is buffered and lets go of whoever fills it."""
        self._is_closed = True
        self._parts.clear()
        self._samples = 0
        self._room.set()
        self.has_sound.set()
        if self._filling is not None:
            self._filling.cancel()

    async def fill(self, blocks: AsyncIterator[np.ndarray]) -> None:
        """Takes sound from an iterator for as long as there is any and somebody wants it."""
        self._filling = asyncio.current_task()
        try:
            async with aclosing(blocks) as sound:  # type: ignore[type-var]
                async for block in sound:
                    self.push(block)
                    await self.room()
            self.finish()
        except AvatarError as error:
            self.fail(error)
        except asyncio.CancelledError:
            if not self._is_closed:
                self.fail(SessionError("The session has ended."))
                raise
        except Exception:  # whatever it is: an utterance fails, and the session goes on
            log.exception("an utterance could not be filled")
            self.fail(AvatarError(INTERNAL))
        finally:
            self._filling = None


class StreamUtterance(Utterance):
    """PCM of an agent, appended while it is played.

    Args:
        sample_rate: of the PCM, Hz.
        queue: of the session, which bounds what all its streams hold.
    """

    def __init__(self, name: str, sample_rate: int, now: float, queue: Queue):
        super().__init__(name, "stream", STREAM_START_SAMPLES)
        self.sample_rate = sample_rate
        self.last_append_s = now
        self._queue = queue
        self._resampler = PcmResampler(sample_rate)

    async def append(self, pcm: bytes, now: float) -> None:
        """Adds 16-bit PCM.

        Raises:
            ProtocolError: if too much is waiting already; nothing is added then.
        """
        coming = len(pcm) // 2 * PLAYED_RATE_HZ // self.sample_rate
        if self._queue.stream_samples + coming > MAX_STREAM_SAMPLES:
            limit = MAX_STREAM_SAMPLES // PLAYED_RATE_HZ
            raise ProtocolError(f"{limit} s of sound are waiting to be played: append the rest later.", "busy")
        self.last_append_s = now
        # Seconds of sound take milliseconds to resample: too long for the loop.
        is_long = len(pcm) > 32 * 1024
        self.push(await asyncio.to_thread(self._resampler.push, pcm) if is_long else self._resampler.push(pcm))

    def commit(self) -> None:
        """The utterance is complete."""
        if not self.is_complete:
            self.push(self._resampler.flush())
            self.finish()

    def close_if_forgotten(self, now: float) -> None:
        """Completes an open stream whose owner has not sent anything for a while."""
        if not self.is_complete and not self._samples and now - self.last_append_s > STREAM_PATIENCE_S:
            self.commit()


class Queue:
    """Utterances in the order in which they are said; a full queue takes no more."""

    def __init__(self) -> None:
        self._waiting: deque[Utterance] = deque()
        self._places = 0  # taken by files that are still to come

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self._waiting)

    @property
    def head(self) -> Utterance | None:
        return self._waiting[0] if self._waiting else None

    @property
    def stream_samples(self) -> int:
        """What agents appended and is not played yet, of all their streams."""
        return sum(waiting.buffered_samples for waiting in self._waiting if isinstance(waiting, StreamUtterance))

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for what is still to come.

        Raises:
            CapacityError: if the queue is full.
        """
        if len(self._waiting) + self._places >= MAX_QUEUED:
            raise CapacityError(f"{MAX_QUEUED} utterances are waiting already; try again when one has been said.", 5)
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    def add(self, utterance: Utterance) -> None:
        """Adds one that a place is taken for.

        Raises:
            ProtocolError: if its id is in use.
        """
        if any(other.name == utterance.name for other in self._waiting):
            raise ProtocolError(f"The id {utterance.name} belongs to another utterance that is not finished.")
        self._waiting.append(utterance)

    def remove(self, utterance: Utterance) -> None:
        """Takes one out and closes it; nothing happens if it is not there."""
        if utterance in self._waiting:
            self._waiting.remove(utterance)
        utterance.close()

    def clear(self, is_kept: Callable[[Utterance], bool] = lambda utterance: False) -> list[Utterance]:
        """Takes out and closes all that are not kept; returns them in order."""
        cleared = [utterance for utterance in self._waiting if not is_kept(utterance)]
        self._waiting = deque(utterance for utterance in self._waiting if utterance not in cleared)
        for utterance in cleared:
            utterance.close()
        return cleared


def check_text(text: str) -> str:
    """A text that can be spoken, stripped.

    Raises:
        ProtocolError: if it is empty, too long, or has nothing to say in it.
    """
    text = text.strip()
    if len(text) > MAX_TEXT_CHARACTERS:
        raise ProtocolError(
            f"The text has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are spoken at once.", "bad_text"
        )
    if not any(letter.isascii() and letter.isalnum() for letter in text):
        raise ProtocolError("There is nothing to say: the text holds no letter or digit of English.", "bad_text")
    return text


async def spoken(voice: Speaker, text: str, seed: int) -> AsyncIterator[np.ndarray]:
    """Sentences of a text, int16 [S] each, and a moment of silence.

    Raises:
        AvatarError: if the voice cannot.
    """
    is_silent = True
    async with aclosing(voice.speak(text, seed)) as sentences:  # type: ignore[type-var]
        async for sentence in sentences:
            is_silent = False
            yield sentence
    if is_silent:
        raise AudioError("There is nothing to say: the voice finds no word in the text.")
    yield np.zeros(TAIL_SAMPLES, np.int16)
