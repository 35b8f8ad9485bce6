"""ICE restart (RFC 8445, section 9): DTLS and all that it carries go on, over a connection with new credentials."""

from __future__ import annotations

import asyncio
import logging

from aioice.ice import Connection
from aiortc import RTCIceTransport

logger = logging.getLogger(__name__)

CONNECT_LIMIT_S = 20.0


class IceRestart:
    """A second ICE connection beside a transport's, which takes its place when it stands; until then media stays.

    DTLS waits for the next datagram in the former connection's queue, so both share it.

    Args:
        transport: one that stands.
        fresh: gathered, with the peer's new credentials.
    """

    def __init__(self, transport: RTCIceTransport, fresh: Connection):
        self.connection = fresh
        self._transport = transport
        fresh.ice_controlling = transport._connection.ice_controlling
        fresh._queue = transport._connection._queue

    async def run(self) -> None:
        """Connects, puts the new connection in the place of the former and closes that; or gives up in 20 s."""
        former = self._transport._connection
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self.connection.connect()
        except (ConnectionError, TimeoutError) as error:
            logger.info("an ICE restart came to nothing: %r", error)
            await self.give_up()
            return
        if former._closing or self.connection._closing:
            await self.give_up()
            return
        self._take_over(former)
        await former.close()

    async def give_up(self) -> None:
        """Closes the new connection, if it has not taken over. Idempotent; `run` ends by it."""
        if self._transport._connection is not self.connection:
            self.connection._queue = asyncio.Queue()  # that it closes is no news for DTLS
            await self.connection.close()

    def _take_over(self, former: Connection) -> None:
        former._queue = asyncio.Queue()
        # The transport waits here to hear of a connection that ends.
        self.connection._event_waiter, former._event_waiter = former._event_waiter, None
        self._transport._connection = self._transport.iceGatherer._connection = self.connection
        self._transport._recv, self._transport._send = self.connection.recv, self.connection.send
