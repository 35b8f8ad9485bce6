"""A browser's part, played by plain aiortc in the same process, and a session that plays something."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import get_capabilities
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streamer.media.broadcast import Broadcast
from streamer.media.clock import MediaClock
from streamer.media.microphone import Microphone
from streamer.media.peer import Peer
from streamer.media.playout import Playout

SIZE = (64, 64)
PATIENCE_S = 20.0  # nothing here takes that long; a busy machine may


class Live:
    """A session in real time: flashes white and beeps together, 120 ms out of every 480.

    Args:
        late_s: how much too late every chunk is put.
    """

    def __init__(self, size: tuple[int, int] = SIZE, late_s: float = -0.1) -> None:
        self.late_s = late_s
        self.clock = MediaClock(time.monotonic() + 0.2)
        self.playout = Playout(self.clock, size)
        self.broadcast = Broadcast(self.clock, self.playout, size)
        self.size = size
        self._tasks: list[asyncio.Task] = []

    async def __aenter__(self) -> Live:
        self._tasks = [asyncio.ensure_future(self.broadcast.run()), asyncio.ensure_future(self._fill())]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results), results

    async def _fill(self) -> None:
        height, width = self.size
        beep = (9000 * np.sin(2 * np.pi * 1000 * np.arange(3 * 1920) / 48_000)).astype(np.int16)
        sound = np.concatenate([beep, np.zeros(9 * 1920, np.int16)])
        for chunk in range(10_000):
            frames = np.full((12, height * 3 // 2, width), 128, np.uint8)
            frames[:, :height] = 30
            frames[:3, :height] = 220
            await self.clock.wait_until(chunk * 0.48 + self.late_s)
            self.playout.put(12 * chunk, frames, sound)


class Tone(MediaStreamTrack):
    """A microphone: a tone, 20 ms a frame, in real time."""

    kind = "audio"

    def __init__(self, frequency_hz: float = 400.0):
        super().__init__()
        self._frequency_hz = frequency_hz
        self._sent = 0
        self._started_s = time.monotonic()

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(max(0.0, self._started_s + self._sent / 48_000 - time.monotonic()))
        t = (self._sent + np.arange(960)) / 48_000
        frame = av.AudioFrame.from_ndarray(
            (8000 * np.sin(2 * np.pi * self._frequency_hz * t)).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self._sent, Fraction(1, 48_000)
        self._sent += 960
        return frame


class Client:
    """A peer connection that watches and listens, and may speak."""

    def __init__(self, codec: str | None = None, microphone: MediaStreamTrack | None = None, channel: bool = False):
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pictures: list[av.VideoFrame] = []
        self.blocks: list[av.AudioFrame] = []
        self.messages: list[str] = []
        self.news = asyncio.Event()
        self.channel = self.connection.createDataChannel("events") if channel else None
        if self.channel is not None:
            self.channel.on("message", self._on_message)
            self.channel.on("open", self.news.set)
        if microphone is not None:
            self.connection.addTrack(microphone)
        else:
            self.connection.addTransceiver("audio", direction="recvonly")
        video = self.connection.addTransceiver("video", direction="recvonly")
        if codec is not None:
            wanted = [c for c in get_capabilities("video").codecs if c.mimeType.lower() == f"video/{codec.lower()}"]
            video.setCodecPreferences(wanted)
        self.connection.on("track", self._on_track)
        self._tasks: list[asyncio.Task] = []

    def _on_message(self, message: str) -> None:
        self.messages.append(message)
        self.news.set()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.ensure_future(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        received: list[Any] = self.pictures if track.kind == "video" else self.blocks
        while True:
            try:
                received.append(await track.recv())
            except MediaStreamError:
                return
            self.news.set()

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def connect(self, peer: Peer) -> str:
        answer = await peer.answer(await self.offer())
        await self.accept(answer)
        return answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for news that make the condition true."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.news.clear()
                if not condition():
                    await self.news.wait()

    async def close(self) -> None:
        await self.connection.close()
        await asyncio.gather(*self._tasks)

    async def vanish(self) -> None:
        """The cable is pulled: nothing is sent any more, not even a goodbye."""
        for receiver in self.connection.getReceivers():
            connection = receiver.transport.transport._connection

            async def lost(*arguments: object) -> None:
                pass

            for protocol in connection._protocols:
                protocol.transport.sendto = lambda *arguments: None  # type: ignore[method-assign]
            connection.sendto = lost  # type: ignore[method-assign]


class Gone:
    """Notes why a peer has gone."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._event = asyncio.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self._event.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self._event.wait(), PATIENCE_S)


def make_peer(live: Live, **changes: Any) -> Peer:
    arguments: dict[str, Any] = {
        "ice_servers": (),
        "broadcast": live.broadcast,
        "microphone": None,
        "on_message": lambda message: None,
        "on_gone": lambda reason: None,
    }
    return Peer(**{**arguments, **changes})


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run_clean(scenario: Callable[[], Awaitable[None]]) -> None:
    """Runs a scenario and makes sure that it leaves no task, no thread and no descriptor."""
    gc.collect()  # what an earlier, failed scenario left is not ours
    threads, descriptors = set(threading.enumerate()), open_descriptors()

    async def main() -> None:
        async with asyncio.timeout(3 * PATIENCE_S):
            await scenario()
        for _ in range(3):  # what only has to be told that it ends
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(main())
    assert set(threading.enumerate()) == threads
    assert open_descriptors() == descriptors


__all__ = ["Client", "Gone", "Live", "Microphone", "Tone", "make_peer", "open_descriptors", "run_clean"]
