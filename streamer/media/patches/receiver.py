"""Receives sound through a jitter buffer that skips holes, into bounded queues."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable
from typing import Any

from aiortc import clock, rtp
from aiortc.codecs import depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack, RTCRtpReceiver, StreamStatistics

from streamer.media.jitter import JitterStats, SkippingJitterBuffer, TimestampUnwrapper

Incoming = tuple[RTCRtpCodecParameters, rtp.RtpPacket]

INCOMING_FRAMES = 50  # one second of decoded sound
DECODER_PACKETS = 64
MAX_INCOMING_STREAMS = 4


class IncomingQueue(asyncio.Queue):
    """What a remote track holds: one second. Overflow: the oldest goes."""

    def __init__(self) -> None:
        super().__init__(maxsize=INCOMING_FRAMES)
        self.dropped = 0

    async def put(self, item: Any) -> None:
        if self.full():
            self.get_nowait()
            self.dropped += 1
        self.put_nowait(item)


class SteadyReceiver(RTCRtpReceiver):
    """Receives sound through a jitter buffer that skips holes. Other kinds go aiortc's way."""

    _RTCRtpReceiver__codecs: dict[int, RTCRtpCodecParameters]
    _RTCRtpReceiver__remote_streams: dict[int, StreamStatistics]
    _RTCRtpReceiver__active_ssrc: dict[int, Any]
    _RTCRtpReceiver__decoder_queue: queue.Queue
    _RTCRtpReceiver__decoder_thread: Any

    def __init__(self, kind: str, transport: RTCDtlsTransport, now: Callable[[], float] = time.monotonic):
        super().__init__(kind, transport)
        self._RTCRtpReceiver__decoder_queue = queue.Queue(DECODER_PACKETS)
        self._kind = kind
        self._now = now
        self._incoming_ssrc: int | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.jitter_stats = JitterStats()
        self._start_stream()

    @property  # type: ignore[override]
    def _track(self) -> RemoteStreamTrack | None:  # type: ignore[override]
        return self._bounded_track

    @_track.setter
    def _track(self, track: RemoteStreamTrack | None) -> None:
        if track is not None:
            track._queue = IncomingQueue()
        self._bounded_track = track

    def _start_stream(self) -> None:
        self._jitter: SkippingJitterBuffer[Incoming] = SkippingJitterBuffer(self._now, self.jitter_stats)
        self._timestamps = TimestampUnwrapper()

    async def _handle_rtp_packet(self, packet: rtp.RtpPacket, arrival_time_ms: int) -> None:
        if self._kind != "audio":
            await super()._handle_rtp_packet(packet, arrival_time_ms)
            return
        codec = self._RTCRtpReceiver__codecs.get(packet.payload_type)
        if not self._enabled or codec is None:
            return
        streams = self._RTCRtpReceiver__remote_streams
        if packet.ssrc not in streams:
            if len(streams) >= MAX_INCOMING_STREAMS:
                return
            streams[packet.ssrc] = StreamStatistics(codec.clockRate)
        streams[packet.ssrc].add(packet)
        self._RTCRtpReceiver__active_ssrc[packet.ssrc] = clock.current_datetime()
        if packet.ssrc != self._incoming_ssrc:
            self._start_stream()
            self._incoming_ssrc = packet.ssrc
        self._decode(self._jitter.add(packet.sequence_number, (codec, packet)))

    def _decode(self, ready: list[Incoming]) -> None:
        """Hands packets to the decoder's thread. Overflow: what does not fit is lost."""
        for codec, packet in ready:
            timestamp = self._timestamps.unwrap(packet.timestamp)
            if not packet.payload or self._RTCRtpReceiver__decoder_thread is None:
                continue
            try:
                frame = JitterFrame(data=depayload(codec, packet.payload), timestamp=timestamp)
                self._RTCRtpReceiver__decoder_queue.put_nowait((codec, frame))
            except (queue.Full, ValueError):
                self.jitter_stats.lost += 1
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._jitter.deadline_s is not None:
            wait_s = max(0.0, self._jitter.deadline_s - self._now())
            self._expiry = asyncio.get_running_loop().call_later(wait_s, self._expire)

    def _expire(self) -> None:
        self._decode(self._jitter.expire())

    async def stop(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        await super().stop()
