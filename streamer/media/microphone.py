"""The caller's sound: drained always, at 48 kHz mono, with holes filled so that time is kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streamer.media import SOUND_RATE_HZ
from streamer.media.jitter import JitterStats

logger = logging.getLogger(__name__)

BEYOND_SAMPLES = SOUND_RATE_HZ // 5  # 200 ms more than was asked for are kept
UNASKED_SAMPLES = SOUND_RATE_HZ  # while nobody asks, one second is kept
CUSHION_SAMPLES = SOUND_RATE_HZ // 25  # 40 ms against jitter, at the start and after a cut
LARGE_CUSHION_SAMPLES = SOUND_RATE_HZ // 16  # this much left after each of some requests is lag for nothing
CUSHION_REQUESTS = 8
MAX_FILL_S = 1.0  # a longer gap is a new start, not a hole
FADE_SAMPLES = SOUND_RATE_HZ * 40 // 1000  # how long the last sound is repeated into a hole, fading
LEVEL_SMOOTHING = 0.2
FILTER_REACH_SAMPLES = 48  # of the resampler, at 48 kHz


@dataclass
class MicrophoneStats:
    """Counters of one microphone.

    Attributes:
        packets: decoded.
        lost: holes given up by the jitter buffer, in packets.
        late: packets that came after that, or twice.
        concealed_ms: filled in where sound was missing from the stream.
        starved_ms: zeros handed out because nothing had come yet.
        dropped_ms: thrown away because it was not taken in time.
        last_packet_s: when the last one came, monotonic seconds; None before the first.
    """

    packets: int = 0
    lost: int = 0
    late: int = 0
    concealed_ms: float = 0.0
    starved_ms: float = 0.0
    dropped_ms: float = 0.0
    last_packet_s: float | None = None


class Microphone:
    """Reads one incoming track at a time into a bounded buffer.

    Overflow: what is older than 200 ms beyond the last request is dropped, so that lag cannot grow; what stays unused
    over several requests is cut to 40 ms. Underflow: zeros are handed out, and as much of a hole as they covered is
    not filled in again when the sound goes on behind it; sound that was only late stays, as a cushion.

    Args:
        now: the monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self.level = 0.0
        self._now = now
        self._stats = MicrophoneStats()
        self._jitter: JitterStats | None = None
        self._blocks: deque[np.ndarray] = deque()
        self._buffered = 0
        self._asked = 0
        self._starved = 0  # samples of zeros handed out since sound last arrived
        self._left: deque[int] = deque(maxlen=CUSHION_REQUESTS)  # buffered after each of the last requests
        self._tail = np.zeros(0, np.int16)
        self._task: asyncio.Task[None] | None = None
        self._track: MediaStreamTrack | None = None
        self._kind: tuple[int, str, str] | None = None
        self._resampler: Any = None
        self._next_pts: int | None = None

    def attach(self, track: MediaStreamTrack, jitter: JitterStats | None = None) -> None:
        """Starts to read a track, in place of the one before; to be called on the event loop.

        Args:
            track: gives `av.AudioFrame`s of any rate and layout.
            jitter: of the receiver, for the figures.
        """
        self.detach()
        self._jitter = jitter
        self._track = track
        self._start_stream()
        self._task = asyncio.get_running_loop().create_task(self._drain(track), name="microphone")

    def detach(self, track: MediaStreamTrack | None = None) -> None:
        """Stops reading. With a track: only if it is the one that is being read."""
        if self._task is not None and track in (None, self._track):
            self._task.cancel()
            self._task = None
            self._track = None
            self._start_stream()

    async def close(self) -> None:
        """Stops reading, and waits until nothing of it runs; idempotent."""
        task = self._task
        self.detach()
        if task is not None:
            await asyncio.wait([task])

    def take(self, samples_48k: int) -> np.ndarray:
        """The oldest sound that was not taken yet, int16 [samples_48k], mono, 48 kHz; zeros where there is none."""
        self._trim(samples_48k + (BEYOND_SAMPLES if self._asked else CUSHION_SAMPLES))
        self._asked = samples_48k
        taken = np.zeros(samples_48k, np.int16)
        position = 0
        while position < samples_48k and self._blocks:
            block = self._blocks.popleft()
            part = block[: samples_48k - position]
            taken[position : position + len(part)] = part
            position += len(part)
            if len(part) < len(block):
                self._blocks.appendleft(block[len(part) :])
        self._buffered -= position
        missing = samples_48k - position
        self._starved += missing
        self._stats.starved_ms += 1000 * missing / SOUND_RATE_HZ
        self._left.append(self._buffered)
        if len(self._left) == CUSHION_REQUESTS and min(self._left) > LARGE_CUSHION_SAMPLES:
            self._trim(self._buffered - min(self._left) + CUSHION_SAMPLES)
            self._left.clear()
        return taken

    @property
    def buffered_samples(self) -> int:
        """How much can be taken now, samples at 48 kHz."""
        return self._buffered

    @property
    def stats(self) -> MicrophoneStats:
        if self._jitter is not None:
            self._stats.lost, self._stats.late = self._jitter.lost, self._jitter.late
        return self._stats

    # --- coming in

    async def _drain(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            try:
                self.push(frame)
            except (av.error.FFmpegError, ValueError):
                logger.warning("a block of the microphone could not be read", exc_info=True)
                self._start_stream()

    def push(self, frame: av.AudioFrame) -> None:
        """Takes one decoded frame; fills the hole before it."""
        self._stats.packets += 1
        self._stats.last_packet_s = self._now()
        kind = (frame.sample_rate, frame.format.name, frame.layout.name)
        if kind != self._kind:
            self._kind = kind
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SOUND_RATE_HZ)
            self._next_pts = None
        self._fill_hole(frame)
        for resampled in self._resampler.resample(frame):
            self._append(resampled.to_ndarray().reshape(-1))
        self._starved = 0

    def _fill_hole(self, frame: av.AudioFrame) -> None:
        if frame.pts is None:
            return
        base = Fraction(frame.time_base or Fraction(1, frame.sample_rate))
        pts = round(Fraction(frame.pts) * base * frame.sample_rate)
        expected, self._next_pts = self._next_pts, pts + frame.samples
        if expected is None or not 0 < pts - expected <= MAX_FILL_S * frame.sample_rate:
            return
        missing = round((pts - expected) * SOUND_RATE_HZ / frame.sample_rate)
        missing = max(0, missing - self._starved)
        if missing:
            self._stats.concealed_ms += 1000 * missing / SOUND_RATE_HZ
            self._append(_conceal(self._tail, missing))

    def _append(self, samples: np.ndarray) -> None:
        if not len(samples):
            return
        self._blocks.append(samples)
        self._buffered += len(samples)
        self._tail = samples[-FADE_SAMPLES // 2 :]
        power = float(np.mean(np.square(samples.astype(np.float32) / 32768.0)))
        self.level += LEVEL_SMOOTHING * (power**0.5 - self.level)
        self._trim(max(self._asked, UNASKED_SAMPLES) + BEYOND_SAMPLES)

    def _trim(self, limit: int) -> None:
        """Drops the oldest until that many samples are left."""
        excess = self._buffered - limit
        if excess <= 0:
            return
        self._buffered -= excess
        self._stats.dropped_ms += 1000 * excess / SOUND_RATE_HZ
        while excess > 0:
            block = self._blocks.popleft()
            if len(block) > excess:
                self._blocks.appendleft(block[excess:])
            excess -= len(block)

    def _start_stream(self) -> None:
        self._kind = None
        self._resampler = None  # it has threads, which would wait for the garbage collector
        self._next_pts = None


class Resampler16k:
    """48 kHz to 16 kHz for a stream, block by block: n samples in, n/3 out, 1 ms later (the filter's reach)."""

    def __init__(self) -> None:
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        self.push(np.zeros(FILTER_REACH_SAMPLES, np.int16))

    def push(self, samples_48k: np.ndarray) -> np.ndarray:
        """Takes int16 [n] at 48 kHz, n a multiple of 3, returns int16 [n/3] at 16 kHz."""
        if samples_48k.dtype != np.int16 or samples_48k.ndim != 1:
            raise ValueError(f"sound is int16 [n], not {samples_48k.dtype} {samples_48k.shape}")
        if not len(samples_48k):
            return np.zeros(0, np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_48k)[None], format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        parts = [resampled.to_ndarray().reshape(-1) for resampled in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)


def _conceal(tail: np.ndarray, count: int) -> np.ndarray:
    """The last sound repeated, fading to silence within 40 ms."""
    filled = np.zeros(count, np.int16)
    if len(tail):
        length = min(count, FADE_SAMPLES)
        repeated = np.resize(tail, length).astype(np.float32)
        fade = 1.0 - np.arange(length, dtype=np.float32) / FADE_SAMPLES
        filled[:length] = (repeated * fade).astype(np.int16)
    return filled
