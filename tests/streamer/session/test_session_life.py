"""Who is connected, and how a session ends."""

from __future__ import annotations

import asyncio

import pytest

from streamer.errors import CapacityError, ProtocolError, SessionError
from streamer.session.audience import MAX_VIEWERS, MAX_WAITING_CALLERS
from tests.streamer.session.fakes import Stage, run, settle


def test_session_ends_when_nobody_has_been_connected_for_30_s() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            ident, _ = await stage.connect("v=0", "viewer")
            await stage.to(60.0)
            assert stage.session.end_reason is None
            await stage.session.audience.disconnect(ident)
            await stage.to(89.0)
            assert stage.session.end_reason is None
            await stage.to(91.0)
            assert stage.session.end_reason == "idle" and stage.stream.is_closed

    run(scene)


def test_second_caller_takes_the_place_of_the_first() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            await stage.call()
            await settle()
            assert [peer.is_closed for peer in stage.peers] == [True, False]
            assert len(stage.session.audience.connections) == 1
            assert stage.session.cutter.hearing is not None

    run(scene)


def test_an_offer_that_never_connects_does_not_throw_the_caller_out() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            hearing = stage.session.cutter.hearing
            await stage.connect("v=0 slow", "caller")
            await settle()
            assert not stage.peers[0].is_closed and stage.session.cutter.hearing is hearing
            stage.peers[1].on_gone("timeout")
            await settle()
            assert [peer.is_closed for peer in stage.peers] == [False, True]
            assert stage.session.cutter.hearing is hearing and stage.peers[0].leads
            assert b'avatar_connections_lost_total{reason="timeout"} 1.0' in stage.metrics.text()
            await stage.connect("v=0 slow", "caller")
            stage.peers[2].on_connected()
            await settle()
            assert stage.peers[0].is_closed and stage.session.cutter.hearing not in (hearing, None)

    run(scene)


def test_callers_who_have_not_connected_yet_are_few() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            for _ in range(MAX_WAITING_CALLERS):
                await stage.connect("v=0 slow", "caller")
            with pytest.raises(CapacityError):
                await stage.call()
            stage.peers[0].on_connected()
            await stage.call()

    run(scene)


def test_a_refused_offer_does_not_keep_an_empty_session_alive() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            refused = asyncio.ensure_future(stage.connect("nonsense", "caller"))
            await asyncio.sleep(0)
            stage.session.audience.join(stage.events)
            stage.session.audience.leave(stage.events)  # while the offer is being answered
            with pytest.raises(ProtocolError):
                await refused
            await stage.to(31.0)
            assert stage.session.end_reason == "idle"

    run(scene)


def test_peer_that_is_gone_is_closed() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            stage.peers[0].on_gone("timeout")
            await settle()
            assert stage.peers[0].is_closed and not stage.session.audience.connections
            assert stage.session.cutter.hearing is None

    run(scene)


def test_offer_that_cannot_be_used_leaves_nothing() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            with pytest.raises(ProtocolError):
                await stage.connect("nonsense", "caller")
            assert stage.peers[0].is_closed and not stage.session.audience.connections

    run(scene)


def test_viewers_are_counted_told_and_limited() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            for _ in range(MAX_VIEWERS):
                await stage.connect("v=0", "viewer")
            assert stage.events.of("session")[-1]["viewers"] == MAX_VIEWERS
            with pytest.raises(CapacityError):
                await stage.connect("v=0", "viewer")
            await stage.connect("v=0", "caller")  # the caller has a place of their own

    run(scene)


def test_any_number_of_offers_at_once_make_no_more_viewers_than_there_is_room_for() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            offers = [stage.connect("v=0", "viewer") for _ in range(3 * MAX_VIEWERS)]
            answers = await asyncio.gather(*offers, return_exceptions=True)
            assert sum(isinstance(answer, CapacityError) for answer in answers) == 2 * MAX_VIEWERS
            assert stage.session.audience.viewers == len(stage.peers) == MAX_VIEWERS

    run(scene)


def test_new_connections_are_told_the_session_once_when_their_channel_opens() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            stage.peers[0].sent.clear()
            stage.peers[0].on_open()
            assert [message["type"] for message in stage.peers[0].sent] == ["session"]
            assert stage.peers[0].sent[0]["id"] == "s"
            await stage.to(3.5)
            assert "session" not in [message["type"] for message in stage.peers[0].sent[1:]]

    run(scene)


def test_ending_closes_everything_and_says_why() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            stage.session.speech.say("one. two. three")
            await stage.to(1.0)
            stage.session.end("deleted")
            stage.session.end("idle")  # only the first reason counts
            await settle()
            assert stage.stream.is_closed and stage.peers[0].is_closed
            assert stage.peers[0].sent[-1] == {"type": "closed", "reason": "deleted"}
            with pytest.raises(SessionError):
                stage.session.speech.say("too late")
        assert len(asyncio.all_tasks()) == 1

    run(scene)


def test_failure_within_a_session_ends_it_with_a_word() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.stream.error = RuntimeError("fell over")
            await stage.to(1.0)
            assert stage.session.end_reason == "internal"
            assert stage.events.messages[-1] == {"type": "closed", "reason": "internal"}

    run(scene)
