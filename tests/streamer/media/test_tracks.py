from __future__ import annotations

import asyncio
from fractions import Fraction

import av
import pytest
from aiortc.mediastreams import MediaStreamError

from streamer.media.tracks import SOUND_PACKETS, VIDEO_PACKETS, PacketTrack
from tests.streamer.media.simulated import SimulatedClock, SimulatedTime, settle


def packet(pts: int, is_keyframe: bool = False) -> av.Packet:
    made = av.Packet(b"x")
    made.pts, made.time_base, made.is_keyframe = pts, Fraction(1, 90_000), is_keyframe
    return made


class Owner:
    """Notes what a track asks for."""

    def __init__(self, kind: str = "video"):
        self.subscribed: list[PacketTrack] = []
        self.stopped: list[PacketTrack] = []
        self.keyframes = 0
        self.track = PacketTrack(
            kind,
            "H264" if kind == "video" else "opus",
            SimulatedClock(SimulatedTime()),
            on_subscribe=self.subscribed.append,
            on_stop=self.stopped.append,
            on_keyframe=self._count,
            bitrate_bps=lambda: 500_000,
        )

    def _count(self) -> None:
        self.keyframes += 1


def test_a_track_that_nobody_reads_does_not_subscribe() -> None:
    async def main() -> None:
        owner = Owner()
        await settle()
        assert not owner.subscribed and owner.keyframes == 0
        reading = asyncio.ensure_future(owner.track.recv())
        await settle()
        assert owner.subscribed == [owner.track] and owner.keyframes == 1
        owner.track.offer(packet(0, True))
        assert (await reading).pts == 0

    asyncio.run(main())


def test_nothing_comes_before_a_keyframe() -> None:
    async def main() -> None:
        owner = Owner()
        reading = asyncio.ensure_future(owner.track.recv())
        await settle()
        owner.track.offer(packet(1))
        owner.track.offer(packet(2))
        await settle()
        assert not reading.done() and owner.track.packets_dropped == 2
        owner.track.offer(packet(3, True))
        owner.track.offer(packet(4))
        assert (await reading).pts == 3 and (await owner.track.recv()).pts == 4

    asyncio.run(main())


def test_a_slow_video_reader_goes_on_at_the_next_keyframe() -> None:
    async def main() -> None:
        owner = Owner()
        owner.track.offer(packet(0, True))
        for pts in range(1, VIDEO_PACKETS + 20):
            owner.track.offer(packet(pts))
        assert owner.keyframes == 0  # a dead reader must not ask again and again
        reading = asyncio.ensure_future(owner.track.recv())
        await settle()
        assert not reading.done() and owner.keyframes == 1
        owner.track.offer(packet(100))
        owner.track.offer(packet(101, True))
        assert (await reading).pts == 101
        assert owner.track.packets_dropped == VIDEO_PACKETS + 21

    asyncio.run(main())


def test_queues_are_bounded() -> None:
    for kind, limit in (("video", VIDEO_PACKETS), ("audio", SOUND_PACKETS)):
        owner = Owner(kind)
        for pts in range(1000):
            owner.track.offer(packet(pts, is_keyframe=pts % 50 == 0))
        assert len(owner.track._packets) <= limit


def test_a_slow_listener_loses_the_oldest_sound() -> None:
    async def main() -> None:
        owner = Owner("audio")
        for pts in range(SOUND_PACKETS + 5):
            owner.track.offer(packet(pts))
        assert (await owner.track.recv()).pts == 5
        assert owner.track.packets_dropped == 5

    asyncio.run(main())


def test_stopping_ends_the_reader_and_tells_once() -> None:
    async def main() -> None:
        owner = Owner()
        reading = asyncio.ensure_future(owner.track.recv())
        await settle()
        owner.track.stop()
        owner.track.stop()
        with pytest.raises(MediaStreamError):
            await reading
        with pytest.raises(MediaStreamError):
            await owner.track.recv()
        assert owner.stopped == [owner.track] and owner.subscribed == [owner.track]

    asyncio.run(main())
