"""Sends encoded packets paced, by media time, and lost ones again within a budget."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aiortc import clock, rtp
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpsender import RTCEncodedFrame, RTCRtpSender, random_sequence_number
from aiortc.utils import random32, uint16_add, uint32_add

from streamer.media.pacing import ResendBudget, spread
from streamer.media.tracks import PacketTrack

logger = logging.getLogger(__name__)

PACING_GRAIN_S = 0.001  # shorter waits than a timer can keep are not waited


class PacedSender(RTCRtpSender):
    """Sends the packets of a `PacketTrack`; other tracks go aiortc's way.

    Attributes:
        packets_lost: as the receiver counts.
        fraction_lost: of its last report, 0 … 1.
        rtt_s: smoothed round trip, None before the first.
        packets_resent: sent again for this receiver; `budget.refused` were not.
    """

    # aiortc's private state that is shared with its own methods (sender reports, stop, statistics)
    _RTCRtpSender__rtp_started: asyncio.Event
    _RTCRtpSender__rtp_exited: asyncio.Event
    _RTCRtpSender__rtp_history: dict[int, rtp.RtpPacket]
    _RTCRtpSender__rtp_header_extensions_map: rtp.HeaderExtensionsMap
    _RTCRtpSender__track: MediaStreamTrack | None
    _RTCRtpSender__mid: str | None
    _RTCRtpSender__rtt: float | None
    _RTCRtpSender__ntp_timestamp: int
    _RTCRtpSender__rtp_timestamp: int
    _RTCRtpSender__octet_count: int
    _RTCRtpSender__packet_count: int

    def __init__(
        self,
        track_or_kind: MediaStreamTrack | str,
        transport: RTCDtlsTransport,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        super().__init__(track_or_kind, transport)
        self.budget = ResendBudget(now)
        self.packets_lost = 0
        self.fraction_lost = 0.0
        self.rtt_s: float | None = None
        self.packets_resent = 0
        self._now = now
        self._sleep = sleep

    @property
    def packet_track(self) -> PacketTrack | None:
        return self.track if isinstance(self.track, PacketTrack) else None

    @property
    def bytes_sent(self) -> int:
        return self._RTCRtpSender__octet_count

    @property
    def packets_sent(self) -> int:
        return self._RTCRtpSender__packet_count

    async def _run_rtp(self, codec: RTCRtpCodecParameters) -> None:
        track = self.packet_track
        if track is None:
            await super()._run_rtp(codec)
            return
        self._RTCRtpSender__rtp_started.set()
        sequence_number, timestamp_origin = random_sequence_number(), random32()
        try:
            while True:
                frame = await self._next_encoded_frame(codec)
                if frame is not None:
                    sequence_number = await self._send_paced(codec, frame, track, sequence_number, timestamp_origin)
        except (asyncio.CancelledError, ConnectionError, MediaStreamError):
            pass
        except Exception:
            logger.exception("sending %s ended", track.codec)
        finally:
            track.stop()
            self._RTCRtpSender__track = None
            self._RTCRtpSender__rtp_exited.set()  # stop() waits for it

    async def _send_paced(
        self,
        codec: RTCRtpCodecParameters,
        frame: RTCEncodedFrame,
        track: PacketTrack,
        sequence_number: int,
        timestamp_origin: int,
    ) -> int:
        """Sends one frame; returns the next sequence number."""
        offsets_s = [0.0] * len(frame.payloads)
        if track.kind == "video":
            offsets_s = spread([len(payload) for payload in frame.payloads], track.bitrate_bps)
        media_ntp = track.clock.ntp(frame.timestamp / codec.clockRate)
        started_s = self._now()
        for position, (payload, offset_s) in enumerate(zip(frame.payloads, offsets_s, strict=True)):
            wait_s = started_s + offset_s - self._now()
            if wait_s > PACING_GRAIN_S:
                await self._sleep(wait_s)
            packet = rtp.RtpPacket(
                payload_type=codec.payloadType or 0,
                marker=int(position == len(frame.payloads) - 1),
                sequence_number=sequence_number,
                timestamp=uint32_add(timestamp_origin, frame.timestamp),
                ssrc=self._ssrc,
                payload=payload,
            )
            packet.extensions.abs_send_time = (clock.current_ntp_time() >> 14) & 0x00FFFFFF
            packet.extensions.mid = self._RTCRtpSender__mid
            self._RTCRtpSender__rtp_history[sequence_number % rtp.RTP_HISTORY_SIZE] = packet
            await self.transport._send_rtp(packet.serialize(self._RTCRtpSender__rtp_header_extensions_map))
            self._RTCRtpSender__ntp_timestamp = media_ntp
            self._RTCRtpSender__rtp_timestamp = packet.timestamp
            self._RTCRtpSender__octet_count += len(payload)
            self._RTCRtpSender__packet_count += 1
            sequence_number = uint16_add(sequence_number, 1)
        return sequence_number

    async def _retransmit(self, sequence_number: int) -> None:
        packet = self._RTCRtpSender__rtp_history.get(sequence_number % rtp.RTP_HISTORY_SIZE)
        if packet is None or packet.sequence_number != sequence_number:
            return
        bitrate_bps = self.packet_track.bitrate_bps if self.packet_track else 0
        if self.budget.take(len(packet.payload), bitrate_bps):
            self.packets_resent += 1
            await super()._retransmit(sequence_number)

    def _send_keyframe(self) -> None:
        if self.packet_track is not None:
            self.packet_track.request_keyframe()
        else:
            super()._send_keyframe()

    async def _handle_rtcp_packet(self, packet: rtp.AnyRtcpPacket) -> None:
        track = self.packet_track
        if isinstance(packet, (rtp.RtcpRrPacket, rtp.RtcpSrPacket)):
            for report in packet.reports:
                if report.ssrc == self._ssrc:
                    self.packets_lost = report.packets_lost
                    self.fraction_lost = report.fraction_lost / 256
                    if track is not None:
                        track.estimate.report_loss(self.fraction_lost, track.bitrate_bps)
        elif isinstance(packet, rtp.RtcpPsfbPacket) and packet.fmt == rtp.RTCP_PSFB_APP and track is not None:
            try:
                bitrate_bps, ssrcs = rtp.unpack_remb_fci(packet.fci)
            except ValueError:
                return
            if self._ssrc in ssrcs:
                track.estimate.report_remb(bitrate_bps)
        await super()._handle_rtcp_packet(packet)
        self.rtt_s = self._RTCRtpSender__rtt
