"""The WebSocket of a session: events out, messages and PCM in."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import WSCloseCode, WSMsgType, web

from streamer.protocol import MAX_MESSAGE_BYTES, dump
from streamer.session.control import Controller
from streamer.session.session import Session

HEARTBEAT_S = 15.0
CLOSE_TIMEOUT_S = 2.0
MAX_WAITING = 256
MAX_OPTIONAL_WAITING = 32
# Larger messages than the protocol allows are still read, so that they can be answered; far larger ones end it.
MAX_READ_BYTES = 4 * MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)


class SocketListener:
    """Sends to a WebSocket from a bounded queue.

    Overflow: with 32 messages waiting, metrics are left out; with 256 the client is too slow and is disconnected.
    """

    def __init__(self, socket: web.WebSocketResponse):
        self._socket = socket
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self.too_slow = asyncio.Event()

    def send(self, message: str, is_optional: bool = False) -> None:
        """Queues a message."""
        if is_optional and self._waiting.qsize() >= MAX_OPTIONAL_WAITING:
            return
        if self._waiting.full():
            self.too_slow.set()
        else:
            self._waiting.put_nowait(message)

    async def run(self) -> None:
        """Sends until the socket is closed."""
        while not self._socket.closed:
            await self._socket.send_str(await self._waiting.get())

    async def flush(self) -> None:
        """Sends what waits."""
        while not self._waiting.empty() and not self._socket.closed:
            await self._socket.send_str(self._waiting.get_nowait())


async def serve_events(request: web.Request, session: Session) -> web.WebSocketResponse:
    """A WebSocket for as long as both sides want it."""
    socket = web.WebSocketResponse(max_msg_size=MAX_READ_BYTES, heartbeat=HEARTBEAT_S, compress=False)
    await socket.prepare(request)
    listener = SocketListener(socket)
    controller = Controller(session, listener.send)
    listener.send(dump(session.audience.message))
    session.audience.join(listener)
    work = (_read(socket, controller), listener.run(), session.ended(), listener.too_slow.wait())
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        controller.close()
        session.audience.leave(listener)
        await _close(request, socket, listener)
    return socket


async def _read(socket: web.WebSocketResponse, controller: Controller) -> None:
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await controller.handle(message.data)


async def _close(request: web.Request, socket: web.WebSocketResponse, listener: SocketListener) -> None:
    """Says the last words, `closed` among them, if the client still listens; hangs up if it does not."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            if listener.too_slow.is_set():
                await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
            else:
                await listener.flush()
                await socket.close()
    except (TimeoutError, ConnectionError) as error:
        log.info("a WebSocket did not take its end: %r", error)
        if request.transport is not None:
            request.transport.abort()
