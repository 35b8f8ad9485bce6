"""A peer that restarts ICE, played by aiortc with the server's own restart at the other end."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from aioice import Connection
from aioice.candidate import Candidate

from streamer.errors import ProtocolError
from streamer.media.microphone import Microphone
from streamer.media.patches.restart import IceRestart
from streamer.media.peer import Peer
from tests.streamer.media.client import Client, Gone, Live, Tone, make_peer, run_clean
from tests.streamer.media.offers import VIEWER


async def asked_for(client: Client, peer: Peer) -> IceRestart:
    """The client's part of a restart, ready to run."""
    transport: Any = client.connection.getReceivers()[0].transport.transport
    fresh = Connection(ice_controlling=True)
    await fresh.gather_candidates()
    lines = [f"a=ice-ufrag:{fresh.local_username}", f"a=ice-pwd:{fresh.local_password}", "a=mid:0"]
    lines += [f"a=candidate:{candidate.to_sdp()}" for candidate in fresh.local_candidates]
    answer = await peer.add_candidates("\r\n".join(lines))
    assert answer is not None
    (fresh.remote_username,) = re.findall("a=ice-ufrag:(\\S+)", answer)
    (fresh.remote_password,) = re.findall("a=ice-pwd:(\\S+)", answer)
    for line in re.findall("a=candidate:(.*)\r", answer):
        await fresh.add_remote_candidate(Candidate.from_sdp(line))
    return IceRestart(transport, fresh)


def port_of(peer: Peer) -> int:
    """Where the peer's media is."""
    assert peer._connection is not None
    ice: Any = peer._connection.getTransceivers()[0].receiver.transport.transport
    (pair,) = ice._connection._nominated.values()
    return int(pair.local_addr[1])


def test_media_and_messages_go_on_over_a_new_connection() -> None:
    async def scenario() -> None:
        async with Live() as live:
            gone, microphone = Gone(), Microphone()
            peer = make_peer(live, on_gone=gone, microphone=microphone)
            client = Client(channel=True, microphone=Tone())
            await client.connect(peer)
            await client.until(lambda: len(client.pictures) > 3 and client.channel.readyState == "open")
            ports = {port_of(peer)}
            for _ in range(2):
                await (await asked_for(client, peer)).run()
                seen, heard = len(client.pictures), len(client.blocks)
                await client.until(lambda: len(client.pictures) > seen + 10 and len(client.blocks) > heard + 10)  # noqa: B023
                ports.add(port_of(peer))
            peer.send("still here")
            await client.until(lambda: "still here" in client.messages)
            assert len(ports) == 3 and gone.reasons == [] and peer.restarts == 2
            await client.close()
            await gone.wait()
            assert gone.reasons == ["closed"]
            await peer.close()

    run_clean(scenario)


def test_a_restart_that_nobody_answers_leaves_what_stands() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer, client = make_peer(live), Client()
            await client.connect(peer)
            await client.until(lambda: len(client.pictures) > 3)
            port = port_of(peer)
            for _ in range(2):  # the second takes the place of the first
                restart = await asked_for(client, peer)
                await restart.give_up()
            seen = len(client.pictures)
            await client.until(lambda: len(client.pictures) > seen + 10)
            assert port_of(peer) == port
            await peer.close()  # while it is still tried
            await client.close()

    run_clean(scenario)


def test_what_is_no_restart_is_refused() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer, client = make_peer(live), Client()
            await peer.answer(VIEWER)
            new = "a=ice-ufrag:othr\r\na=ice-pwd:" + "p" * 22
            for fragment, code in ((new, "out_of_order"), (new[:30], "bad_sdp"), (new + "\r\n" + new[:-1], "bad_sdp")):
                with pytest.raises(ProtocolError) as caught:
                    await peer.add_candidates(fragment)
                assert caught.value.code == code
            await peer.close()
            peer = make_peer(live)
            await client.connect(peer)
            await client.until(lambda: len(client.pictures) > 3)
            former = peer._offer
            restart = await asked_for(client, peer)
            with pytest.raises(ProtocolError, match="before an ICE restart"):
                await peer.add_candidates("\r\n".join(re.findall("a=ice-.*", former)[:2]))
            await restart.give_up()
            await asyncio.gather(peer.close(), client.close())

    run_clean(scenario)
