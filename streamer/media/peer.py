"""One WebRTC peer of a session: the caller, who also speaks, or a viewer."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiortc import InvalidStateError, RTCConfiguration, RTCDataChannel, RTCRtpCodecCapability, RTCSessionDescription
from aiortc.codecs import get_capabilities
from aiortc.rtcrtptransceiver import RTCRtpTransceiver

from streamer.errors import AvatarError, CapacityError, ProtocolError
from streamer.media.broadcast import Broadcast
from streamer.media.microphone import Microphone
from streamer.media.network import Network
from streamer.media.offers import MAX_CANDIDATES, ice_server_list, read_candidates, read_offer, read_restart
from streamer.media.patches.connection import PatchedConnection, apply
from streamer.media.watchdog import Watchdog

logger = logging.getLogger(__name__)

CHANNEL = "events"
MAX_BUFFERED_BYTES = 256 * 1024  # of messages that the peer has not taken yet; beyond that they are dropped
MAX_CANDIDATE_REQUESTS = 100  # in the life of a connection
CONNECT_LIMIT_S = 20.0
SILENCE_LIMIT_S = 4.0  # of a caller in a browser, who sends sound all the time
# Who only receives reports every 5 s ± 50 % and checks consent every 5 s ± 20 %; who only sends is a program, whose
# encoder may hold everything back for seconds.
QUIET_LIMIT_S = 15.0
CLOSE_LIMIT_S = 5.0
VIDEO_PREFERENCE = (("video/h264", "42e01f"), ("video/h264", "42001f"), ("video/vp8", None), ("video/rtx", None))


@dataclass
class PeerStats:
    """What is known of one connection.

    Attributes:
        codec: of the picture, "H264" or "VP8"; empty while nothing is agreed.
        bitrate_bps: the encoder's target.
        limit_bps: what this peer says it can take; None while it has not.
        packets_lost: of picture and sound, as the peer counts.
        fraction_lost: of the picture in its last report, 0 … 1.
        rtt_ms: None before the first report.
        packets_resent, resends_refused: by the budget for lost packets.
        queue_drops: packets it was too slow for.
        messages_dropped: of the data channel.
        silent_s: since the peer's last sign of life; None before the first.
    """

    codec: str = ""
    bitrate_bps: int = 0
    limit_bps: int | None = None
    bytes_sent: int = 0
    packets_sent: int = 0
    packets_lost: int = 0
    fraction_lost: float = 0.0
    rtt_ms: float | None = None
    packets_resent: int = 0
    resends_refused: int = 0
    queue_drops: int = 0
    messages_dropped: int = 0
    silent_s: float | None = None


class Peer:
    """One RTCPeerConnection of ours. `answer` once, then it lives until `close`.

    Args:
        ice_servers: URLs, dictionaries (`urls`, `username`, `credential`) or `RTCIceServer`s; none may be given, and
            then none are used.
        network: the addresses and ports that media uses.
        broadcast: what the peer sees and hears.
        microphone: takes the peer's sound; None for a viewer, whose sound is not received.
        leads: it is the session's caller, whose link decides the bitrate.
        on_connected: called once when media can flow.
        on_open: called once when the data channel can be sent to.
        on_message: called with every text message of it.
        on_gone: called once when the peer has gone by itself: "timeout" (20 s to connect, then 4 s of silence, 15 s if
            it only receives or only sends), "closed", "failed" or "dtls" (no encrypted connection came about). The
            owner then calls `close`. Both callbacks may be coroutine functions.

    Raises:
        ValueError: for an ICE server that is none.
        MissingExtraError: if aiortc is not the one that the server is made for.
    """

    def __init__(
        self,
        *,
        ice_servers: Iterable[Any] = (),
        network: Network | None = None,
        broadcast: Broadcast,
        microphone: Microphone | None = None,
        leads: bool = False,
        on_connected: Callable[[], None] = lambda: None,
        on_open: Callable[[], None] = lambda: None,
        on_message: Callable[[str], Awaitable[None] | None],
        on_gone: Callable[[str], Awaitable[None] | None],
        connect_limit_s: float = CONNECT_LIMIT_S,
        silence_limit_s: float = SILENCE_LIMIT_S,
        quiet_limit_s: float = QUIET_LIMIT_S,
    ):
        apply()
        self._configuration = RTCConfiguration(iceServers=ice_server_list(ice_servers))
        self._network = network or Network()
        self._broadcast = broadcast
        self._microphone = microphone
        self._leads = leads
        self._on_connected = on_connected
        self._on_open = on_open
        self._on_message = on_message
        self._on_gone = on_gone
        self._silence_limit_s = silence_limit_s
        self._watchdog = Watchdog(connect_limit_s, quiet_limit_s)
        self._connection: PatchedConnection | None = None
        self._channel: RTCDataChannel | None = None
        self._transceivers: dict[str, RTCRtpTransceiver] = {}
        self._offer = ""
        self._answering = asyncio.Event()  # set while no offer is being answered
        self._answering.set()
        self._guard: asyncio.Task[None] | None = None
        self._callbacks: set[asyncio.Task[None]] = set()
        self._is_gone = False
        self._closing: asyncio.Task[None] | None = None
        self._candidate_requests = 0
        self.restarts = 0  # of ICE
        self._former_ufrags: set[str] = set()
        self._candidates_left = MAX_CANDIDATES
        self._messages_dropped = 0

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.connectionState == "connected"

    async def answer(self, offer_sdp: str) -> str:
        """Answers an offer; the answer is complete, with all candidates.

        Raises:
            ProtocolError: code `bad_sdp`, if the offer is broken or cannot be used, or code `out_of_order`, if one
                has been answered or the peer is closed. Nothing of the connection is left then.
            CapacityError: if this machine has no address or no free port for media.
        """
        if self._connection is not None or self._closing is not None:
            raise ProtocolError("this connection has had its offer; a new one needs a new connection", "out_of_order")
        offer = read_offer(offer_sdp, self._network, is_heard=self._microphone is not None)
        self._answering.clear()
        try:
            answer = await self._negotiate(offer)
        except BaseException as error:
            self._answering.set()
            await self.close()
            if isinstance(error, Exception) and not isinstance(error, AvatarError):
                logger.info("an offer was refused: %r", error)
                raise ProtocolError("the offer cannot be answered: its parts do not fit together", "bad_sdp") from error
            raise
        self._answering.set()
        if self._closing is not None:
            raise ProtocolError("the connection was closed while its offer was answered", "out_of_order")
        self._offer = offer
        self._guard = asyncio.get_running_loop().create_task(self._watch(), name="peer-watchdog")
        return answer

    async def add_candidates(self, sdp_fragment: str) -> str | None:
        """Takes candidates that the peer found after its offer (`application/trickle-ice-sdpfrag`): 40 in all.

        New credentials among them restart ICE: media goes on, and moves when the new connection stands.

        Returns:
            Our part of an ICE restart, a fragment with all candidates; None if there is none.

        Raises:
            ProtocolError: code `bad_sdp` for what cannot be read, `out_of_order` without an answered offer, and for a
                restart of what does not stand.
            CapacityError: if there is no port for a restart; the connection stays as it is.
        """
        if self._connection is None or not self._offer or self._closing is not None:
            raise ProtocolError("candidates need an offer that has been answered first", "out_of_order")
        self._candidate_requests += 1
        if self._candidate_requests > MAX_CANDIDATE_REQUESTS:
            raise ProtocolError("too many candidates were sent for one connection", "bad_sdp")
        restart = read_restart(sdp_fragment, self._offer)
        if restart is not None and restart[0] in self._former_ufrags:
            raise ProtocolError("the candidates are of before an ICE restart", "bad_sdp")
        offer = self._offer
        if restart is not None:
            offer = re.sub(r"(?m)^a=ice-ufrag:\S+", lambda found: f"a=ice-ufrag:{restart[0]}", offer)
        candidates = read_candidates(sdp_fragment, offer, self._network)
        answer = None
        if restart is not None:
            answer = await self._restart_ice(self._connection, *restart)
            self._offer, self._candidates_left = offer, MAX_CANDIDATES
        candidates = candidates[: self._candidates_left]
        self._candidates_left -= len(candidates)
        for candidate in candidates:
            await self._connection.addIceCandidate(candidate)
        return answer

    def send(self, message: str) -> None:
        """Sends a text over the data channel; dropped, and counted, if that is not open or has 256 KiB waiting."""
        channel = self._channel
        if (
            channel is None
            or channel.readyState != "open"
            or not self.is_connected
            or channel.bufferedAmount > MAX_BUFFERED_BYTES
        ):
            self._messages_dropped += 1
            return
        channel.send(message)

    async def close(self) -> None:
        """Ends the connection; idempotent. When it returns, no task, thread or socket of it is left."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="peer-close")
        await asyncio.shield(self._closing)

    def stats(self) -> PeerStats:
        """The present figures."""
        stats = PeerStats(messages_dropped=self._messages_dropped, silent_s=self._watchdog.silent_s)
        for kind, transceiver in self._transceivers.items():
            sender: Any = transceiver.sender
            stats.packets_sent += sender.packets_sent
            stats.bytes_sent += sender.bytes_sent
            stats.packets_lost += sender.packets_lost
            if sender.rtt_s is not None:
                stats.rtt_ms = 1000 * sender.rtt_s
            track = sender.packet_track
            if kind == "video":
                stats.fraction_lost = sender.fraction_lost
                stats.packets_resent, stats.resends_refused = sender.packets_resent, sender.budget.refused
            if track is not None:
                stats.queue_drops += track.packets_dropped
                if kind == "video":
                    stats.codec, stats.bitrate_bps = track.codec, track.bitrate_bps
                    limit = track.estimate.limit_bps
                    stats.limit_bps = None if limit is None else int(limit)
        return stats

    # --- setting up

    async def _negotiate(self, offer: str) -> str:
        connection = self._connection = PatchedConnection(
            self._configuration, self._watchdog.sign, self._network, self._on_dtls_failure
        )
        self._prepare(connection, offer)
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        self._listen()
        await connection.setLocalDescription()
        if "\na=candidate:" not in connection.localDescription.sdp:
            raise CapacityError(self._network.why_nothing_is_left)
        return connection.localDescription.sdp

    def _prepare(self, connection: PatchedConnection, offer: str) -> None:
        """Our side of what the offer has: a transceiver a kind, with the codecs we send."""
        for kind in ("audio", "video"):
            if f"\nm={kind} " not in offer:
                continue
            is_heard = kind == "audio" and self._microphone is not None
            transceiver = connection.addTransceiver(kind, direction="sendrecv" if is_heard else "sendonly")
            transceiver.setCodecPreferences(_preferences(kind))
            self._transceivers[kind] = transceiver
        connection.on("connectionstatechange", self._on_state)
        connection.on("datachannel", self._on_channel)

    def _listen(self) -> None:
        """After the codecs are agreed: puts in the tracks, and takes the microphone's."""
        for kind, transceiver in self._transceivers.items():
            if kind == "audio":
                transceiver.sender.replaceTrack(self._broadcast.audio_track())
                receiver: Any = transceiver.receiver
                if self._microphone is not None and receiver.track is not None:
                    if transceiver._offerDirection == "sendrecv":
                        self._watchdog.silence_limit_s = self._silence_limit_s
                    self._microphone.attach(receiver.track, receiver.jitter_stats)
            else:
                name = transceiver._codecs[0].name
                transceiver.sender.replaceTrack(
                    self._broadcast.video_track("H264" if name == "H264" else "VP8", self._leads)
                )

    async def _watch(self) -> None:
        await self._watchdog.wait()
        self._report_gone("timeout")

    async def _restart_ice(self, connection: PatchedConnection, username: str, password: str) -> str:
        try:
            fresh = await connection.restart_ice(username, password)
        except InvalidStateError as error:
            raise ProtocolError(
                "only a connection that stands, and is bundled, can be restarted", "out_of_order"
            ) from error
        except ConnectionError as error:
            raise CapacityError(self._network.why_nothing_is_left) from error
        self.restarts += 1
        self._former_ufrags |= set(re.findall(r"(?m)^a=ice-ufrag:(\S+)", self._offer))
        section = re.search(r"(?m)^m=.*$", self._offer), re.search(r"(?m)^a=mid:.*$", self._offer)
        lines = [f"a=ice-ufrag:{fresh.local_username}", f"a=ice-pwd:{fresh.local_password}"]
        lines += [found[0].strip() for found in section if found]
        lines += [f"a=candidate:{candidate.to_sdp()}" for candidate in fresh.local_candidates]
        return "\r\n".join([*lines, "a=end-of-candidates", ""])

    # --- events

    def _on_state(self) -> None:
        state = self._connection.connectionState if self._connection is not None else "closed"
        if state == "connected":
            self._watchdog.connected()
            if self._closing is None:
                self._on_connected()
        elif state in ("failed", "closed"):
            self._report_gone(state)

    def _on_dtls_failure(self, reason: str) -> None:
        logger.warning("no encrypted connection to a peer: %s", reason)
        self._report_gone("dtls")

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL or self._channel is not None:
            logger.info("a data channel named %.40r was closed: only %r is used", channel.label, CHANNEL)
            channel.close()
            return
        self._channel = channel
        channel.on("message", self._on_channel_message)
        if self._closing is None:
            self._on_open()

    def _on_channel_message(self, message: str | bytes) -> None:
        if isinstance(message, str) and self._closing is None:
            self._call(self._on_message, message)

    def _report_gone(self, reason: str) -> None:
        if not self._is_gone and self._closing is None:
            self._is_gone = True
            self._call(self._on_gone, reason)

    def _call(self, callback: Callable[[str], Awaitable[None] | None], argument: str) -> None:
        result = callback(argument)
        if inspect.isawaitable(result):
            task = asyncio.get_running_loop().create_task(_awaited(result))
            self._callbacks.add(task)
            task.add_done_callback(self._callbacks.discard)
            task.add_done_callback(_log_failure)

    # --- ending

    async def _close(self) -> None:
        await self._answering.wait()  # or its sockets would be opened behind our back
        for kind, transceiver in self._transceivers.items():
            if transceiver.sender.track is not None:
                transceiver.sender.track.stop()
            if kind == "audio" and self._microphone is not None and transceiver.receiver.track is not None:
                self._microphone.detach(transceiver.receiver.track)
        if self._connection is not None:
            try:
                await asyncio.wait_for(self._connection.close(), CLOSE_LIMIT_S)
            except Exception:
                logger.exception("a connection could not be closed cleanly")
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.wait([self._guard])


def _preferences(kind: str) -> list[RTCRtpCodecCapability]:
    """The codecs we send, best first; for sound that is Opus alone."""
    capabilities = get_capabilities(kind).codecs
    if kind == "audio":
        return [codec for codec in capabilities if codec.mimeType.lower() == "audio/opus"]
    preferred = []
    for mime_type, profile in VIDEO_PREFERENCE:
        for codec in capabilities:
            if codec.mimeType.lower() == mime_type and profile in (None, codec.parameters.get("profile-level-id")):
                preferred.append(codec)
    return preferred


async def _awaited(result: Awaitable[None]) -> None:
    await result


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("a peer's callback failed", exc_info=task.exception())
