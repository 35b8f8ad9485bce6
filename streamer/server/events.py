"""The WebSocket of a session: events out, messages and PCM in."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from aiohttp import WSCloseCode, WSMsgType, web

from streamer.protocol import MAX_MESSAGE_BYTES, dump
from streamer.session.control import Controller
from streamer.session.session import Session

HEARTBEAT_S = 15.0
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
        self._waiting: deque[str] = deque()
        self._more = asyncio.Event()
        self.is_too_slow = False

    def send(self, message: str, is_optional: bool = False) -> None:
        if is_optional and len(self._waiting) >= MAX_OPTIONAL_WAITING:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.is_too_slow = True
        else:
            self._waiting.append(message)
        self._more.set()

    async def run(self) -> None:
        """Sends until the socket is closed or too slow."""
        while not self.is_too_slow and not self._socket.closed:
            await self._more.wait()
            self._more.clear()
            await self.flush()

    async def flush(self) -> None:
        while self._waiting and not self.is_too_slow and not self._socket.closed:
            await self._socket.send_str(self._waiting.popleft())


async def serve_events(request: web.Request, session: Session) -> web.WebSocketResponse:
    """A WebSocket for as long as both sides want it."""
    socket = web.WebSocketResponse(max_msg_size=MAX_READ_BYTES, heartbeat=HEARTBEAT_S, compress=False)
    await socket.prepare(request)
    listener = SocketListener(socket)
    controller = Controller(session, listener.send)
    listener.send(dump(session.audience.message))
    session.audience.join(listener)
    reading = asyncio.ensure_future(_read(socket, controller))
    writing = asyncio.ensure_future(listener.run())
    ending = asyncio.ensure_future(session.ended())
    try:
        await asyncio.wait((reading, writing, ending), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (reading, writing, ending):
            task.cancel()
        await asyncio.gather(reading, writing, ending, return_exceptions=True)
        controller.close()
        session.audience.leave(listener)
        await _close(socket, listener)
    return socket


async def _read(socket: web.WebSocketResponse, controller: Controller) -> None:
    async for message in socket:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await controller.handle(message.data)


async def _close(socket: web.WebSocketResponse, listener: SocketListener) -> None:
    """Says the last words, `closed` among them, if the client still listens."""
    try:
        async with asyncio.timeout(2.0):
            await listener.flush()
            code = WSCloseCode.TRY_AGAIN_LATER if listener.is_too_slow else WSCloseCode.OK
            await socket.close(code=code)
    except (TimeoutError, ConnectionError) as error:
        log.info("a WebSocket did not take its end: %r", error)
