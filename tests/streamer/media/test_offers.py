from __future__ import annotations

import time

import pytest
from aiortc import RTCIceServer

from streamer.errors import ProtocolError
from streamer.media.network import Network
from streamer.media.offers import MAX_CANDIDATES, ice_server_list, read_candidates, read_offer
from tests.streamer.media.offers import CHROME, UFRAG, VIEWER, WITHOUT_H264

HOST = "a=candidate:842163049 1 udp 1677729535 192.0.2.50 46154 typ host generation 0 ufrag Vf0q network-cost 999"


def refused(offer: object) -> str:
    with pytest.raises(ProtocolError) as caught:
        read_offer(offer, Network())  # type: ignore[arg-type]
    assert caught.value.code == "bad_sdp"
    sentence = str(caught.value)
    assert "\n" not in sentence and 10 < len(sentence) < 120
    return sentence


def test_offers_of_browsers_pass_unchanged() -> None:
    for offer in (CHROME, VIEWER, WITHOUT_H264):
        assert read_offer(offer, Network()) == offer
        assert read_offer(offer.replace("\r\n", "\n"), Network()) == offer


def test_hidden_candidates_and_the_end_mark_are_left_out() -> None:
    mdns = HOST.replace("192.0.2.50", "3f2a8c1e-1111-4222-8333-944455566677.local")
    lines = f"a=setup:actpass\r\n{mdns}\r\n{HOST}\r\na=end-of-candidates\r\n"
    offer = read_offer(CHROME.replace("a=setup:actpass\r\n", lines), Network())
    assert ".local" not in offer and "end-of-candidates" not in offer
    assert offer.count(HOST) == 3


def test_candidates_are_limited() -> None:
    many = "".join(HOST.replace("46154", str(port)) + "\r\n" for port in range(10_000, 10_300))
    assert read_offer(VIEWER + many, Network()).count("a=candidate") == MAX_CANDIDATES


def test_a_missing_direction_means_both() -> None:
    offer = read_offer(CHROME.replace("a=recvonly\r\n", ""), Network())
    assert offer.count("a=sendrecv") == 2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("v=0", "v=1"), "v=0"),
        (("a=rtcp-mux\r\n", ""), "rtcp-mux"),
        (("a=ice-ufrag:Vf0q\r\n", ""), "ice-ufrag"),
        (("a=ice-pwd:", "a=ice-pwd:short x:"), "ice-pwd"),
        (("a=setup:actpass\r\n", ""), "setup"),
        (("a=fingerprint:sha-256 ", "a=fingerprint:sha-1 "), "sha-256"),
        (("A1:A1\r\n", "A1:A\r\n"), "fingerprint"),
        (("a=mid:1", "a=mid:0"), "a=mid"),
        (("a=mid:1\r\n", ""), "a=mid"),
        (("BUNDLE 0 1 2", "BUNDLE 0 1 7"), "bundles"),
        (("opus/48000/2", "speex/16000"), "Opus"),
        (("m=video", "m=text"), "neither audio, video"),
        (("m=video", "m=audio"), "2 audio"),
        (("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "SAVPF"),
        (("a=sctp-port:5000", "a=sctp-port:0"), "data channel"),
        (("a=sctp-port:5000", "a=sctp-port:70000"), "sctp-port"),
        (("a=rtpmap:111 opus/48000/2", "a=rtpmap:111 opus/fast/2"), "read"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(change: tuple[str, str], word: str) -> None:
    assert word in refused(CHROME.replace(*change))


def test_offers_that_cannot_be_used_are_refused() -> None:
    sections = CHROME.split("m=")
    assert "no media section" in refused(sections[0])
    only_data = sections[0].replace("BUNDLE 0 1 2", "BUNDLE 2") + "m=" + sections[3]
    assert "neither sound nor picture" in refused(only_data)
    only_sends = CHROME.replace("a=sendrecv", "a=sendonly").replace("recvonly", "inactive")
    assert "neither sound nor picture" in refused(only_sends)
    no_video_codec = WITHOUT_H264.replace("VP8/90000", "VP9/90000")
    assert "neither H.264 nor VP8" in refused(no_video_codec)


@pytest.mark.parametrize("body", ["", " \r\n", "hello", "{}", "<html></html>", "v=0", "v=0\0", None, b"v=0", 7])
def test_what_is_no_sdp_is_refused(body: object) -> None:
    refused(body)


def test_long_bodies_are_refused() -> None:
    assert "64 KiB" in refused(CHROME + "a=x\r\n" * 20_000)
    assert "64 KiB" in refused("v=0\r\n" + "é" * 40_000)


def crowded(codecs: int, feedback: int) -> str:
    """An offer whose reading costs codecs times feedback lines."""
    lines = ["a=rtpmap:96 VP8/90000"] * codecs + [f"a=rtcp-fb:* nack {number}" for number in range(feedback)]
    return VIEWER + "\r\n".join(lines) + "\r\n"


def test_crowded_offers_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(sdp: str) -> None:
        raise AssertionError("aiortc was given an offer that takes it seconds")

    monkeypatch.setattr("streamer.media.offers.SessionDescription.parse", read)
    assert "500 lines" in refused(crowded(900, 1_600))
    assert "500 lines" in refused(VIEWER + "\u2028".join(["a=x"] * 500))
    assert "64 codecs" in refused(crowded(64, 0))


def test_the_most_crowded_offer_that_is_read_takes_a_moment() -> None:
    started_s = time.thread_time()
    assert "a=rtcp-fb:* nack 7" not in read_offer(crowded(54, 300), Network())
    assert time.thread_time() - started_s < 0.1


# --- candidates


def test_fragment_gives_candidates_with_their_section() -> None:
    lines = [f"a=ice-ufrag:{UFRAG}", "a=ice-pwd:x", "m=video 9 RTP/AVP 0", "a=mid:1", HOST, "a=end-of-candidates", ""]
    fragment = "\r\n".join(lines)
    (candidate,) = read_candidates(fragment, CHROME, Network())
    assert (candidate.ip, candidate.port, candidate.sdpMid) == ("192.0.2.50", 46154, "1")


def test_fragment_without_a_section_is_of_the_first() -> None:
    assert read_candidates(HOST, CHROME, Network())[0].sdpMid == "0"


def test_names_in_a_fragment_are_skipped() -> None:
    assert read_candidates(HOST.replace("192.0.2.50", "x.local"), CHROME, Network()) == []


def test_only_addresses_that_clients_have_are_contacted() -> None:
    forbidden = [HOST.replace("192.0.2.50", host) for host in ("127.0.0.1", "169.254.169.254", "::1")]
    tcp = HOST.replace(" udp ", " tcp ") + " tcptype active"
    lines = "\r\n".join([*forbidden, tcp, HOST])
    offer = read_offer(VIEWER + lines + "\r\n", Network())
    assert offer.count("a=candidate") == 1 and HOST in offer
    assert [candidate.ip for candidate in read_candidates(lines, CHROME, Network())] == ["192.0.2.50"]
    local = [candidate.ip for candidate in read_candidates(lines, CHROME, Network(is_local=True))]
    assert local == ["127.0.0.1", "::1", "192.0.2.50"]


@pytest.mark.parametrize(
    "fragment",
    [
        "",
        "a=candidate:1 1 udp",
        "a=candidate:1 one udp 5 192.0.2.1 5 typ host",
        "a=ice-ufrag:othr\r\n" + HOST,
        "a=mid:9\r\n" + HOST,
        '{"candidate": 1}',
        "x" * 70_000,
    ],
)
def test_broken_fragments_are_refused(fragment: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_candidates(fragment, CHROME, Network())
    assert caught.value.code == "bad_sdp"


# --- servers


def test_ice_servers_in_all_forms() -> None:
    turn = {"urls": "turn:turn.example.org:3478?transport=tcp", "username": "u", "credential": "c"}
    servers = ice_server_list(["stun:stun.example.org", turn, RTCIceServer("stun:stun.example.org:99")])
    assert [server.urls for server in servers][:1] == ["stun:stun.example.org"]
    assert (servers[1].username, servers[1].credential) == ("u", "c")
    assert ice_server_list([]) == []


def test_other_urls_are_refused() -> None:
    with pytest.raises(ValueError):
        ice_server_list(["http://example.org"])
