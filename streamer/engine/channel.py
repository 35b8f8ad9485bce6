"""What the two processes say to each other, and the socket it crosses.

A socket of type SOCK_SEQPACKET keeps messages whole: each arrives at once or not at all, with the file descriptors
that belong to it, and a process that dies in the middle of a message leaves none half read. A message is the name of
its class and its fields as JSON: what is read is checked, and nothing that is read can run.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from streamer.engine.config import EngineFacts
from streamer.engine.ladder import Rung
from streamer.engine.shared_frames import RingShape
from streamer.errors import EngineError, EngineLost

MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 2
MAX_BACKLOG = 4096  # messages that wait for a child that does not read; more than its rings can cause


# To the child.


@dataclass(frozen=True)
class Open:
    """A new stream; with the descriptors of its ring and of its reference picture."""

    stream: int
    shape: RingShape
    prompt: str
    seed: int
    motion_energy: float
    first_frame: int


@dataclass(frozen=True)
class Step:
    """A chunk; its sound is in the slot. None: as before. With the descriptor of a new reference, if there is one."""

    stream: int
    step: int
    slot: int
    latents: int
    deadline_s: float
    prompt: str | None = None
    motion_energy: float | None = None


@dataclass(frozen=True)
class Rewind:
    """Forget this step, which is the stream's newest."""

    stream: int
    step: int


@dataclass(frozen=True)
class CloseStream:
    stream: int


@dataclass(frozen=True)
class Stall:
    """For tests: do nothing for so long."""

    seconds: float


# From the child.


@dataclass(frozen=True)
class Ready:
    facts: EngineFacts


@dataclass(frozen=True)
class StartFailed:
    message: str


@dataclass(frozen=True)
class Opened:
    """A stream is open; or not, and why."""

    stream: int
    failure: str | None = None


@dataclass(frozen=True)
class Done:
    """A step's frames are in its slot. `full_s` as in `EngineChunk`."""

    stream: int
    step: int
    first_frame: int
    frames: int
    rung: Rung
    stage_ms: dict[str, float]
    started_s: float
    finished_s: float
    full_s: float


@dataclass(frozen=True)
class NotDone:
    """A step was forgotten before it ran (`failure` None), or failed; its slot is free."""

    stream: int
    step: int
    failure: str | None = None


@dataclass(frozen=True)
class Log:
    level: int
    text: str


MESSAGES = {
    kind.__name__: kind
    for kind in (Open, Step, Rewind, CloseStream, Stall, Ready, StartFailed, Opened, Done, NotDone, Log)
}


@cache
def _fields(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(MESSAGES[name])


def packed(message: Any) -> bytes:
    """One of `MESSAGES` as bytes."""
    name = type(message).__name__
    return name.encode() + b" " + _fields(name).dump_json(message)


def unpacked(packet: bytes) -> Any:
    """The message of `packed`.

    Raises:
        ValueError: if it is none.
    """
    name, _, fields = packet.partition(b" ")
    if (kind := name.decode(errors="replace")) not in MESSAGES:
        raise ValueError(f"no message is called {kind[:40]!r}")
    return _fields(kind).validate_json(fields)


class ChildChannel:
    """The child's end: blocking.

    Args:
        connection: its end of the pair.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, message: Any) -> None:
        """Raises EOFError when the parent is gone."""
        try:
            self._socket.send(packed(message))
        except OSError as error:
            raise EOFError(str(error)) from error

    def receive(self, is_waiting: bool) -> tuple[Any, list[int]] | None:
        """Next message and its descriptors; None if there is none and `is_waiting` is False.

        Raises:
            EOFError: if the parent is gone.
        """
        if not is_waiting and not select.select([self._socket], [], [], 0)[0]:
            return None
        return _receive(self._socket)


class ParentChannel:
    """The parent's end, on an event loop: never blocks, tells of every message and of the end.

    Args:
        connection: its end of the pair; closed by `close`.
        on_message: is given every message.
        on_end: is called once, when the child has closed its end or died.
    """

    def __init__(
        self, connection: socket.socket, on_message: Callable[[Any], None], on_end: Callable[[], None]
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._on_message, self._on_end = on_message, on_end
        self._backlog: deque[tuple[bytes, Sequence[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._read)
        self.is_open = True

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send, now or when the child reads again. The descriptors belong to the channel and are closed by it.

        Raises:
            EngineLost: if the child is gone.
            EngineError: if thousands of messages wait already.
        """
        packet = packed(message)
        if not self.is_open:
            _close_all(descriptors)
            raise EngineLost("the engine process is gone")
        if len(packet) > MAX_MESSAGE_BYTES or len(self._backlog) >= MAX_BACKLOG:
            _close_all(descriptors)
            raise EngineError("the engine does not read what it is asked")
        self._backlog.append((packet, descriptors))
        if len(self._backlog) == 1:
            self._write()

    def close(self) -> None:
        """Close this end; the child ends by that. Idempotent; `on_end` is not called."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            for _, descriptors in self._backlog:
                _close_all(descriptors)
            self._backlog.clear()

    def _write(self) -> None:
        while self._backlog:
            packet, descriptors = self._backlog[0]
            try:
                if descriptors:
                    socket.send_fds(self._socket, [packet], list(descriptors))
                else:
                    self._socket.send(packet)
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except OSError:
                return  # the reader is told of the end
            self._backlog.popleft()
            _close_all(descriptors)
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        while self.is_open:
            try:
                message, _ = _receive(self._socket)
            except BlockingIOError:
                return
            except EOFError:
                self.close()
                self._on_end()
                return
            self._on_message(message)


def _receive(connection: socket.socket) -> tuple[Any, list[int]]:
    try:
        packet, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
    except BlockingIOError:
        raise
    except OSError as error:
        raise EOFError(str(error)) from error
    if not packet:
        raise EOFError("the other end is closed")
    return unpacked(packet), descriptors


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
