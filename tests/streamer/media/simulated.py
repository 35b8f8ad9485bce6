"""Time that moves when a test says so, and encoders that count."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from fractions import Fraction

import av
import numpy as np

from streamer.media.clock import MediaClock

SETTLE_ROUNDS = 60  # turns of the loop until everything that can run has run


async def settle() -> None:
    for _ in range(SETTLE_ROUNDS):
        await asyncio.sleep(0)


class SimulatedTime:
    """A monotonic clock and its sleep."""

    def __init__(self, now_s: float = 1000.0):
        self.now_s = now_s
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now_s + seconds, next(self._order), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Lets time pass: everybody wakes in order, at the time they asked for."""
        end_s = self.now_s + seconds
        await settle()
        while self._waiting and self._waiting[0][0] <= end_s + 1e-9:
            wake_s, _, future = heapq.heappop(self._waiting)
            self.now_s = max(self.now_s, wake_s)
            if not future.done():
                future.set_result(None)
            await settle()
        self.now_s = end_s

    async def stall(self, seconds: float) -> None:
        """The process stands still: time passes, and only then does everybody wake."""
        self.now_s += seconds
        await self.advance(0.0)


class SimulatedClock(MediaClock):
    def __init__(self, time: SimulatedTime, origin_s: float | None = None, unix_s: float = 1_700_000_000.0):
        super().__init__(time.now_s if origin_s is None else origin_s, now=time, unix_now=lambda: unix_s)
        self._time = time

    async def wait_until(self, media_s: float) -> None:
        await self._time.sleep(self.wall_s(media_s) - self._time.now_s)


class InlineExecutor(Executor):
    """Runs work at once, in the caller's thread."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class CountingEncoder:
    """Notes what it encodes. The packet's payload is the mean brightness of the picture."""

    def __init__(
        self, codec: str, bitrate_bps: int, payload_bytes: int = 4, on_encode: Callable[[], None] = lambda: None
    ):
        self.payload_bytes = payload_bytes
        self.on_encode = on_encode
        self.codec = codec
        self.calls: list[tuple[int, int, bool]] = []  # index, brightness, keyframe asked for
        self.bitrates = [bitrate_bps]
        self.name = f"counting {codec}"

    def set_bitrate(self, bitrate_bps: int) -> None:
        self.bitrates.append(bitrate_bps)

    def encode(self, picture: np.ndarray, index: int, keyframe: bool = False) -> av.Packet:
        self.on_encode()
        brightness = int(picture.mean())
        is_keyframe = keyframe or not self.calls
        self.calls.append((index, brightness, keyframe))
        packet = av.Packet(bytes([brightness]) * self.payload_bytes)
        packet.pts = packet.dts = index * 3600
        packet.time_base = Fraction(1, 90_000)
        packet.is_keyframe = is_keyframe
        return packet


def pictures(first: int, count: int, size: tuple[int, int] = (16, 16)) -> np.ndarray:
    """uint8 [count, H*3/2, W]; the brightness of frame k is k % 200 + 20."""
    height, width = size
    values = np.array([(first + k) % 200 + 20 for k in range(count)], np.uint8)
    return np.broadcast_to(values[:, None, None], (count, height * 3 // 2, width)).copy()


def ramp(first: int, count: int) -> np.ndarray:
    """int16 [count*1920]; every sample of frame k is 100 + k % 20000."""
    return np.repeat((100 + np.arange(first, first + count) % 20_000).astype(np.int16), 1920)
