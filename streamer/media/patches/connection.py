"""The peer connection that is made of the changed parts, for the aiortc that they fit."""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import logging
from collections.abc import Callable
from typing import Any

from aioice.ice import Connection
from aiortc import InvalidStateError, RTCConfiguration, RTCIceCandidate, RTCIceTransport, RTCPeerConnection
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport
from aiortc.rtcicetransport import candidate_to_aioice, connection_kwargs
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtpsender import RTCRtpSender
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.rtcsctptransport import RTCSctpTransport

from streamer.errors import MissingExtraError
from streamer.media.network import Network
from streamer.media.patches.dtls import BroadCertificate, watch_dtls
from streamer.media.patches.ice import harden_ice
from streamer.media.patches.receiver import SteadyReceiver
from streamer.media.patches.restart import IceRestart
from streamer.media.patches.sctp import harden_sctp
from streamer.media.patches.sender import PacedSender

logger = logging.getLogger(__name__)

AIORTC_SERIES = (1, 16)
PRIVATE_METHODS = {  # what is replaced or called below, to notice a release that renamed it
    RTCPeerConnection: ("__createTransceiver", "__createDtlsTransport", "__createSctpTransport", "__connect"),
    RTCRtpSender: ("_run_rtp", "_retransmit", "_send_keyframe", "_handle_rtcp_packet", "_next_encoded_frame"),
    RTCRtpReceiver: ("_handle_rtp_packet", "_set_rtcp_ssrc"),
    RTCDtlsTransport: ("_handle_rtp_data", "_handle_rtcp_data", "_set_state"),
    RTCCertificate: ("_create_ssl_context",),
    RTCSctpTransport: (
        "_send_chunk",
        "_handle_data",
        "_mark_received",
        "_receive_data_chunk",
        "_receive_forward_tsn_chunk",
        "_get_inbound_stream",
    ),
    Connection: ("query_consent", "data_received", "check_incoming", "get_component_candidates", "build_request"),
}
CLOSE_S = 2.0


@functools.cache
def apply() -> None:
    """Makes sure that the changes fit the aiortc that is installed. Idempotent.

    Raises:
        MissingExtraError: if it is another series than 1.16, or lacks something that is replaced here.
    """
    version = importlib.metadata.version("aiortc")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) != AIORTC_SERIES:
        raise MissingExtraError(
            f"the live server needs aiortc 1.16, and {version} is installed: pip install 'infinity-avatar[serve]'"
        )
    for owner, names in PRIVATE_METHODS.items():
        for name in names:
            mangled = f"_{owner.__name__}{name}" if name.startswith("__") else name
            if not callable(vars(owner).get(mangled)):
                raise MissingExtraError(f"aiortc {version} has no {owner.__name__}.{name}, which is changed here")


class PatchedConnection(RTCPeerConnection):
    """The server's peer connection: all of the changes, on its own objects only.

    Args:
        configuration: with explicit ICE servers.
        on_activity: told about every authenticated packet of the peer.
        on_failure: told why, when no encrypted connection comes about.
        network: the addresses and ports that media uses.
    """

    _RTCPeerConnection__certificates: list[RTCCertificate]

    def __init__(
        self,
        configuration: RTCConfiguration,
        on_activity: Callable[[], None] = lambda: None,
        network: Network | None = None,
        on_failure: Callable[[str], None] = lambda reason: None,
    ):
        apply()
        self._on_activity = on_activity
        self._network = network or Network()
        self._on_failure = on_failure
        self._connecting: set[asyncio.Task[Any]] = set()
        self._restart: IceRestart | None = None
        super().__init__(configuration)
        (plain,) = self._RTCPeerConnection__certificates
        self._certificate = BroadCertificate(plain._key, plain._cert)
        self._RTCPeerConnection__certificates = [self._certificate]

    def _RTCPeerConnection__createTransceiver(
        self, direction: str, kind: str, sender_track: MediaStreamTrack | None = None
    ) -> RTCRtpTransceiver:
        transceiver: Any = super()._RTCPeerConnection__createTransceiver(direction, kind, sender_track)  # type: ignore[misc]
        plain = transceiver.sender
        sender = PacedSender(sender_track or kind, plain.transport)
        sender._stream_id = plain._stream_id
        receiver = SteadyReceiver(kind, plain.transport)
        receiver._set_rtcp_ssrc(sender._ssrc)
        transceiver._RTCRtpTransceiver__sender = sender
        transceiver._RTCRtpTransceiver__receiver = receiver
        return transceiver

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:
        transport: RTCDtlsTransport = super()._RTCPeerConnection__createDtlsTransport()  # type: ignore[misc]
        harden_ice(transport.transport._connection, self._on_activity, self._network)
        watch_dtls(transport, self._certificate, self._on_activity, self._on_failure)
        return transport

    def _RTCPeerConnection__createSctpTransport(self) -> None:
        super()._RTCPeerConnection__createSctpTransport()  # type: ignore[misc]
        assert self.sctp is not None
        harden_sctp(self.sctp, self._on_activity)

    async def _RTCPeerConnection__connect(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connecting.add(task)
        try:
            await super()._RTCPeerConnection__connect()  # type: ignore[misc]
        except Exception:
            logger.warning("a peer could not be connected", exc_info=True)
        finally:
            self._connecting.discard(task)

    async def restart_ice(self, username: str, password: str) -> Connection:
        """Begins to connect anew with a peer that has new credentials; media goes on meanwhile and afterwards.

        Returns:
            The connection to be, for its credentials and candidates.

        Raises:
            InvalidStateError: if there is no connection that stands, or more than one because they are not bundled.
            ConnectionError: if this machine has no address or no free port for it.
        """
        transports: set[RTCIceTransport] = self._RTCPeerConnection__iceTransports  # type: ignore[attr-defined]
        if [transport.state for transport in transports] != ["completed"]:
            raise InvalidStateError("not one connection that stands")
        (transport,) = transports
        if self._restart is not None:
            await self._restart.give_up()
        servers = self._RTCPeerConnection__configuration.iceServers  # type: ignore[attr-defined]
        fresh = Connection(ice_controlling=False, **connection_kwargs(servers))
        harden_ice(fresh, self._on_activity, self._network)
        fresh.remote_username, fresh.remote_password = username, password
        self._restart = restart = IceRestart(transport, fresh)
        await fresh.gather_candidates()
        if fresh._closing or not fresh.local_candidates:
            await restart.give_up()
            if self._restart is restart:
                self._restart = None
            raise ConnectionError("an ICE restart found no address of ours")
        task = asyncio.get_running_loop().create_task(restart.run(), name="ice-restart")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return fresh

    async def addIceCandidate(self, candidate: RTCIceCandidate | None) -> None:
        if self._restart is None or candidate is None:
            await super().addIceCandidate(candidate)
        else:
            await self._restart.connection.add_remote_candidate(candidate_to_aioice(candidate))

    async def close(self) -> None:
        if self._restart is not None:
            await self._restart.give_up()
        await super().close()
        if self._connecting:
            _, running = await asyncio.wait(list(self._connecting), timeout=CLOSE_S)
            for task in running:
                task.cancel()
