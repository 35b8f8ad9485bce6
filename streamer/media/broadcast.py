"""Plays a session once: encodes every frame once a codec and every block of sound once, for any number of peers."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import av
import numpy as np

from streamer.media import BLOCK_S, FPS, FRAME_S
from streamer.media.audio_encoder import BITRATE_BPS as SOUND_BPS
from streamer.media.audio_encoder import OpusEncoder
from streamer.media.bitrate import START_BPS, BitratePlan, max_bitrate_bps
from streamer.media.clock import MediaClock
from streamer.media.playout import LATE_S, Playout
from streamer.media.tracks import PacketTrack
from streamer.media.video_encoder import CODECS, VideoEncoder, open_video_encoder

T = TypeVar("T")

KEYFRAME_GAP_S = 0.5  # between keyframes that peers ask for
SKIP_S = LATE_S + FRAME_S  # what waited its 120 ms is a little later than that; anything beyond was a stall
# Sound leaves one frame ahead of its picture, where it is there already: browsers keep sound in their buffers for some
# 30 to 60 ms longer than pictures, and correct only what is off by more. The timestamps stay exact.
SOUND_LEAD_S = FRAME_S
SMOOTHING = 0.1
ENCODER_THREADS = 2  # one job of sound and one of video at a time


@dataclass
class BroadcastStats:
    """What was played and sent.

    Attributes:
        encode_ms: of a frame, all codecs together, smoothed.
        bytes: encoded, of all codecs and the sound.
        frames_encoded: frames that were encoded for somebody.
        encodes: encoder calls a codec: equal to `frames_encoded` with one codec in use, however many peers.
        keyframes: sent, all codecs.
        fps_out: frames handed out within the last second.
        av_offset_ms: how much later than the sound of its time a picture is handed out, beyond the lead that sound
            has by intention, smoothed.
        video_late_ms, sound_late_ms: against their times to leave, smoothed.
        skips: times the player jumped to the present after a stall, and `skipped_ms` in all.
        encoder_names: by codec, while in use.
        bitrate_bps: targets by codec.
        subscribers: by codec, "opus" included.
    """

    encode_ms: float = 0.0
    bytes: int = 0
    frames_encoded: int = 0
    encodes: dict[str, int] = field(default_factory=dict)
    keyframes: int = 0
    fps_out: float = 0.0
    av_offset_ms: float = 0.0
    video_late_ms: float = 0.0
    sound_late_ms: float = 0.0
    skips: int = 0
    skipped_ms: float = 0.0
    encoder_names: dict[str, str] = field(default_factory=dict)
    bitrate_bps: dict[str, int] = field(default_factory=dict)
    subscribers: dict[str, int] = field(default_factory=dict)


class _Channel:
    """One video codec: its subscribers and its encoder, which lives while there are any."""

    def __init__(self, codec: str, plan: BitratePlan):
        self.codec = codec
        self.plan = plan
        self.tracks: list[PacketTrack] = []
        self.encoder: VideoEncoder | None = None
        self.is_keyframe_wanted = False
        self.keyframe_s = -math.inf  # media time of the last one
        self.sent_bytes = 0  # since the last step of the plan


class Broadcast:
    """Plays a playout on its clock at 25 fps and fans the packets out.

    A frame that is not there in time is waited for up to 120 ms. Then, as after a stall of the process, the player goes
    on at the present, sound and picture together, instead of sending all that was missed; until frames come again, the
    last one is encoded in their place, in time, with silence. Encoding runs in two threads of its own.

    Args:
        clock: of the session.
        playout: what is played; nobody else may read it.
        frame_size: (height, width).
        bitrate_bps: to start with; at most 500 kb/s is used.
        open_encoder: makes a video encoder, see `open_video_encoder`.
        executor: where to encode; its own threads if None.
        on_frame: told (index, tag, milliseconds late) of every frame handed out.
    """

    def __init__(
        self,
        clock: MediaClock,
        playout: Playout,
        frame_size: tuple[int, int],
        bitrate_bps: int = START_BPS,
        *,
        open_encoder: Callable[[str, tuple[int, int], int], VideoEncoder] = open_video_encoder,
        executor: Executor | None = None,
        on_frame: Callable[[int, Any, float], None] | None = None,
    ):
        self.clock = clock
        self.playout = playout
        self.frame_size = frame_size
        self.on_frame = on_frame
        self._open_encoder = open_encoder
        self._executor = executor
        self._owns_executor = executor is None
        max_bps = max_bitrate_bps(frame_size)
        self._channels = {codec: _Channel(codec, BitratePlan(bitrate_bps, max_bps)) for codec in CODECS}
        self._sound_tracks: list[PacketTrack] = []
        self._tracks: set[PacketTrack] = set()  # all that were handed out and not stopped
        self._is_over = False
        self._last_picture: np.ndarray | None = None
        self._resume_frame = 0  # neither sound nor picture before this frame is played any more
        self._sent_s: deque[float] = deque(maxlen=2 * FPS)
        self._stats = BroadcastStats()

    # --- subscribers

    def video_track(self, codec: str, leads: bool = False) -> PacketTrack:
        """A new subscriber of the picture in that codec, "H264" or "VP8".

        Args:
            leads: its link decides the bitrate; see `BitratePlan`.

        Raises:
            ValueError: for another codec.
        """
        if codec not in self._channels:
            raise ValueError(f"there is no video codec {codec!r}; there are {', '.join(self._channels)}")
        channel = self._channels[codec]
        return self._track(
            "video",
            codec,
            channel.tracks,
            partial(self.request_keyframe, codec),
            lambda: channel.plan.target_bps,
            leads,
        )

    def audio_track(self) -> PacketTrack:
        """A new subscriber of the sound."""
        return self._track("audio", "opus", self._sound_tracks, lambda: None, lambda: SOUND_BPS)

    def request_keyframe(self, codec: str) -> None:
        """The next frame of that codec will be a keyframe, or the next one 500 ms after the last keyframe."""
        self._channels[codec].is_keyframe_wanted = True

    @property
    def stats(self) -> BroadcastStats:
        """The present figures."""
        stats = self._stats
        now_s = self.clock.media_s()
        stats.fps_out = float(sum(sent_s > now_s - 1.0 for sent_s in self._sent_s))
        stats.av_offset_ms = stats.video_late_ms - stats.sound_late_ms
        stats.bitrate_bps = {codec: channel.plan.target_bps for codec, channel in self._channels.items()}
        stats.subscribers = {codec: len(channel.tracks) for codec, channel in self._channels.items()}
        stats.subscribers["opus"] = len(self._sound_tracks)
        stats.encoder_names = {
            codec: channel.encoder.name for codec, channel in self._channels.items() if channel.encoder is not None
        }
        return stats

    # --- playing

    async def run(self) -> None:
        """Plays until it is cancelled; then all tracks end and the threads are gone. To be called once."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(ENCODER_THREADS, thread_name_prefix="encode")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._play_video(), name="broadcast-video")
                group.create_task(self._play_sound(), name="broadcast-sound")
        finally:
            self._is_over = True
            for track in list(self._tracks):
                track.stop()
            for channel in self._channels.values():
                channel.encoder = None  # its threads would wait for the garbage collector
            if self._owns_executor:
                self._executor.shutdown(wait=True)  # nothing runs in it: `_in_thread` waits for its job

    async def _play_video(self) -> None:
        index = steered_frame = self._first_frame()
        while True:
            await self.clock.wait_until(index * FRAME_S)
            late_s = self.clock.media_s() - index * FRAME_S
            if late_s > SKIP_S:  # the encoder, or everything, was too slow: on with the present
                index = max(index, self._frame_now())
            index = max(index, self._resume_frame)
            if not await self.playout.wait_for(index):
                index = max(index, self._frame_now())
            picture = self.playout.frame(index)
            if picture is not None:
                self._last_picture = picture
            if self._last_picture is not None:
                await self._send_frame(index, self._last_picture)
            if index - steered_frame >= FPS:
                self._steer((index - steered_frame) * FRAME_S)
                steered_frame = index
            index += 1

    async def _play_sound(self) -> None:
        block = 2 * self._first_frame()
        encoder = await self._in_thread(OpusEncoder)
        while True:
            await self.clock.wait_until(block * BLOCK_S - SOUND_LEAD_S)
            late_s = self.clock.media_s() - block * BLOCK_S
            if late_s > SKIP_S:
                frame = self._frame_now()
                self._stats.skips += 1
                self._stats.skipped_ms += (2 * frame - block) * BLOCK_S * 1000
                self._resume_frame = max(self._resume_frame, frame)
            block = max(block, 2 * self._resume_frame)
            if not await self.playout.wait_for(block // 2):
                block = max(block, self._block_now())
            samples = self.playout.sound(block)
            if self._sound_tracks:
                packet = await self._in_thread(encoder.encode, samples, block)
                self._stats.bytes += packet.size
                for track in self._sound_tracks:
                    track.offer(packet)
            self._stats.sound_late_ms = _smoothed(
                self._stats.sound_late_ms, 1000 * (self.clock.media_s() + SOUND_LEAD_S - block * BLOCK_S)
            )
            block += 1

    async def _send_frame(self, index: int, picture: np.ndarray) -> None:
        channels = [channel for channel in self._channels.values() if channel.tracks]
        for channel in self._channels.values():
            if not channel.tracks:
                channel.encoder = None
        encode_ms = 0.0
        for channel in channels:
            packet, took_ms = await self._in_thread(self._encode, channel, picture, index, self._keyframe_due(channel))
            encode_ms += took_ms
            if packet.is_keyframe:
                channel.keyframe_s = index * FRAME_S
                self._stats.keyframes += 1
            self._stats.bytes += packet.size
            channel.sent_bytes += packet.size
            self._stats.encodes[channel.codec] = self._stats.encodes.get(channel.codec, 0) + 1
            for track in channel.tracks:
                track.offer(packet)
        now_s = self.clock.media_s()
        late_ms = 1000 * (now_s - index * FRAME_S)
        self._stats.video_late_ms = _smoothed(self._stats.video_late_ms, late_ms)
        if channels:
            self._sent_s.append(now_s)
            self._stats.frames_encoded += 1
            self._stats.encode_ms = _smoothed(self._stats.encode_ms, encode_ms)
        tag = self.playout.tag(index)
        if self.on_frame is not None:
            self.on_frame(index, tag, late_ms)

    def _encode(self, channel: _Channel, picture: np.ndarray, index: int, keyframe: bool) -> tuple[av.Packet, float]:
        """In a thread: one frame; opens the encoder for the first one."""
        started_s = self.clock.media_s()
        encoder = channel.encoder
        if encoder is None:
            encoder = channel.encoder = self._open_encoder(channel.codec, self.frame_size, channel.plan.target_bps)
        packet = encoder.encode(picture, index, keyframe)
        return packet, 1000 * (self.clock.media_s() - started_s)

    def _keyframe_due(self, channel: _Channel) -> bool:
        is_due = channel.is_keyframe_wanted and self.clock.media_s() - channel.keyframe_s >= KEYFRAME_GAP_S
        if is_due:
            channel.is_keyframe_wanted = False
        return is_due

    def _steer(self, passed_s: float) -> None:
        """Once a second: the bitrates follow what the receivers report."""
        for channel in self._channels.values():
            sent_bps = 8 * channel.sent_bytes / passed_s
            channel.sent_bytes = 0
            target_bps = channel.plan.step((track.estimate for track in channel.tracks), sent_bps)
            if target_bps is not None and channel.encoder is not None:
                channel.encoder.set_bitrate(target_bps)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs work in the executor. Cancelled, it still waits: nothing runs on behind a closed session."""
        assert self._executor is not None
        job = asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])
            raise

    def _first_frame(self) -> int:
        return max(0, math.ceil(self.clock.media_s() * FPS))

    def _frame_now(self) -> int:
        return math.floor(self.clock.media_s() * FPS)

    def _block_now(self) -> int:
        """The block that leaves now."""
        return math.floor((self.clock.media_s() + SOUND_LEAD_S) / BLOCK_S)

    def _track(
        self,
        kind: str,
        codec: str,
        subscribers: list[PacketTrack],
        on_keyframe: Callable[[], None],
        bitrate_bps: Callable[[], int],
        leads: bool = False,
    ) -> PacketTrack:
        def on_subscribe(track: PacketTrack) -> None:
            subscribers.append(track)

        def on_stop(track: PacketTrack) -> None:
            self._tracks.discard(track)
            if track in subscribers:
                subscribers.remove(track)

        track = PacketTrack(
            kind,
            codec,
            self.clock,
            on_subscribe=on_subscribe,
            on_stop=on_stop,
            on_keyframe=on_keyframe,
            bitrate_bps=bitrate_bps,
            leads=leads,
        )
        if self._is_over:
            track.stop()
        else:
            self._tracks.add(track)
        return track


def _smoothed(before: float, value: float) -> float:
    return before + SMOOTHING * (value - before)
