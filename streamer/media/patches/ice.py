"""ICE: bounded queues, a quick end of gathering, consent that tolerates slow paths."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aioice import stun
from aioice.ice import Connection

DATAGRAMS = 1000
GATHER_S = 2
CONSENT_INTERVAL_S = 5.0
CONSENT_RETRIES = 2  # waits 0.5 + 1 + 2 s for an answer
CONSENT_EXPIRES_S = 30.0


def harden_ice(connection: Connection, on_activity: Callable[[], None] = lambda: None) -> None:
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
