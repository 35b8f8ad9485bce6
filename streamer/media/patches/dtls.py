"""DTLS: every authenticated packet is a sign of life."""

from __future__ import annotations

from collections.abc import Callable

from aiortc.rtcdtlstransport import RTCDtlsTransport


def watch_dtls(transport: RTCDtlsTransport, on_activity: Callable[[], None]) -> None:
    """Counts every SRTP and SRTCP packet that authenticates as activity: also the reports of peers that only watch."""
    handle_rtp, handle_rtcp = transport._handle_rtp_data, transport._handle_rtcp_data

    async def noticed_rtp(data: bytes, arrival_time_ms: int) -> None:
        on_activity()
        await handle_rtp(data, arrival_time_ms=arrival_time_ms)

    async def noticed_rtcp(data: bytes) -> None:
        on_activity()
        await handle_rtcp(data)

    transport._handle_rtp_data = noticed_rtp  # type: ignore[method-assign]
    transport._handle_rtcp_data = noticed_rtcp  # type: ignore[method-assign]
