"""The version that the changes of aiortc are for, and what is changed of its connections.

Held against aiortc's own behaviour: where that is as good one day, the change can go.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aioice import Candidate, stun
from aioice import ice as aioice_ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription, rtp
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtpsender import RTCRtpSender

from streamer.errors import MissingExtraError
from streamer.media import patches
from streamer.media.patches import PacedSender, PatchedConnection, SteadyReceiver
from tests.streamer.media.offers import CHROME
from tests.streamer.media.simulated import SimulatedTime


@pytest.fixture
def unapplied():
    patches.apply.cache_clear()
    yield
    patches.apply.cache_clear()


def test_apply_is_idempotent(unapplied: None) -> None:
    patches.apply()
    patches.apply()


@pytest.mark.parametrize("version", ["1.15.0", "1.17.0", "2.0.0", "unknown"])
def test_another_aiortc_is_refused_in_a_sentence(
    unapplied: None, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(MissingExtraError, match=r"aiortc 1\.16.*pip install"):
        patches.apply()


def test_a_renamed_method_is_noticed(unapplied: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RTCRtpSender, "_retransmit")
    with pytest.raises(MissingExtraError, match="_retransmit"):
        patches.apply()


def hardened(on_activity: Callable[[], None] = lambda: None, **options: Any) -> aioice_ice.Connection:
    connection = aioice_ice.Connection(ice_controlling=False, **options)
    patches.harden_ice(connection, on_activity)
    return connection


def test_empty_and_too_many_datagrams_are_dropped() -> None:
    async def main() -> None:
        connection = hardened()
        connection.data_received(b"", 1)
        assert connection._queue.empty()
        for _ in range(5000):
            connection.data_received(b"x", 1)
        assert connection._queue.qsize() == patches.DATAGRAMS

    asyncio.run(main())


def test_a_stun_server_that_is_silent_delays_the_answer_by_2_s_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float | None] = []
    real_wait = asyncio.wait

    async def never(*arguments: object) -> None:
        await asyncio.Event().wait()

    async def short_wait(tasks: Any, *, timeout: float | None = None, **options: Any) -> Any:
        waited.append(timeout)
        return await real_wait(tasks, timeout=0.0, **options)

    monkeypatch.setattr(aioice_ice, "server_reflexive_candidate", never)
    monkeypatch.setattr(aioice_ice.asyncio, "wait", short_wait)

    async def main() -> None:
        connection = hardened(stun_server=("192.0.2.1", 3478))
        await connection.gather_candidates()
        assert any(candidate.type == "host" for candidate in connection.local_candidates)
        await connection.close()

    asyncio.run(main())
    assert waited[0] == 2


def test_authenticated_checks_are_signs_of_life_and_others_are_not() -> None:
    async def main() -> None:
        signs: list[int] = []
        connection = hardened(lambda: signs.append(1))
        connection.remote_username, connection.remote_password = "them", "p" * 22
        connection._early_checks_done = True
        answers: list[stun.Message] = []
        protocol = SimpleNamespace(
            local_candidate=Candidate("f", 1, "udp", 1, "192.0.2.9", 9, "host"),
            send_stun=lambda message, addr: answers.append(message),
            id=1,
        )
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{connection.local_username}:them"
        request.attributes["PRIORITY"] = 5
        connection.request_received(request, ("192.0.2.7", 7), protocol)  # type: ignore[arg-type]
        assert signs == [] and answers[-1].message_class == stun.Class.ERROR
        monitored: list[Any] = []
        connection.check_start_task = monitored.append  # type: ignore[method-assign]
        request.add_message_integrity(connection.local_password.encode())
        connection.request_received(request, ("192.0.2.7", 7), protocol)  # type: ignore[arg-type]
        assert signs == [1] and answers[-1].message_class == stun.Class.RESPONSE and len(monitored) == 1

    asyncio.run(main())


class Consenting:
    """An ICE connection whose peer answers, or does not."""

    def __init__(self, answers: bool):
        self.remote_password = "p" * 22
        self.answers = answers
        self.asked: list[int | None] = []
        self.closed = 0
        self._query_consent_task: object = "running"
        self._nominated = {1: SimpleNamespace(protocol=self, remote_addr=("192.0.2.1", 1))}

    def build_request(self, pair: object, nominate: bool) -> object:
        return object()

    async def request(self, request: object, addr: object, integrity_key: bytes, retransmissions: int) -> None:
        self.asked.append(retransmissions)
        if not self.answers:
            raise stun.TransactionTimeout

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("answers", [True, False])
def test_consent_is_asked_patiently_and_ends_after_30_s(answers: bool) -> None:
    async def main() -> None:
        time = SimulatedTime()
        connection, signs = Consenting(answers), []
        asking = asyncio.ensure_future(
            patches.query_consent(connection, lambda: signs.append(1), now=time, sleep=time.sleep)  # type: ignore[arg-type]
        )
        await time.advance(29.0)
        assert not asking.done() and connection.closed == 0
        assert len(connection.asked) >= 4 and min(connection.asked) >= 2  # again after 0.5 s and after 1.5 s
        await time.advance(10.0)
        assert (connection.closed, asking.done()) == ((0, False) if answers else (1, True))
        assert bool(signs) == answers
        asking.cancel()

    asyncio.run(main())


def test_consent_of_our_connections_is_the_patient_one() -> None:
    async def main() -> None:
        connection = hardened()
        assert connection.query_consent.func is patches.query_consent  # type: ignore[attr-defined]

    asyncio.run(main())


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


def test_data_is_a_sign_of_life_and_a_dead_transport_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    async def main() -> None:
        signs: list[int] = []
        connection = PatchedConnection(RTCConfiguration(iceServers=[]), lambda: signs.append(1))
        connection.createDataChannel("events")
        assert connection.sctp is not None
        await connection.sctp._handle_data(b"anything")
        assert signs == [1]
        connection.sctp._remote_port = 5000
        await connection.sctp._init()  # not connected: plain aiortc raises ConnectionError here
        connection.sctp._t1_cancel()
        await connection.close()

    asyncio.run(main())
    assert caplog.records == []


@pytest.mark.parametrize(("patched", "is_clean"), [(True, True), (False, False)])
def test_close_returns_when_nothing_runs_any_more(patched: bool, is_clean: bool) -> None:
    async def main() -> None:
        configuration = RTCConfiguration(iceServers=[])
        connection = PatchedConnection(configuration) if patched else RTCPeerConnection(configuration)
        await connection.setRemoteDescription(RTCSessionDescription(CHROME, "offer"))
        await connection.setLocalDescription()
        await asyncio.sleep(0)
        await connection.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert (not left) == is_clean
        await asyncio.gather(*left, return_exceptions=True)

    asyncio.run(main())


def test_nothing_is_changed_for_others() -> None:
    async def main() -> None:
        patches.apply()
        other = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        other.addTransceiver("audio")
        (transceiver,) = other.getTransceivers()
        assert type(transceiver.sender) is RTCRtpSender and type(transceiver.receiver) is RTCRtpReceiver
        ours = PatchedConnection(RTCConfiguration(iceServers=[]))
        ours.addTransceiver("audio")
        (transceiver,) = ours.getTransceivers()
        assert type(transceiver.sender) is PacedSender and type(transceiver.receiver) is SteadyReceiver
        await other.close()
        await ours.close()

    asyncio.run(main())
