"""Every change of aiortc and aioice that the server needs, for aiortc 1.16.

Nothing is changed for other users of aiortc in the process: the changes are subclasses and replaced methods of the
server's own objects, which `PatchedConnection` makes. What each is for:

1. `PacedSender`: sender reports pair RTP time with media time (aiortc: with the time of sending, which turns a
   constantly late picture into a permanent lip offset).
2. `PacedSender`: the packets of a frame are spread over time (aiortc: bursts of up to 38).
3. `PacedSender`: packets sent again get a quarter of the bitrate (aiortc: any amount).
4. `PacedSender`: PLI asks the broadcast for a keyframe, REMB and reported loss steer its bitrate (aiortc: both end
   in an encoder that is not used).
5. `SteadyReceiver`: incoming sound does not stall on holes (aiortc: 30 % lost at 5 % packet loss).
6. `SteadyReceiver`: what nobody reads is bounded (aiortc: leaks).
7. `harden_ice`: consent tolerates round trips over 500 ms; gathering ends after 2 s when a STUN server does not
   answer (aioice: 5 s); an empty datagram is ignored (aiortc: ends the connection); waiting datagrams are bounded.
8. `watch_dtls`, `harden_sctp`: every authenticated packet is noticed, for the watchdog; sending on a channel whose
   transport has gone leaves no exception behind in a task.
9. `PatchedConnection.close`: returns when the connecting tasks have ended too (aiortc: they run on).
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import logging
import queue
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aioice import stun
from aioice.ice import Connection
from aiortc import RTCConfiguration, RTCPeerConnection, clock, rtp
from aiortc.codecs import depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack, RTCRtpReceiver, StreamStatistics
from aiortc.rtcrtpsender import RTCEncodedFrame, RTCRtpSender, random_sequence_number
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.rtcsctptransport import RTCSctpTransport
from aiortc.utils import random32, uint16_add, uint32_add

from streamer.errors import MissingExtraError
from streamer.media.jitter import JitterStats, SkippingJitterBuffer, TimestampUnwrapper
from streamer.media.pacing import ResendBudget, spread
from streamer.media.tracks import PacketTrack

logger = logging.getLogger(__name__)

Incoming = tuple[RTCRtpCodecParameters, rtp.RtpPacket]

AIORTC_SERIES = (1, 16)
PRIVATE_METHODS = {  # what is replaced or called below, to notice a release that renamed it
    RTCPeerConnection: ("__createTransceiver", "__createDtlsTransport", "__createSctpTransport", "__connect"),
    RTCRtpSender: ("_run_rtp", "_retransmit", "_send_keyframe", "_handle_rtcp_packet", "_next_encoded_frame"),
    RTCRtpReceiver: ("_handle_rtp_packet", "_set_rtcp_ssrc"),
    RTCDtlsTransport: ("_handle_rtp_data", "_handle_rtcp_data"),
    RTCSctpTransport: ("_send_chunk", "_handle_data"),
    Connection: ("query_consent", "data_received", "check_incoming", "get_component_candidates", "build_request"),
}
INCOMING_FRAMES = 50  # one second of decoded sound
DECODER_PACKETS = 64
DATAGRAMS = 1000
MAX_INCOMING_STREAMS = 4
GATHER_S = 2
CONSENT_INTERVAL_S = 5.0
CONSENT_RETRIES = 2  # waits 0.5 + 1 + 2 s for an answer
CONSENT_EXPIRES_S = 30.0
CLOSE_S = 2.0
PACING_GRAIN_S = 0.001  # shorter waits than a timer can keep are not waited


@functools.cache
def apply() -> None:
    """Makes sure that the changes fit the aiortc that is installed; the rest happens in the classes below. Idempotent.

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


class PatchedConnection(RTCPeerConnection):
    """The server's peer connection: all of the changes, on its own objects only.

    Args:
        configuration: with explicit ICE servers.
        on_activity: told about every authenticated packet of the peer.
    """

    def __init__(self, configuration: RTCConfiguration, on_activity: Callable[[], None] = lambda: None):
        apply()
        self._on_activity = on_activity
        self._connecting: set[asyncio.Task[Any]] = set()
        super().__init__(configuration)

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
        harden_ice(transport.transport._connection, self._on_activity)
        watch_dtls(transport, self._on_activity)
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

    async def close(self) -> None:
        await super().close()
        if self._connecting:
            _, running = await asyncio.wait(list(self._connecting), timeout=CLOSE_S)
            for task in running:
                task.cancel()


def harden_ice(connection: Connection, on_activity: Callable[[], None] = lambda: None) -> None:
    """Changes one ICE connection, see 7 at the top; authenticated checks and consent count as activity."""
    data_received, check_incoming = connection.data_received, connection.check_incoming

    def bounded_data_received(data: bytes, component: int) -> None:
        if data and connection._queue.qsize() < DATAGRAMS:
            data_received(data, component)

    def noticed_check(message: stun.Message, addr: tuple[str, int], protocol: Any) -> None:
        on_activity()
        check_incoming(message, addr, protocol)

    connection.data_received = bounded_data_received  # type: ignore[method-assign]
    connection.check_incoming = noticed_check  # type: ignore[method-assign]
    connection.get_component_candidates = functools.partial(  # type: ignore[method-assign]
        connection.get_component_candidates, timeout=GATHER_S
    )
    connection.query_consent = functools.partial(query_consent, connection, on_activity)  # type: ignore[method-assign]


async def query_consent(
    connection: Connection,
    on_activity: Callable[[], None],
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Asks every 5 s whether the peer still wants packets (RFC 7675); closes after 30 s without an answer.

    A question is repeated twice and waited for 3.5 s, so that a slow path alone does not end a session.
    """
    assert connection.remote_password is not None
    key = connection.remote_password.encode()
    answered_s = now()
    while now() - answered_s < CONSENT_EXPIRES_S:
        await sleep(CONSENT_INTERVAL_S * random.uniform(0.8, 1.2))
        for pair in list(connection._nominated.values()):
            try:
                await pair.protocol.request(
                    connection.build_request(pair, nominate=False),
                    pair.remote_addr,
                    integrity_key=key,
                    retransmissions=CONSENT_RETRIES,
                )
            except stun.TransactionError:
                continue
            answered_s = now()
            on_activity()
    connection._query_consent_task = None
    await connection.close()


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


def harden_sctp(transport: RTCSctpTransport, on_activity: Callable[[], None] = lambda: None) -> None:
    """Counts data as activity, and lets chunks for a transport that has gone fall."""
    send_chunk, handle_data = transport._send_chunk, transport._handle_data

    async def send_if_connected(chunk: Any) -> None:
        try:
            await send_chunk(chunk)
        except ConnectionError:
            logger.debug("a data channel's transport has gone")

    async def noticed_data(data: bytes) -> None:
        on_activity()
        await handle_data(data)

    transport._send_chunk = send_if_connected  # type: ignore[method-assign]
    transport._handle_data = noticed_data  # type: ignore[method-assign]
