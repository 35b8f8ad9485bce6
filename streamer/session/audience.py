"""Everybody who is connected to a session: a caller, viewers, WebSockets."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from streamer.errors import CapacityError, SessionError
from streamer.media.clock import happens_before
from streamer.media.hearing import Hearing
from streamer.protocol import SessionInfo, SessionMessage, dump
from streamer.session.cutter import Cutter
from streamer.session.hub import Hub, Listener
from streamer.session.metrics import Metrics
from streamer.session.parts import Connection, Control, Role, SessionParts
from streamer.session.tasks import Tasks, within_limit
from streamer.session.timeline import Timeline

IDLE_S = 30.0  # without a connection
MAX_VIEWERS = 100
MAX_WAITING_CALLERS = 4  # whose connections do not stand yet

log = logging.getLogger(__name__)


class Audience:
    """Lets people in and out, and tells them what the session is.

    Args:
        info: the session as the protocol shows it at first; `describe` changes it.
        cutter: is given the caller's microphone.
        hub: gets the listeners.
    """

    def __init__(
        self,
        info: SessionInfo,
        parts: SessionParts,
        cutter: Cutter,
        timeline: Timeline,
        hub: Hub,
        tasks: Tasks,
        metrics: Metrics,
    ):
        self.connections: dict[str, Connection] = {}
        self._info = self._told = info
        self._parts = parts
        self._cutter = cutter
        self._timeline = timeline
        self._hub = hub
        self._tasks = tasks
        self._metrics = metrics
        self.has_been_joined = False
        self._websockets = 0
        self._joined = asyncio.Event()  # set while anybody is connected
        self._left = asyncio.Event()  # set while nobody is
        self._left.set()

    @property
    def viewers(self) -> int:
        return sum(connection.role == "viewer" for connection in self.connections.values())

    @property
    def _waiting_callers(self) -> int:
        callers = [connection for connection in self.connections.values() if connection.role == "caller"]
        return sum(not caller.is_connected for caller in callers)

    @property
    def info(self) -> SessionInfo:
        """The session as the protocol shows it."""
        return self._info.model_copy(update={"state": self._timeline.state, "viewers": self.viewers})

    @property
    def message(self) -> SessionMessage:
        return SessionMessage(**self.info.model_dump())

    def describe(self, **changes: str) -> None:
        """Changes fields of the session's description and tells everybody."""
        self._info = self._info.model_copy(update=changes)
        self._tell()

    async def connect(
        self, offer_sdp: str, role: Role, control_by: Callable[[Callable[[str], None]], Control]
    ) -> tuple[str, str]:
        """A browser joins. A second caller takes the place of the first when their connection stands.

        Args:
            control_by: makes what carries out the connection's messages, and answers by the function it is given.

        Returns:
            The connection's id and the SDP answer.

        Raises:
            ProtocolError: for an offer that cannot be used.
            CapacityError: if there are too many viewers, or too many callers who have not connected yet.
            SessionError: if the session has ended meanwhile.
        """
        if role == "viewer" and self.viewers >= MAX_VIEWERS:
            raise CapacityError(f"This session has {MAX_VIEWERS} viewers already.")
        if role == "caller" and self._waiting_callers >= MAX_WAITING_CALLERS:
            raise CapacityError("Others are being connected to this session.")
        connection = self._new_connection(role, control_by)
        # Its place is taken before anything is waited for: any number of offers at once cannot share it.
        self.connections[connection.ident] = connection
        try:
            answer = await connection.peer.answer(offer_sdp)
            if not self._tasks.is_open:
                raise SessionError("The session has ended.")
        except BaseException:
            self.connections.pop(connection.ident, None)
            self._changed()
            await within_limit(connection.peer.close())
            raise
        self._hub.add(connection)
        self._changed()
        return connection.ident, answer

    def connection(self, ident: str) -> Connection:
        """
        Raises:
            SessionError: if there is no such connection (any more).
        """
        if ident not in self.connections:
            raise SessionError("There is no such connection; it may have ended.", "unknown_connection")
        return self.connections[ident]

    async def disconnect(self, ident: str) -> None:
        """Ends a connection.

        Raises:
            SessionError: if there is no such connection (any more).
        """
        await self._close(self.connection(ident))

    def join(self, listener: Listener) -> None:
        """A WebSocket joins; it has been told the session."""
        self._websockets += 1
        self._hub.add(listener)
        self._changed()

    def leave(self, listener: Listener) -> None:
        """A WebSocket has gone."""
        self._websockets -= 1
        self._hub.remove(listener)
        self._changed()

    async def gone(self) -> None:
        """Returns when nobody has been connected for 30 s."""
        clock = self._parts.clock
        while True:
            await self._left.wait()
            if not await happens_before(self._joined, clock, clock.media_s() + IDLE_S):
                return

    async def close(self) -> None:
        """Ends all connections."""
        for connection in list(self.connections.values()):
            await self._close(connection)

    def _new_connection(self, role: Role, control_by: Callable[[Callable[[str], None]], Control]) -> Connection:
        has_microphone = role == "caller" and self._info.mode == "conversation"
        microphone = self._parts.microphone() if has_microphone else None
        hearing = Hearing(microphone, self._parts.gate()) if microphone is not None else None
        connection = Connection(secrets.token_urlsafe(12), role, hearing)
        connection.control = control_by(connection.send)
        connection.peer = self._parts.peer(
            broadcast=self._parts.broadcast,
            microphone=microphone,
            leads=role == "caller",
            on_connected=lambda: self._on_connected(connection),
            on_open=lambda: connection.send(dump(self.message)),
            on_message=connection.control.offer,
            on_gone=lambda reason: self._on_gone(connection, reason),
        )
        return connection

    def _on_connected(self, connection: Connection) -> None:
        """The connection stands; a caller's takes the place of the one before."""
        connection.is_connected = True
        if connection.role == "caller" and self._tasks.is_open and not connection.is_closed:
            self._cutter.hearing = connection.hearing
            for former in self.connections.values():
                if former.role == "caller" and former.is_connected and former is not connection:
                    self._tasks.spawn(self._close(former))

    def _on_gone(self, connection: Connection, reason: str) -> None:
        if self._tasks.is_open and not connection.is_closed:
            self._metrics.connections_lost.labels(reason).inc()
            log.info("a %s is gone: %s", connection.role, reason)
            self._tasks.spawn(self._close(connection))

    async def _close(self, connection: Connection) -> None:
        if connection.is_closed:
            return
        connection.is_closed = True
        self.connections.pop(connection.ident, None)
        self._hub.remove(connection)
        if self._cutter.hearing is connection.hearing:
            self._cutter.hearing = None
        connection.hearing = None  # its resampler has threads, which would wait for the garbage collector
        self._changed()
        connection.control.close()
        await within_limit(connection.peer.close())

    def _changed(self) -> None:
        is_empty = not self.connections and not self._websockets
        self.has_been_joined |= not is_empty
        entered, left = (self._left, self._joined) if is_empty else (self._joined, self._left)
        entered.set()
        left.clear()
        self._tell()

    def _tell(self) -> None:
        """Says what the session is, if anything of it but its state has changed; the state has its own message."""
        described = self.info.model_copy(update={"state": "idle"})
        if described != self._told and self._tasks.is_open:
            self._told = described
            self._hub.emit(self.message)
