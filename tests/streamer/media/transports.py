"""A transport that notes what is sent over it, and the codecs the tests of the patches agree on."""

from __future__ import annotations

import asyncio

from aiortc import rtp
from aiortc.rtcrtpparameters import RTCRtpCodecParameters

from tests.streamer.media.simulated import SimulatedTime

H264 = RTCRtpCodecParameters(mimeType="video/H264", clockRate=90_000, payloadType=99)
OPUS = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=48_000, channels=2, payloadType=96)


class RecordingTransport:
    """Takes what a sender sends; time passes in `sleep` only."""

    state = "connected"
    _stats_id = "transport"

    def __init__(self, time: SimulatedTime):
        self._time = time
        self.sent: list[tuple[float, bytes]] = []
        self.arrival = asyncio.Event()

    async def _send_rtp(self, data: bytes) -> None:
        self.sent.append((self._time.now_s, data))
        self.arrival.set()

    def _register_rtp_sender(self, *arguments: object) -> None: ...

    def _unregister_rtp_sender(self, *arguments: object) -> None: ...

    def _register_rtp_receiver(self, *arguments: object) -> None: ...

    def _unregister_rtp_receiver(self, *arguments: object) -> None: ...

    def packets(self) -> list[tuple[float, rtp.RtpPacket]]:
        return [(when, rtp.RtpPacket.parse(data)) for when, data in self.sent if not rtp.is_rtcp(data)]

    def reports(self) -> list[rtp.RtcpSrPacket]:
        parsed = [packet for _, data in self.sent if rtp.is_rtcp(data) for packet in rtp.RtcpPacket.parse(data)]
        return [packet for packet in parsed if isinstance(packet, rtp.RtcpSrPacket)]
