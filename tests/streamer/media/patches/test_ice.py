"""What is changed of aioice, held against its own behaviour: where that is as good one day, the change can go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aioice import Candidate, stun
from aioice import ice as aioice_ice

from streamer.media.network import Network
from streamer.media.patches.ice import DATAGRAMS, harden_ice, query_consent
from tests.streamer.media.simulated import SimulatedTime


def hardened(
    on_activity: Callable[[], None] = lambda: None, network: Network | None = None, **options: Any
) -> aioice_ice.Connection:
    connection = aioice_ice.Connection(ice_controlling=False, **options)
    harden_ice(connection, on_activity, network)
    return connection


def test_empty_and_too_many_datagrams_are_dropped() -> None:
    async def main() -> None:
        connection = hardened()
        connection.data_received(b"", 1)
        assert connection._queue.empty()
        for _ in range(5000):
            connection.data_received(b"x", 1)
        assert connection._queue.qsize() == DATAGRAMS

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
            query_consent(connection, lambda: signs.append(1), now=time, sleep=time.sleep)  # type: ignore[arg-type]
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
        assert connection.query_consent.func is query_consent  # type: ignore[attr-defined]

    asyncio.run(main())


def gathered(network: Network, count: int = 1) -> list[list[Candidate]]:
    """The candidates of that many connections at once."""

    async def main() -> list[list[Candidate]]:
        connections = [hardened(network=network) for _ in range(count)]
        for connection in connections:
            await connection.gather_candidates()
        found = [connection.local_candidates for connection in connections]
        for connection in connections:
            await connection.close()
        return found

    return asyncio.run(main())


def test_media_stays_on_the_ports_and_addresses_it_may_use() -> None:
    ports = range(47_310, 47_312)
    found = gathered(Network(addresses=("127.0.0.1",), ports=ports), count=3)
    assert sorted(candidate.port for candidate in found[0] + found[1]) == list(ports)
    assert {candidate.host for candidate in found[0] + found[1]} == {"127.0.0.1"}
    assert found[2] == []  # all ports are in use


def test_a_router_in_front_is_told_to_clients() -> None:
    ((host, public),) = gathered(Network(addresses=("127.0.0.1",), public_address="203.0.113.7"))
    assert (public.host, public.port, public.type) == ("203.0.113.7", host.port, "srflx")
    assert (public.related_address, public.related_port) == ("127.0.0.1", host.port)
    assert public.priority < host.priority


def test_ipv6_has_no_router_in_front() -> None:
    found = gathered(Network(addresses=("::1",), public_address="203.0.113.7"))
    assert [candidate.host for candidate in found[0]] in (["::1"], [])  # not every machine has IPv6


def test_a_machine_with_loopback_only_serves_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice_ice, "get_host_addresses", lambda **kinds: [])
    assert [candidate.host for candidate in gathered(Network(is_local=True))[0]] == ["127.0.0.1"]
    assert gathered(Network())[0] == []
