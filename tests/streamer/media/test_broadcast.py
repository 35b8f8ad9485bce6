from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from streamer.media.broadcast import Broadcast
from streamer.media.playout import Playout
from streamer.media.tracks import PacketTrack
from tests.streamer.media.simulated import (
    CountingEncoder,
    InlineExecutor,
    SimulatedClock,
    SimulatedTime,
    pictures,
    ramp,
    settle,
)

SIZE = (16, 16)


class SlowExecutor(InlineExecutor):
    """Takes its time over pictures, while the loop goes on; sound is done at once."""

    def __init__(self, time: SimulatedTime, seconds: float):
        self._time = time
        self._seconds = seconds

    def submit(self, fn, /, *args, **kwargs):
        if fn.__name__ != "_encode":
            return super().submit(fn, *args, **kwargs)
        future: Future = Future()

        async def work() -> None:
            await self._time.sleep(self._seconds)
            future.set_result(fn(*args, **kwargs))

        future.work = asyncio.ensure_future(work())  # type: ignore[attr-defined]
        return future


class Reader:
    """Reads a track and notes when each packet came: (media time of the packet, media time it came, payload)."""

    def __init__(self, stage: Stage, track: PacketTrack):
        self.track = track
        self.packets: list[tuple[float, float, bytes]] = []
        self.keyframes: list[float] = []
        self.is_over = False
        self._stage = stage
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while True:
            try:
                packet = await self.track.recv()
            except MediaStreamError:
                self.is_over = True
                return
            media_s = float(packet.pts * packet.time_base)
            self.packets.append((media_s, self._stage.clock.media_s(), bytes(packet)))
            if self.track.kind == "video" and packet.is_keyframe:
                self.keyframes.append(media_s)

    @property
    def frames(self) -> list[int]:
        return [round(media_s * 25) for media_s, _, _ in self.packets]

    @property
    def brightness(self) -> list[int]:
        return [payload[0] for _, _, payload in self.packets]

    @property
    def late_ms(self) -> list[float]:
        return [1000 * (came_s - media_s) for media_s, came_s, _ in self.packets]


class Stage:
    """A broadcast in simulated time."""

    def __init__(self, origin_in_s: float = 0.0):
        self.time = SimulatedTime()
        self.clock = SimulatedClock(self.time, self.time.now_s + origin_in_s)
        self.playout = Playout(self.clock, SIZE)
        self.encoders: list[CountingEncoder] = []
        self.sent: list[tuple[int, object, float]] = []
        self.payload_bytes = 4
        self.broadcast = Broadcast(
            self.clock,
            self.playout,
            SIZE,
            open_encoder=self._open,
            executor=InlineExecutor(),
            on_frame=lambda *frame: self.sent.append(frame),
        )
        self.readers: list[Reader] = []

    def _open(self, codec: str, frame_size: tuple[int, int], bitrate_bps: int) -> CountingEncoder:
        self.encoders.append(CountingEncoder(codec, bitrate_bps, self.payload_bytes))
        return self.encoders[-1]

    def watch(self, codec: str = "H264") -> Reader:
        return self._reader(self.broadcast.video_track(codec))

    def listen(self) -> Reader:
        return self._reader(self.broadcast.audio_track())

    def _reader(self, track: PacketTrack) -> Reader:
        self.readers.append(Reader(self, track))
        return self.readers[-1]

    def put(self, first: int, count: int = 12, tag: object = None) -> int:
        return self.playout.put(first, pictures(first, count), ramp(first, count), tag)

    async def play_on(self, seconds: float, from_frame: int) -> int:
        """Plays with everything in time; returns the next frame to be put."""
        left_s = seconds
        while left_s > 1e-9:
            while from_frame * 0.04 < self.clock.media_s() + 0.5:
                self.put(from_frame)
                from_frame += 12
            step_s = min(0.2, left_s)
            await self.time.advance(step_s)
            left_s -= step_s
        return from_frame


def perform(scenario: Callable[[Stage], Awaitable[None]], origin_in_s: float = 0.0) -> None:
    async def main() -> None:
        stage = Stage(origin_in_s)
        running = asyncio.ensure_future(stage.broadcast.run())
        await settle()
        try:
            await scenario(stage)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.gather(*[reader.task for reader in stage.readers])
        assert all(reader.is_over for reader in stage.readers)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_frames_leave_at_their_media_time_and_sound_one_frame_ahead() -> None:
    async def scenario(stage: Stage) -> None:
        watching, listening = stage.watch(), stage.listen()
        await stage.play_on(4.0, 0)
        assert watching.frames == list(range(watching.frames[0], watching.frames[0] + len(watching.frames)))
        assert watching.frames[-1] == 100 and len(watching.frames) >= 99
        assert watching.brightness == [20 + frame for frame in watching.frames]
        assert max(map(abs, watching.late_ms)) < 0.01
        blocks = [round(media_s * 50) for media_s, _, _ in listening.packets]
        assert blocks == list(range(blocks[0], 203))
        assert listening.late_ms[10:] == [pytest.approx(-40, abs=0.01)] * (len(blocks) - 10)
        assert stage.broadcast.stats.av_offset_ms == pytest.approx(0, abs=0.01)
        assert stage.broadcast.stats.fps_out == 25

    perform(scenario)


def test_nothing_plays_before_the_origin() -> None:
    async def scenario(stage: Stage) -> None:
        watching = stage.watch()
        stage.put(0)
        await stage.time.advance(0.59)
        assert watching.packets == []
        await stage.time.advance(0.05)
        assert watching.frames == [0, 1]

    perform(scenario, origin_in_s=0.6)


def test_five_viewers_cost_one_encode() -> None:
    async def scenario(stage: Stage) -> None:
        viewers = [stage.watch() for _ in range(5)]
        listeners = [stage.listen() for _ in range(5)]
        await stage.play_on(2.0, 0)
        stats = stage.broadcast.stats
        assert len(stage.encoders) == 1
        assert stats.encodes == {"H264": stats.frames_encoded} and stats.frames_encoded >= 49
        assert len(stage.encoders[0].calls) == stats.frames_encoded
        assert all(viewer.packets == viewers[0].packets for viewer in viewers)
        assert all(listener.packets == listeners[0].packets for listener in listeners)
        assert stats.subscribers == {"H264": 5, "VP8": 0, "opus": 5}

    perform(scenario)


def test_only_codecs_in_use_are_encoded() -> None:
    async def scenario(stage: Stage) -> None:
        following = await stage.play_on(0.4, 0)
        assert stage.encoders == []
        vp8 = stage.watch("VP8")
        following = await stage.play_on(0.4, following)
        assert [encoder.codec for encoder in stage.encoders] == ["VP8"]
        stage.watch("H264")
        following = await stage.play_on(0.4, following)
        assert [encoder.codec for encoder in stage.encoders] == ["VP8", "H264"]
        vp8.track.stop()
        await stage.play_on(0.4, following)
        assert stage.broadcast.stats.encoder_names == {"H264": "counting H264"}
        assert stage.broadcast.stats.encodes["VP8"] < stage.broadcast.stats.frames_encoded

    perform(scenario)


def test_a_new_viewer_gets_a_keyframe_at_once() -> None:
    async def scenario(stage: Stage) -> None:
        first = stage.watch()
        following = await stage.play_on(2.0, 0)
        assert first.keyframes == first.keyframes[:1]
        joined_s = stage.clock.media_s()
        second = stage.watch()
        await stage.play_on(1.0, following)
        assert second.keyframes[0] == second.packets[0][0]
        assert second.packets[0][1] - joined_s <= 0.04 + 1e-6
        assert first.frames == list(range(first.frames[0], first.frames[-1] + 1))

    perform(scenario)


def test_keyframes_that_are_asked_for_are_half_a_second_apart() -> None:
    async def scenario(stage: Stage) -> None:
        watching = stage.watch()
        following = await stage.play_on(1.0, 0)
        for _ in range(40):  # a storm of requests for four seconds
            stage.broadcast.request_keyframe("H264")
            following = await stage.play_on(0.1, following)
        await stage.play_on(1.0, following)
        gaps = np.diff(watching.keyframes)
        assert gaps.min() >= 0.5 - 1e-6
        assert 8 <= len(watching.keyframes) <= 11
        assert watching.keyframes[-1] < 5.6  # the storm is over

    perform(scenario)


def test_a_late_chunk_is_played_late_with_its_own_time() -> None:
    """100 ms late: nothing is lost, everything carries its media time, and the player catches up."""

    async def scenario(stage: Stage) -> None:
        watching, listening = stage.watch(), stage.listen()
        stage.put(0)
        await stage.time.advance(0.48 + 0.1)
        assert stage.put(12) == 0
        await stage.time.advance(0.3)
        assert watching.brightness == [20 + frame for frame in watching.frames]
        assert watching.frames == list(range(watching.frames[0], 22 + 1))
        late = dict(zip(watching.frames, watching.late_ms, strict=True))
        assert [late[12], late[14], late[15]] == pytest.approx([100, 20, 0], abs=0.01)
        silent = stage.playout.stats
        assert silent.frames_held == 0 and silent.frames_dropped == 0 and silent.sound_ms_dropped == 0
        blocks = [round(media_s * 50) for media_s, _, _ in listening.packets]
        assert blocks == list(range(blocks[0], blocks[-1] + 1))

    perform(scenario)


def test_what_never_comes_is_waited_for_once_and_then_held_in_time_with_silence() -> None:
    """Browsers hold back sound that is late for more than a second, and go on doing so: only one packet may be late."""

    async def scenario(stage: Stage) -> None:
        watching, listening = stage.watch(), stage.listen()
        stage.put(0)
        await stage.time.advance(2.0)
        assert watching.frames == [*range(watching.frames[0], 12), *range(15, 51)]
        assert set(watching.brightness[-36:]) == {20 + 11}
        assert max(watching.late_ms) < 1
        blocks = [round(media_s * 50) for media_s, _, _ in listening.packets]
        assert blocks == [*range(blocks[0], 24), *range(32, 103)]  # 12 frames, and from 120 ms later on silence
        assert max(listening.late_ms[10:]) < -19
        assert stage.playout.stats.frames_held == 36

    perform(scenario)


def test_after_a_missing_span_sound_and_picture_are_in_step_again() -> None:
    async def scenario(stage: Stage) -> None:
        watching, listening = stage.watch(), stage.listen()
        stage.put(0)
        await stage.time.advance(2.0)  # the engine stands still for 1.5 s
        following = 50
        dropped = stage.playout.put(36, pictures(36, 24), ramp(36, 24))  # of what it makes then, most is too late
        assert dropped == 16  # the sound of frame 51 has left, one frame ahead
        await stage.play_on(1.0, following + 10)
        assert watching.late_ms[-1] == pytest.approx(0, abs=0.01)
        assert listening.late_ms[-1] == pytest.approx(-40, abs=0.01)
        assert watching.brightness[-20:] == [20 + frame for frame in watching.frames[-20:]]
        assert stage.playout.stats.sound_ms_dropped == 40 * stage.playout.stats.frames_dropped == 640

    perform(scenario)


def test_a_stall_of_the_process_is_skipped_by_sound_and_picture_together() -> None:
    async def scenario(stage: Stage) -> None:
        watching, listening = stage.watch(), stage.listen()
        following = await stage.play_on(1.0, 0)
        before, heard_before = len(watching.packets), len(listening.packets)
        stage.playout.put(following, pictures(following, 1), ramp(following, 1))
        await stage.time.stall(2.0)
        stage.put(75, 36)  # 3.0 s on
        await stage.play_on(1.0, 111)
        frames, blocks = watching.frames[before:], [round(m * 50) for m, _, _ in listening.packets[heard_before:]]
        assert frames[0] == 75 and blocks[0] == 150  # both at 3.00 s, nothing of the two seconds between
        assert frames == list(range(75, 75 + len(frames))) and blocks == list(range(150, 150 + len(blocks)))
        assert max(watching.late_ms[before:]) < 121 and max(listening.late_ms[heard_before:]) < 121
        assert stage.broadcast.stats.skips == 1
        assert stage.broadcast.stats.skipped_ms == pytest.approx(1960, abs=41)

    perform(scenario)


def test_a_short_stall_loses_nothing() -> None:
    async def scenario(stage: Stage) -> None:
        watching, listening = stage.watch(), stage.listen()
        following = await stage.play_on(1.0, 0)
        await stage.time.stall(0.11)
        await stage.play_on(0.5, following)
        assert stage.broadcast.stats.skips == 0
        assert watching.frames == list(range(watching.frames[0], watching.frames[-1] + 1))
        blocks = [round(m * 50) for m, _, _ in listening.packets]
        assert blocks == list(range(blocks[0], blocks[-1] + 1))
        assert stage.playout.stats.frames_dropped == 0

    perform(scenario)


def test_an_encoder_that_is_too_slow_loses_frames_and_no_sound() -> None:
    """60 ms a frame: the picture stays within reach of the clock, and the sound goes on."""

    async def scenario(stage: Stage) -> None:
        watching, listening = stage.watch(), stage.listen()

        stage.broadcast._executor = SlowExecutor(stage.time, 0.06)
        await stage.play_on(6.0, 0)
        assert max(watching.late_ms) < 300
        assert 60 < len(watching.packets) < 120 and watching.frames == sorted(set(watching.frames))
        blocks = [round(media_s * 50) for media_s, _, _ in listening.packets]
        assert blocks == list(range(blocks[0], blocks[-1] + 1)) and blocks[-1] > 290
        assert stage.broadcast.stats.skips == 0
        stage.broadcast._executor = InlineExecutor()
        await stage.time.advance(0.1)

    perform(scenario)


def test_a_reader_that_is_dead_does_not_slow_the_others() -> None:
    async def scenario(stage: Stage) -> None:
        watching = stage.watch()
        dead = stage.watch()
        following = await stage.play_on(0.4, 0)
        dead.task.cancel()
        await asyncio.gather(dead.task, return_exceptions=True)
        stage.readers.remove(dead)
        before = len(watching.keyframes)
        await stage.play_on(10.0, following)
        assert watching.frames == list(range(watching.frames[0], watching.frames[-1] + 1))
        assert max(map(abs, watching.late_ms)) < 0.01
        assert len(watching.keyframes) == before  # and asks for no keyframes
        assert dead.track.packets_dropped > 200

    perform(scenario)


def test_the_bitrate_is_the_slowest_viewers() -> None:
    async def scenario(stage: Stage) -> None:
        stage.payload_bytes = 2500  # 500 kb/s and more: the link is really tried
        fast, slow = stage.watch(), stage.watch()
        following = await stage.play_on(0.5, 0)
        fast.track.estimate.report_remb(2_000_000)
        slow.track.estimate.report_remb(240_000)
        following = await stage.play_on(2.0, following)
        assert stage.encoders[0].bitrates == [500_000, 240_000]
        assert fast.track.bitrate_bps == slow.track.bitrate_bps == 240_000
        slow.track.stop()
        await stage.play_on(30.0, following)
        rates = stage.encoders[0].bitrates[1:]
        assert all(later <= 1.1 * earlier + 1 for earlier, later in zip(rates, rates[1:], strict=False))
        assert rates[-1] == pytest.approx(1_500_000, rel=0.03)
        assert rates[-1] == stage.broadcast.stats.bitrate_bps["H264"]

    perform(scenario)


def test_frames_are_reported_with_their_tags() -> None:
    async def scenario(stage: Stage) -> None:
        stage.watch()
        stage.put(0, tag="first")
        stage.put(12, tag="second")
        await stage.time.advance(1.5)
        tags = {index: tag for index, tag, _ in stage.sent}
        assert (tags[5], tags[20], tags[30]) == ("first", "second", None)

    perform(scenario)


def test_tracks_of_a_broadcast_that_is_over_end() -> None:
    async def main() -> None:
        stage = Stage()
        running = asyncio.ensure_future(stage.broadcast.run())
        await settle()
        unread = stage.broadcast.video_track("H264")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert unread.readyState == "ended"
        assert stage.broadcast.audio_track().readyState == "ended"

    asyncio.run(main())


def test_threads_of_its_own_are_gone_afterwards() -> None:
    """With the real encoders, in real threads."""

    async def main() -> None:
        time = SimulatedTime()
        clock = SimulatedClock(time)
        playout = Playout(clock, (64, 64))
        broadcast = Broadcast(clock, playout, (64, 64))
        tracks = [broadcast.video_track("H264"), broadcast.video_track("VP8"), broadcast.audio_track()]
        reading = [asyncio.ensure_future(track.recv()) for track in tracks]
        playout.put(0, np.full((3, 96, 64), 128, np.uint8), np.zeros(5760, np.int16))
        running = asyncio.ensure_future(broadcast.run())
        packets = await asyncio.wait_for(asyncio.gather(*reading), 20)
        assert [packet.pts for packet in packets] == [0, 0, 0]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    before = set(threading.enumerate())
    asyncio.run(main())
    assert set(threading.enumerate()) == before


def test_ending_in_the_middle_of_an_encode_waits_for_it_without_holding_up_the_loop() -> None:
    async def main() -> None:
        time = SimulatedTime()
        clock = SimulatedClock(time)
        playout = Playout(clock, SIZE)
        inside, release = threading.Event(), threading.Event()

        def wait_inside() -> None:
            inside.set()
            release.wait(20)

        broadcast = Broadcast(
            clock, playout, SIZE, open_encoder=lambda *a: CountingEncoder("H264", 500_000, 4, wait_inside)
        )
        reading = asyncio.ensure_future(broadcast.video_track("H264").recv())
        playout.put(0, pictures(0, 3), ramp(0, 3))
        running = asyncio.ensure_future(broadcast.run())
        assert await asyncio.to_thread(inside.wait, 20)
        safety = threading.Timer(1.0, release.set)  # or a loop that is held up would wait for ever
        safety.start()
        running.cancel()
        await settle()
        assert not release.is_set() and not running.done()
        release.set()
        await asyncio.gather(running, reading, return_exceptions=True)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("encode")]
        safety.cancel()

    asyncio.run(main())


def test_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="AV1"):
        Stage().broadcast.video_track("AV1")
