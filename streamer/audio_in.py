"""Sound as streams of mono float32 blocks, from any file PyAV reads.

A `SoundSource` can be read several times and at different rates: the models hear 16 kHz, the finished file
keeps 48 kHz. Nothing holds more than a few blocks, so a file of three hours needs no more memory than one of
three seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from streamer.errors import AudioError

# Packets a decoder refuses in a row before the rest of the file is given up as broken.
MAX_BROKEN_PACKETS = 64
# A second of 20 Hz is a second of 48 kHz when it is resampled: odd rates turn small files into large memory.
MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS = 8_000, 192_000, 8
PIECE_SAMPLES = 16_384  # that are resampled at once


class SoundSource(Protocol):
    """Sound that can be read from the start, again and again."""

    @property
    def name(self) -> str:
        """What to call it, also as the stem of a file name."""

    @property
    def duration_s(self) -> float | None:
        """Length in seconds as far as it is known before reading; only for showing progress."""

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """Blocks float32 [S] in [-1, 1], mono at `sample_rate` Hz, S > 0 and varying."""


class AudioFile:
    """The first sound track of a file.

    Args:
        path: anything PyAV opens: WAV, MP3, Opus, FLAC, G.722, the sound of a video, ...

    Raises:
        AudioError: if there is no such file, it cannot be read, or it has no sound. An empty track shows when
            `blocks` is read to its end.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self._open() as container:
            stream = container.streams.audio[0]
            self._duration_s = _duration_s(container, stream)

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def duration_s(self) -> float | None:
        return self._duration_s

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """See `SoundSource`. Packets that do not decode are left out, as players do.

        Raises:
            AudioError: if nothing could be decoded, or the file breaks off into noise.
        """
        resampler = Resampler(sample_rate)
        samples = 0
        with self._open() as container:
            for frame in self._frames(container):
                for block in resampler.push(frame):
                    samples += len(block)
                    yield block
        for block in resampler.flush():
            samples += len(block)
            yield block
        if not samples:
            raise AudioError(f"{self.path} holds no sound: its track is 0 seconds long")

    def _frames(self, container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
        broken = decoded = 0
        packets = container.demux(container.streams.audio[0])
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError) as error:
                broken += 1
                if isinstance(error, EOFError) or broken > MAX_BROKEN_PACKETS:
                    break
                continue
            broken = 0
            for frame in frames:
                decoded += 1
                self._check(frame.sample_rate, frame.layout.nb_channels)
                yield frame
        if broken and not decoded:
            raise AudioError(f"{self.path} is broken: none of its sound can be decoded")

    def _open(self) -> av.container.InputContainer:
        if not self.path.exists():
            raise AudioError(f"there is no file {self.path}")
        if not self.path.is_file():
            raise AudioError(f"{self.path} is not a file")
        if not self.path.stat().st_size:
            raise AudioError(f"{self.path} is empty")
        try:
            container = self._container()
        except PermissionError as error:
            raise AudioError(f"{self.path} may not be read") from error
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise AudioError(f"{self.path} is not a sound file that can be read") from error
        if not container.streams.audio:
            container.close()
            raise AudioError(f"{self.path} has no sound track")
        if container.streams.audio[0].codec_context is None:
            container.close()
            raise AudioError(f"{self.path} has a sound track in a format that is not known here")
        try:
            self._check(container.streams.audio[0].sample_rate, container.streams.audio[0].channels)
        except AudioError:
            container.close()
            raise
        return container

    def _container(self) -> av.container.InputContainer:
        return av.open(str(self.path), metadata_errors="replace")

    def _check(self, sample_rate: int, channels: int) -> None:
        """
        Raises:
            AudioError: if nobody records sound so. 0 is not known yet.
        """
        if sample_rate and not MIN_RATE_HZ <= sample_rate <= MAX_RATE_HZ:
            limits = f"{MIN_RATE_HZ // 1000} to {MAX_RATE_HZ // 1000} kHz"
            raise AudioError(f"{self.path} has {sample_rate} samples a second; {limits} can be read")
        if channels > MAX_CHANNELS:
            raise AudioError(f"{self.path} has {channels} channels of sound; at most {MAX_CHANNELS} can be read")


def _duration_s(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


class Resampler:
    """Turns frames of any layout, format and rate into mono float32 blocks at one rate."""

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self._resampler: av.AudioResampler | None = None
        self._shape: tuple[int, str, str] | None = None

    def push(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """Blocks that a frame completes. A change of rate or layout in mid-file starts a new resampler."""
        shape = (frame.sample_rate, frame.format.name, frame.layout.name)
        if shape != self._shape:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=self._sample_rate)
            self._shape = shape
        assert self._resampler is not None
        frame.pts = None  # gaps and jumps in the time stamps of a file must not become gaps in the sound
        for piece in _pieces(frame):
            yield from self._blocks(self._resampler.resample(piece))

    def flush(self) -> Iterator[np.ndarray]:
        """What the filter still holds; `push` may be called again afterwards."""
        if self._resampler is not None:
            yield from self._blocks(self._resampler.resample(None))
        self._resampler = self._shape = None

    @staticmethod
    def _blocks(frames: Iterable[av.AudioFrame | None]) -> Iterator[np.ndarray]:
        for frame in frames:
            if frame is not None and frame.samples:
                block = np.nan_to_num(frame.to_ndarray()[0], nan=0.0, posinf=1.0, neginf=-1.0)
                yield np.clip(block, -1.0, 1.0).astype(np.float32, copy=False)


def _pieces(frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
    if frame.samples <= PIECE_SAMPLES:
        yield frame
        return
    fifo = av.AudioFifo()
    fifo.write(frame)
    while (piece := fifo.read(PIECE_SAMPLES, partial=True)) is not None:
        yield piece


class SampleReader:
    """Takes exact numbers of samples from a stream of blocks; silence follows its end.

    Args:
        blocks: float32 blocks [S] of any length.
    """

    def __init__(self, blocks: Iterator[np.ndarray]):
        self._blocks = blocks
        self._rest = np.zeros(0, np.float32)
        self.samples_read = 0
        self.is_exhausted = False

    def take(self, count: int) -> np.ndarray:
        """Next `count` samples, float32 [count]; `samples_read` counts only those that were really there."""
        parts, missing = [], count
        while missing:
            if not len(self._rest):
                block = next(self._blocks, None)
                if block is None:
                    self.is_exhausted = True
                    break
                self._rest = block
                continue
            parts.append(self._rest[:missing])
            self._rest = self._rest[len(parts[-1]) :]
            missing -= len(parts[-1])
        self.samples_read += count - missing
        parts.append(np.zeros(missing, np.float32))
        return np.concatenate(parts)

    def close(self) -> None:
        """Lets go of the file behind the stream."""
        close = getattr(self._blocks, "close", None)
        if close is not None:
            close()
