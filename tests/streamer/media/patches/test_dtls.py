from __future__ import annotations

import asyncio
import datetime
import logging
from typing import Any

import pytest
from aiortc import RTCConfiguration, rtp
from aiortc.rtcdtlstransport import RTCCertificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from streamer.media.patches.connection import PatchedConnection
from tests.streamer.media.client import Client, Gone, Live, make_peer, run_clean


class RsaCertificate(RTCCertificate):
    """As GStreamer has it: an RSA key, and suites that go with it."""

    suites = b"ECDHE-RSA-AES128-GCM-SHA256"

    @classmethod
    def make(cls) -> RsaCertificate:
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "peer")])
        now = datetime.datetime.now(tz=datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        return cls(key, builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256()))  # type: ignore[arg-type]

    def _create_ssl_context(self, srtp_profiles: list) -> SSL.Context:
        context = super()._create_ssl_context(srtp_profiles)
        context.set_cipher_list(self.suites)
        return context


def with_certificate(certificate: RTCCertificate) -> Client:
    client = Client()
    client.connection._RTCPeerConnection__certificates = [certificate]
    for transport in client.connection._RTCPeerConnection__dtlsTransports:  # made with the transceivers
        transport._RTCDtlsTransport__local_certificate = certificate
    return client


def test_a_peer_with_an_rsa_certificate_watches() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer, client = make_peer(live), with_certificate(RsaCertificate.make())
            await client.connect(peer)
            await client.until(lambda: len(client.pictures) > 3)
            await peer.close()
            await client.close()

    run_clean(scenario)


def test_a_handshake_that_fails_is_told_and_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with Live() as live:
            gone = Gone()
            certificate = RsaCertificate.make()
            certificate.suites = b"DHE-RSA-AES128-GCM-SHA256"
            peer, client = make_peer(live, on_gone=gone), with_certificate(certificate)
            await client.connect(peer)
            await gone.wait()
            assert gone.reasons == ["dtls"]
            await peer.close()
            for task in client._tasks:  # tracks that never began do not end
                task.cancel()
            await client.connection.close()

    caplog.set_level(logging.WARNING)
    run_clean(scenario)
    (record,) = [record for record in caplog.records if record.name.startswith("streamer")]
    assert "handshake failure" in record.getMessage() and record.exc_info is None


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
