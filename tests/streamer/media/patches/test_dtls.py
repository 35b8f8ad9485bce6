from __future__ import annotations

import asyncio
from typing import Any

from aiortc import RTCConfiguration, rtp

from streamer.media.patches.connection import PatchedConnection


def test_rtp_and_rtcp_are_signs_of_life() -> None:
    async def main() -> None:
        signs: list[int] = []
        connection = PatchedConnection(RTCConfiguration(iceServers=[]), lambda: signs.append(1))
        connection.addTransceiver("video", direction="sendonly")
        transport: Any = connection.getTransceivers()[0].receiver.transport
        await transport._handle_rtcp_data(bytes(rtp.RtcpRrPacket(ssrc=1, reports=[])))
        await transport._handle_rtp_data(rtp.RtpPacket(99).serialize(), arrival_time_ms=0)
        assert signs == [1, 1]
        await connection.close()

    asyncio.run(main())
