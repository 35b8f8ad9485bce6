"""ICE: own addresses and ports, bounded queues, a quick end of gathering, consent that tolerates slow paths."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aioice import Candidate, ice, stun, turn
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import Connection

from streamer.media.network import Network

logger = logging.getLogger(__name__)

DATAGRAMS = 1000
GATHER_S = 2
CONSENT_INTERVAL_S = 5.0
CONSENT_RETRIES = 2  # waits 0.5 + 1 + 2 s for an answer
CONSENT_EXPIRES_S = 30.0


def harden_ice(
    connection: Connection, on_activity: Callable[[], None] = lambda: None, network: Network | None = None
) -> None:
    """Changes one ICE connection, see 7 of the package; authenticated checks and consent count as activity."""
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
        gather, connection, connection.get_component_candidates, network or Network()
    )
    connection.query_consent = functools.partial(query_consent, connection, on_activity)  # type: ignore[method-assign]


async def gather(
    connection: Connection,
    gather_relayed: Callable[..., Awaitable[list[Candidate]]],
    network: Network,
    component: int,
    addresses: list[str],
) -> list[Candidate]:
    """This machine's candidates: on its own addresses, as others see them, and relayed.

    Args:
        gather_relayed: aioice's own way, which is left with the TURN server only.
        addresses: found on this machine.
    """
    bound = [await _bind(connection, network, address, component) for address in network.own_addresses(addresses)]
    protocols = [protocol for protocol in bound if protocol is not None]
    connection._protocols += protocols
    candidates = [protocol.local_candidate for protocol in protocols]
    asking: list[asyncio.Future[Any]] = [asyncio.ensure_future(gather_relayed(component, [], timeout=GATHER_S))]
    for protocol in protocols:
        host = protocol.local_candidate
        if ":" in host.host:
            continue
        if network.public_address is not None:
            candidates.append(_public(host, network.public_address))
        elif connection.stun_server is not None:
            asking.append(asyncio.ensure_future(ice.server_reflexive_candidate(protocol, connection.stun_server)))
    try:
        done, _ = await asyncio.wait(asking, timeout=GATHER_S)
    finally:
        for task in asking:
            task.cancel()
    for task in done:
        if task.exception() is None:
            found = task.result()
            candidates += found if isinstance(found, list) else [found[0]]
    return candidates


async def _bind(connection: Connection, network: Network, address: str, component: int) -> ice.StunProtocol | None:
    """A socket on a free port of those that may be used; None where there is none."""
    loop = asyncio.get_running_loop()
    for port in [0] if network.ports is None else random.sample(network.ports, len(network.ports)):
        try:
            transport, protocol = await loop.create_datagram_endpoint(
                lambda: ice.StunProtocol(connection), local_addr=(address, port)
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            logger.info("no media on %s: %s", address, error)
            return None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
        host, bound_port, *_ = transport.get_extra_info("sockname")
        foundation, priority = candidate_foundation("host", "udp", host), candidate_priority(component, "host")
        protocol.local_candidate = Candidate(foundation, component, "udp", priority, host, bound_port, "host")
        return protocol
    return None


def _public(host: Candidate, address: str) -> Candidate:
    """A candidate as a router in front of this machine shows it."""
    foundation = candidate_foundation("srflx", "udp", host.host)
    priority = candidate_priority(host.component, "srflx")
    return Candidate(foundation, host.component, "udp", priority, address, host.port, "srflx", host.host, host.port)


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
