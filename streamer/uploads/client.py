"""Uploads from the side of the event loop: nothing of them is decoded in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import IO

import numpy as np

from streamer.child import ChildChannel, ChildProcess, Limits
from streamer.child.arrays import read_array
from streamer.errors import AudioError, ChildError, ChildLost, InputError, PictureError
from streamer.media.sound import PLAYED_RATE_HZ
from streamer.uploads import worker

AHEAD_SAMPLES = 10 * PLAYED_RATE_HZ  # of a sound file are read at once
AT_ONCE = 4  # files that are read for the first time
READY_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 10.0  # for a second of sound, or a picture
MAX_PICTURE_BYTES = 10 << 20
LONGEST_SIDE_PIXELS = 2048
SOUND_LIMITS = Limits(memory_bytes=192 << 20, file_bytes=8 << 20)
PICTURE_LIMITS = Limits(memory_bytes=512 << 20, file_bytes=64 << 20)


class Uploads:
    """Reads what clients send, each file in a process of its own that ends with it.

    Args:
        target: what the process runs.
    """

    def __init__(self, target: Callable[[ChildChannel], None] = worker.run) -> None:
        self._target = target
        self._turns = asyncio.Semaphore(AT_ONCE)

    def sound(self, file: IO[bytes]) -> UploadedSound:
        """A sound file, which is closed when it has been read.

        Args:
            file: with a descriptor; it needs no name.
        """
        return UploadedSound(file, self._turns, lambda: self._reading(SOUND_LIMITS, AudioError))

    async def decode_picture(self, file: IO[bytes], longest_side: int = LONGEST_SIDE_PIXELS) -> np.ndarray:
        """A JPEG, PNG, WebP or HEIC as uint8 [H, W, 3]: upright, without metadata, the first of an animation.

        Args:
            file: with a descriptor; stays open.
            longest_side: pixels; larger pictures are made smaller.

        Raises:
            PictureError: if it is none, broken, too small, too large, or takes too much to read.
        """
        if os.fstat(file.fileno()).st_size > MAX_PICTURE_BYTES:
            raise PictureError(f"the file is too large: at most {MAX_PICTURE_BYTES >> 20} MiB")
        async with self._turns, self._reading(PICTURE_LIMITS, PictureError) as child:
            wanted = worker.ReadPicture(longest_side)
            answer, descriptors = await child.ask(wanted, ANSWER_TIMEOUT_S, [os.dup(file.fileno())])
            return read_array(descriptors[0], (answer.height, answer.width, 3), "uint8")

    @contextlib.asynccontextmanager
    async def _reading(self, limits: Limits, kind: type[InputError]) -> AsyncIterator[ChildProcess]:
        """A process for one file, which is ended; what it dies of becomes a sentence.

        Raises:
            InputError: of that kind, if the file cannot be read.
        """
        child = ChildProcess("a reader of uploads", self._target, (), worker.MESSAGES, limits=limits)
        try:
            await child.start(READY_TIMEOUT_S)
            yield child
        except ChildLost as error:
            raise kind("the file takes too long or too much memory to read, or breaks what reads it") from error
        except ChildError as error:
            raise kind(str(error)) from error
        finally:
            await child.end()


class UploadedSound:
    """A sound file that somebody sent. Made by `Uploads.sound`.

    Args:
        turns: taken for the first reading.
        reading: a process for it.

    Attributes:
        duration_s: as far as the file says; known with the first block.
    """

    def __init__(
        self,
        file: IO[bytes],
        turns: asyncio.Semaphore,
        reading: Callable[[], contextlib.AbstractAsyncContextManager[ChildProcess]],
    ) -> None:
        self.duration_s: float | None = None
        self._file, self._turns, self._reading = file, turns, reading

    async def blocks(self) -> AsyncIterator[np.ndarray]:
        """Blocks int16 [S] at 48 kHz of about a second.

        The first 10 s are read in one go and the rest once it is asked for, by another process: so whoever sent the
        file hears whether there is sound in it, and one that waits to be played has no process.

        Raises:
            AudioError: if it cannot be read.
        """
        with self._file:
            async with self._turns:
                first = [block async for block in self._read(0, AHEAD_SAMPLES)]
            for block in first:
                yield block
            count = sum(map(len, first))
            if count >= AHEAD_SAMPLES:
                async with contextlib.aclosing(self._read(count)) as rest:
                    async for block in rest:
                        yield block

    async def _read(self, skip_samples: int, limit_samples: int | None = None) -> AsyncGenerator[np.ndarray]:
        async with self._reading() as child:
            file = os.dup(self._file.fileno())
            opened, _ = await child.ask(worker.OpenSound(skip_samples), ANSWER_TIMEOUT_S, [file])
            self.duration_s = opened.duration_s
            count = 0
            while limit_samples is None or count < limit_samples:
                answer, descriptors = await child.ask(worker.More(), ANSWER_TIMEOUT_S)
                if not answer.samples:
                    return
                count += answer.samples
                yield read_array(descriptors[0], (answer.samples,), "int16")
