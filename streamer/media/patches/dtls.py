"""DTLS: peers with RSA certificates, failures that are told, and packets as signs of life."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Callable

from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport, SRTPProtectionProfile, State
from OpenSSL import SSL

SUITES = b":".join(
    b"ECDHE-" + key + rest
    for key in (b"ECDSA", b"RSA")
    for rest in (b"-AES128-GCM-SHA256", b"-CHACHA20-POLY1305", b"-AES128-SHA", b"-AES256-SHA")
)
NOTHING_SAID = "its certificate is not the one of its offer, or it has no SRTP profile of ours"


class BroadCertificate(RTCCertificate):
    """Also talks to peers whose certificate is RSA; aiortc offers suites for ECDSA only.

    Attributes:
        alert: the last one of a handshake, in OpenSSL's words; aiortc drops the error that says it.
    """

    alert = ""

    def _create_ssl_context(self, srtp_profiles: list[SRTPProtectionProfile]) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(SUITES)
        context.set_info_callback(self._on_info)
        return context

    def _on_info(self, connection: SSL.Connection, where: int, code: int) -> None:
        if where & SSL.SSL_CB_ALERT:
            with contextlib.suppress(ValueError):
                name = ssl.AlertDescription(code & 0xFF).name.removeprefix("ALERT_DESCRIPTION_")
                self.alert = name.lower().replace("_", " ")


def watch_dtls(
    transport: RTCDtlsTransport,
    certificate: BroadCertificate,
    on_activity: Callable[[], None],
    on_failure: Callable[[str], None] = lambda reason: None,
) -> None:
    """Counts every SRTP and SRTCP packet that authenticates as activity: also the reports of peers that only watch.

    Args:
        certificate: ours.
        on_failure: told why, when no encrypted connection comes about.
    """
    handle_rtp, handle_rtcp, set_state = transport._handle_rtp_data, transport._handle_rtcp_data, transport._set_state

    async def noticed_rtp(data: bytes, arrival_time_ms: int) -> None:
        on_activity()
        await handle_rtp(data, arrival_time_ms=arrival_time_ms)

    async def noticed_rtcp(data: bytes) -> None:
        on_activity()
        await handle_rtcp(data)

    def noticed_state(state: State) -> None:
        error = sys.exception()  # aiortc sets the state where it catches it
        if state == State.FAILED and not isinstance(error, ConnectionError):
            on_failure(NOTHING_SAID if error is None else certificate.alert or type(error).__name__)
        set_state(state)

    transport._handle_rtp_data = noticed_rtp  # type: ignore[method-assign]
    transport._handle_rtcp_data = noticed_rtcp  # type: ignore[method-assign]
    transport._set_state = noticed_state  # type: ignore[method-assign]
