"""Reads what a browser sends before aiortc does: a broken offer is one sentence, and leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from aiortc import RTCIceCandidate, RTCIceServer
from aiortc.rtcicetransport import connection_kwargs
from aiortc.sdp import DIRECTIONS, MediaDescription, SessionDescription, candidate_from_sdp

from streamer.errors import ProtocolError
from streamer.media.network import Network

MAX_SDP_BYTES = 64 * 1024
MAX_SDP_LINES = 500  # browsers with every codec and interface write some 300
MAX_CODECS = 64  # a section
FEEDBACK = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")  # reading costs codecs times feedback lines
MAX_CANDIDATES = 40  # an offer, and as many after it; more are left out: every one costs checks
FINGERPRINT_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
UFRAG = re.compile(r"[\x21-\x7e]{4,256}")
PASSWORD = re.compile(r"[\x21-\x7e]{22,256}")
MID = re.compile(r"[\x21-\x7e]{1,64}")


def read_offer(sdp: str, network: Network, is_heard: bool = False) -> str:
    """Checks an offer and returns it cleaned for aiortc.

    Left out of it: candidates that may not be contacted, also those behind mDNS names (the peer's own checks reveal its
    address, and resolving them delays the answer by a second), those over TCP, those beyond 40, the end-of-candidates
    mark (more may be learnt from checks), and feedback that is repeated or means nothing here.

    Args:
        is_heard: the peer's sound is wanted, so that it need not receive anything.

    Raises:
        ProtocolError: with one sentence, code `bad_sdp`.
    """
    _check_text(sdp)
    lines = sdp.splitlines()  # as aiortc does: nothing is a line for it that was none here
    if not lines[0].startswith("v=0"):
        raise _bad("the offer is no SDP: it does not start with v=0")
    for section in re.split(r"^m=", sdp, flags=re.MULTILINE):
        if section.count("a=rtpmap:") > MAX_CODECS:
            raise _bad(f"a section of the offer has more than {MAX_CODECS} codecs")
    cleaned = "\r\n".join(_clean(lines, network)) + "\r\n"
    try:
        session = SessionDescription.parse(cleaned)
    except Exception as error:
        raise _bad("the offer is no SDP that can be read") from error
    _check_session(session, is_heard)
    return cleaned


def read_candidates(fragment: str, offer: str, network: Network) -> list[RTCIceCandidate]:
    """The candidates of a trickle-ice-sdpfrag body that can be used and may be contacted.

    Args:
        fragment: lines `a=mid:`, `a=candidate:`, `a=ice-ufrag:` …
        offer: what `read_offer` returned for this peer.

    Raises:
        ProtocolError: if it cannot be read, or belongs to other credentials than the offer's, code `bad_sdp`.
    """
    _check_text(fragment)
    ufrags = set(re.findall(r"^a=ice-ufrag:(\S+)", offer, re.MULTILINE))
    mids = re.findall(r"^a=mid:(\S+)", offer, re.MULTILINE)
    mid = mids[0]
    candidates: list[RTCIceCandidate] = []
    for line in fragment.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "a=ice-ufrag" and value not in ufrags:
            raise _bad("the candidates belong to another connection")
        if name == "a=mid":
            mid = value.strip()
            if mid not in mids:
                raise _bad("the candidates name a section that the offer does not have")
        if name in ("a=candidate", "candidate"):
            try:
                candidate = candidate_from_sdp(value)
            except Exception as error:
                raise _bad("the candidates cannot be read") from error
            if candidate.protocol.lower() == "udp" and network.may_contact(candidate.ip):
                candidate.sdpMid = mid
                candidates.append(candidate)
        elif name not in ("a=ice-ufrag", "a=ice-pwd", "a=mid", "a=end-of-candidates", "a=ice-options", ""):
            if not re.match(r"[a-z]=", line.strip()):
                raise _bad("the candidates are no SDP fragment")
    return candidates


def read_restart(fragment: str, offer: str) -> tuple[str, str] | None:
    """The peer's new user and password, if the fragment asks for an ICE restart (RFC 9725, section 4.3.3).

    Raises:
        ProtocolError: code `bad_sdp`, if they cannot be used.
    """
    _check_text(fragment)
    ufrags, passwords = (set(re.findall(rf"^a=ice-{name}:(\S+)", fragment, re.MULTILINE)) for name in ("ufrag", "pwd"))
    if not ufrags or f"a=ice-ufrag:{min(ufrags)}\r\n" in offer:
        return None
    if len(ufrags) > 1 or len(passwords) != 1:
        raise _bad("an ICE restart has one a=ice-ufrag and one a=ice-pwd")
    (username,), (password,) = ufrags, passwords
    if not UFRAG.fullmatch(username) or not PASSWORD.fullmatch(password):
        raise _bad("the fragment has no usable a=ice-ufrag and a=ice-pwd")
    return username, password


def ice_server_list(servers: Iterable[Any]) -> list[RTCIceServer]:
    """ICE servers in aiortc's form.

    Args:
        servers: of URLs, of dictionaries with `urls`, `username`, `credential`, or of `RTCIceServer`.

    Raises:
        ValueError: for a URL that is no stun:, turn: or turns: URL.
    """
    result = []
    for server in servers:
        if isinstance(server, str):
            server = RTCIceServer(urls=server)
        elif isinstance(server, dict):
            server = RTCIceServer(server["urls"], server.get("username"), server.get("credential"))
        connection_kwargs([server])  # raises for what it cannot read
        result.append(server)
    return result


def _check_text(text: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise _bad("the body is empty; an SDP was expected")
    if len(text) > MAX_SDP_BYTES or len(text.encode("utf-8", "replace")) > MAX_SDP_BYTES:
        raise _bad("the SDP is longer than 64 KiB")
    if "\0" in text:
        raise _bad("the SDP holds a zero byte")
    if len(text.splitlines()) > MAX_SDP_LINES:
        raise _bad(f"the SDP has more than {MAX_SDP_LINES} lines")


def _clean(lines: Sequence[str], network: Network) -> list[str]:
    """Drops what aiortc should not see, and writes out the direction that is meant where none is given."""
    cleaned: list[str] = []
    candidates = 0
    has_direction = True
    feedback: set[str] = set()  # of the section
    for line in lines:
        line = line.rstrip()
        if not line:
            continue
        if line.startswith("m="):
            if not has_direction:
                cleaned.append("a=sendrecv")
            has_direction = line.startswith("m=application")
            feedback = set()
        if line[2:] in DIRECTIONS:
            has_direction = True
        if line == "a=end-of-candidates":
            continue
        if line.startswith("a=candidate:"):
            fields = line.split()
            if len(fields) > 4 and not (fields[2].lower() == "udp" and network.may_contact(fields[4])):
                continue
            candidates += 1
            if candidates > MAX_CANDIDATES:
                continue
        if line.startswith("a=rtcp-fb:"):
            if line in feedback or line.partition(" ")[2] not in FEEDBACK:
                continue
            feedback.add(line)
        cleaned.append(line)
    if not has_direction:
        cleaned.append("a=sendrecv")
    return cleaned


def _check_session(session: SessionDescription, is_heard: bool) -> None:
    kinds = [media.kind for media in session.media]
    if not kinds:
        raise _bad("the offer has no media section")
    for kind in kinds:
        if kind not in ("audio", "video", "application"):
            raise _bad("the offer has a section that is neither audio, video nor application")
    for kind in ("audio", "video", "application"):
        if kinds.count(kind) > 1:
            raise _bad(f"the offer has {kinds.count(kind)} {kind} sections; one can be answered")
    directions = {media.kind: media.direction for media in session.media if media.kind != "application"}
    is_shown = any(direction in ("recvonly", "sendrecv") for direction in directions.values())
    if not is_shown and not (is_heard and directions.get("audio") == "sendonly"):
        raise _bad("the offer receives neither sound nor picture")
    mids = [media.rtp.muxId for media in session.media]
    if len(set(mids)) < len(mids) or not all(isinstance(mid, str) and MID.fullmatch(mid) for mid in mids):
        raise _bad("every section of the offer needs an a=mid of its own")
    for group in session.group:
        if group.semantic == "BUNDLE" and not set(group.items) <= set(mids):
            raise _bad("the offer bundles a section that it does not have")
    for media in session.media:
        _check_transport(media)
        _check_codecs(media)


def _check_transport(media: MediaDescription) -> None:
    ice, dtls = media.ice, media.dtls
    if ice is None or not UFRAG.fullmatch(ice.usernameFragment or "") or not PASSWORD.fullmatch(ice.password or ""):
        raise _bad(f"the {media.kind} section has no usable a=ice-ufrag and a=ice-pwd")
    if dtls is None or dtls.role not in ("auto", "client", "server"):
        raise _bad(f"the {media.kind} section has no a=setup")
    usable = False
    for fingerprint in dtls.fingerprints:
        size = FINGERPRINT_BYTES.get(fingerprint.algorithm.lower())
        if size is not None:
            if not re.fullmatch(rf"[0-9a-fA-F]{{2}}(:[0-9a-fA-F]{{2}}){{{size - 1}}}", fingerprint.value):
                raise _bad(f"the {media.kind} section has a broken a=fingerprint")
            usable = True
    if not usable:
        raise _bad(f"the {media.kind} section has no a=fingerprint of sha-256, sha-384 or sha-512")


def _check_codecs(media: MediaDescription) -> None:
    if media.kind == "application":
        if "DTLS/SCTP" not in media.profile or not media.sctp_port and not media.sctpmap:
            raise _bad("the application section is no data channel over DTLS and SCTP")
        if not 0 < (media.sctp_port or next(iter(media.sctpmap))) < 65_536:
            raise _bad("the application section has no usable a=sctp-port")
        return
    if "SAVPF" not in media.profile:
        raise _bad(f"the {media.kind} section is not encrypted RTP with feedback (SAVPF)")
    if not media.rtcp_mux:
        raise _bad(f"the {media.kind} section has no a=rtcp-mux")
    formats = set(media.fmt)
    names = {codec.name.lower() for codec in media.rtp.codecs if codec.payloadType in formats}
    if media.kind == "audio" and "opus" not in names:
        raise _bad("the offer has no Opus; sound is sent as Opus")
    if media.kind == "video" and not names & {"h264", "vp8"}:
        raise _bad("the offer has neither H.264 nor VP8; the picture is sent as one of them")


def _bad(sentence: str) -> ProtocolError:
    return ProtocolError(sentence, code="bad_sdp")
