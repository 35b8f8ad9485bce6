"""Offers a peer is given: what it answers, when candidates may come, and what it refuses."""

from __future__ import annotations

import logging
import re
import socket

import pytest
from aioice import ice as aioice_ice

from streamer.errors import CapacityError, ProtocolError
from streamer.media.microphone import Microphone
from streamer.media.network import Network
from streamer.media.offers import MAX_CANDIDATES
from streamer.media.peer import MAX_CANDIDATE_REQUESTS
from tests.streamer.media.client import Client, Live, make_peer, run_clean
from tests.streamer.media.offers import CHROME, VIEWER, WITHOUT_H264, mutations, video_codec


def test_chrome_like_offers_get_complete_answers() -> None:
    async def scenario() -> None:
        async with Live() as live:
            for offer, codec in ((CHROME, "H264"), (VIEWER, "H264"), (WITHOUT_H264, "VP8")):
                peer = make_peer(live, microphone=Microphone())
                answer = await peer.answer(offer)
                assert video_codec(answer) == codec
                assert "a=candidate:" in answer and "a=end-of-candidates" in answer
                assert "stun" not in answer and "a=setup:active" in answer
                sections = re.findall(r"m=(\w+) .*?\r\na=(sendonly|sendrecv|recvonly|inactive|mid)", answer, re.DOTALL)
                expected = [("audio", "sendrecv" if offer is CHROME else "sendonly"), ("video", "sendonly")]
                assert sections[:2] == expected
                if codec == "H264":
                    assert "profile-level-id=42e01f" in answer.split("a=rtpmap:99")[0]
                await peer.close()

    run_clean(scenario)


def test_who_only_sends_is_answered_recvonly_where_they_are_heard() -> None:
    """As OBS and FFmpeg offer; the picture they may send is not taken."""
    offer = CHROME.replace("a=sendrecv", "a=sendonly").replace("a=recvonly", "a=sendonly")

    async def scenario() -> None:
        async with Live() as live:
            peer = make_peer(live, microphone=Microphone())
            sections = re.findall(
                r"m=(\w+) .*?\r\na=(sendonly|sendrecv|recvonly|inactive)", await peer.answer(offer), re.DOTALL
            )
            assert sections[:2] == [("audio", "recvonly"), ("video", "inactive")]
            await peer.close()
            with pytest.raises(ProtocolError, match="neither sound nor picture"):
                await make_peer(live).answer(offer)

    run_clean(scenario)


def test_a_viewers_sound_is_not_received() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer = make_peer(live, microphone=None)
            answer = await peer.answer(CHROME)
            assert "a=sendrecv" not in answer and "a=recvonly" not in answer
            await peer.close()

    run_clean(scenario)


def test_candidates_may_trickle_in() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer, client = make_peer(live), Client()
            offer = await client.offer()
            lines = offer.split("\r\n")
            answer = await peer.answer("\r\n".join(line for line in lines if not line.startswith("a=candidate")))
            await client.accept(answer)
            ufrag = next(line for line in lines if line.startswith("a=ice-ufrag"))
            first = [line for line in lines if line.startswith("a=candidate")][:2]
            await peer.add_candidates("\r\n".join([ufrag, "a=mid:0", *first, "a=end-of-candidates"]) + "\r\n")
            await client.until(lambda: len(client.pictures) > 3)
            with pytest.raises(ProtocolError):
                await peer.add_candidates("a=candidate:nonsense")
            await peer.close()
            await client.close()
            with pytest.raises(ProtocolError) as caught:
                await peer.add_candidates("\r\n".join([ufrag, *first]))
            assert caught.value.code == "out_of_order"

    run_clean(scenario)


def test_trickled_candidates_are_counted_in_all() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer = make_peer(live)
            await peer.answer(VIEWER)
            for request in range(5):
                ports = range(10_000 + 20 * request, 10_020 + 20 * request)
                lines = [f"a=candidate:1 1 udp 5 192.0.2.9 {port} typ host" for port in ports]
                await peer.add_candidates("\r\n".join(lines))
            assert peer._connection is not None
            ice = peer._connection.getTransceivers()[0].receiver.transport.transport
            assert len(ice.getRemoteCandidates()) == MAX_CANDIDATES == 40
            with pytest.raises(ProtocolError, match="too many"):
                for _ in range(MAX_CANDIDATE_REQUESTS):
                    await peer.add_candidates("a=end-of-candidates")
            await peer.close()

    run_clean(scenario)


def test_a_machine_without_an_address_or_a_free_port_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    taken.bind(("127.0.0.1", 0))
    port = taken.getsockname()[1]

    async def scenario() -> None:
        async with Live() as live:
            network = Network(addresses=("127.0.0.1",), ports=range(port, port + 1))
            with pytest.raises(CapacityError, match=f"{port}-{port}, are in use"):
                await make_peer(live, network=network).answer(VIEWER)
            monkeypatch.setattr(aioice_ice, "get_host_addresses", lambda **kinds: [])
            with pytest.raises(CapacityError, match="no network address"):
                await make_peer(live, network=Network()).answer(VIEWER)

    with taken:
        run_clean(scenario)


def test_candidates_before_an_offer_and_second_offers_are_refused() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer = make_peer(live)
            with pytest.raises(ProtocolError):
                await peer.add_candidates("a=candidate:1 1 udp 5 192.0.2.9 5 typ host")
            await peer.answer(VIEWER)
            with pytest.raises(ProtocolError) as caught:
                await peer.answer(VIEWER)
            assert caught.value.code == "out_of_order"
            await peer.close()

    run_clean(scenario)


def test_a_broken_offer_may_be_followed_by_a_good_one() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer = make_peer(live)
            with pytest.raises(ProtocolError):
                await peer.answer("v=0\r\nnonsense")
            assert "m=video" in await peer.answer(VIEWER)
            await peer.close()

    run_clean(scenario)


def test_servers_that_are_none_are_refused_at_once() -> None:
    async def scenario() -> None:
        async with Live() as live:
            with pytest.raises(ValueError):
                make_peer(live, ice_servers=["ftp://example.org"])

    run_clean(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_broken_offers_are_a_sentence_or_a_valid_answer_and_leave_nothing(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """100 offers a seed."""
    caplog.set_level(logging.ERROR)

    async def scenario() -> None:
        async with Live() as live:
            refused = answered = 0
            for offer in mutations(seed, 100):
                peer = make_peer(live, microphone=Microphone())
                try:
                    answer = await peer.answer(offer)
                except ProtocolError as error:
                    refused += 1
                    assert "\n" not in str(error) and len(str(error)) < 150
                    assert error.code == "bad_sdp"
                else:
                    answered += 1
                    assert answer.startswith("v=0\r\n") and "m=" in answer
                await peer.close()
            assert refused > 20 and answered > 20
            assert not live.broadcast._tracks

    run_clean(scenario)
    assert caplog.records == []
