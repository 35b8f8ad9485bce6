"""The tracks a broadcast hands to its peers: encoded packets out of a bounded queue each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from streamer.media.bitrate import ReceiverEstimate
from streamer.media.clock import MediaClock

VIDEO_PACKETS = 16  # 640 ms of frames
SOUND_PACKETS = 10  # 200 ms of blocks


class PacketTrack(MediaStreamTrack):
    """One subscriber of one codec. It subscribes with its first `recv`, so that a peer that never connects costs
    nothing.

    Overflow: a full sound queue loses its oldest packet. A full video queue is emptied and waits for a keyframe,
    which is asked for when the reader reads again: a dead reader makes no work for the others.

    Args:
        kind: "video" or "audio".
        codec: "H264", "VP8" or "opus".
        clock: of the session, for sender reports.
        on_subscribe, on_stop: told about the first `recv` and about the end.
        on_keyframe: asked for a keyframe.
        bitrate_bps: what is being sent at present.
        leads: its receiver decides what is sent.
    """

    def __init__(
        self,
        kind: str,
        codec: str,
        clock: MediaClock,
        *,
        on_subscribe: Callable[[PacketTrack], None],
        on_stop: Callable[[PacketTrack], None],
        on_keyframe: Callable[[], None],
        bitrate_bps: Callable[[], int],
        leads: bool = False,
    ):
        super().__init__()
        self.kind = kind
        self.codec = codec
        self.clock = clock
        self.estimate = ReceiverEstimate(leads)
        self.packets_dropped = 0
        self._on_subscribe = on_subscribe
        self._on_stop = on_stop
        self._on_keyframe = on_keyframe
        self._bitrate_bps = bitrate_bps
        self._packets: deque[av.Packet] = deque()
        self._arrival = asyncio.Event()
        self._is_subscribed = False
        self._needs_keyframe = kind == "video"

    async def recv(self) -> av.Packet:
        """The next packet; pts is media time.

        Raises:
            MediaStreamError: when the track or the broadcast has ended.
        """
        if self.readyState == "live" and not self._is_subscribed:
            self._is_subscribed = True
            self._on_subscribe(self)
        if not self._packets and self._needs_keyframe:
            self._on_keyframe()
        while self.readyState == "live":
            if self._packets:
                return self._packets.popleft()
            self._arrival.clear()
            await self._arrival.wait()
        raise MediaStreamError

    def offer(self, packet: av.Packet) -> None:
        """Takes a packet from the broadcast; never waits."""
        if self.kind == "video":
            if not self._accepts_video(packet):
                self.packets_dropped += 1
                return
        elif len(self._packets) >= SOUND_PACKETS:
            self._packets.popleft()
            self.packets_dropped += 1
        self._packets.append(packet)
        self._arrival.set()

    def _accepts_video(self, packet: av.Packet) -> bool:
        if len(self._packets) >= VIDEO_PACKETS:
            self.packets_dropped += len(self._packets)
            self._packets.clear()
            self._needs_keyframe = True
        if packet.is_keyframe:
            self._needs_keyframe = False
        return not self._needs_keyframe

    def request_keyframe(self) -> None:
        """The peer cannot decode what it has."""
        self._on_keyframe()

    @property
    def bitrate_bps(self) -> int:
        """What the encoder of this codec aims for at present."""
        return self._bitrate_bps()

    def stop(self) -> None:
        """Ends the track; idempotent."""
        if self.readyState == "live":
            super().stop()
            self._packets.clear()
            self._arrival.set()
            self._on_stop(self)
