"""The socket between a process and its child.

A socket of type SOCK_SEQPACKET keeps messages whole: each arrives at once or not at all, with the file descriptors
that belong to it, and a process that dies in the middle of a message leaves none half read. A message is the name of
its class and its fields as JSON: what is read is checked, and nothing that is read can run. Arrays travel as
descriptors (`streamer.child.arrays`).
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from streamer.errors import ChildError, ChildLost

MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 2
MAX_BACKLOG = 4096  # messages that wait for a child that does not read; more than an engine's rings can cause


@dataclass(frozen=True)
class Log:
    """A record of the child's log, for the parent's handlers."""

    level: int
    text: str


@dataclass(frozen=True)
class Failed:
    """The child cannot go on, and why, in one sentence."""

    message: str


Kinds = tuple[type, ...]
"""Dataclasses that may travel over a channel, besides `Log` and `Failed`."""


@cache
def _fields(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def packed(message: Any) -> bytes:
    """A message as bytes."""
    return message.__class__.__name__.encode() + b" " + _fields(message.__class__).dump_json(message)


def unpacked(packet: bytes, kinds: Kinds) -> Any:
    """The message of `packed`.

    Raises:
        ValueError: if it is none of these kinds.
    """
    name, _, fields = packet.partition(b" ")
    for kind in (*kinds, Log, Failed):
        if kind.__name__.encode() == name:
            return _fields(kind).validate_json(fields)
    raise ValueError(f"no message is called {name.decode(errors='replace')[:40]!r}")


class ChildChannel:
    """The child's end: blocking.

    Args:
        connection: its end of the pair.
        kinds: what may arrive.
    """

    def __init__(self, connection: socket.socket, kinds: Kinds) -> None:
        self._socket, self._kinds = connection, kinds

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send; the descriptors are closed. Raises EOFError when the parent is gone."""
        try:
            socket.send_fds(self._socket, [packed(message)], list(descriptors))
        except OSError as error:
            raise EOFError(str(error)) from error
        finally:
            close_all(descriptors)

    def receive(self, is_waiting: bool = True) -> tuple[Any, list[int]] | None:
        """Next message and its descriptors; None if there is none and `is_waiting` is False.

        Raises:
            EOFError: if the parent is gone.
        """
        if not is_waiting and not select.select([self._socket], [], [], 0)[0]:
            return None
        return _receive(self._socket, self._kinds)

    def __iter__(self) -> Iterator[Any]:
        """Messages, until the parent is gone."""
        while True:
            try:
                message, descriptors = _receive(self._socket, self._kinds)
            except EOFError:
                return
            close_all(descriptors)
            yield message


class ParentChannel:
    """The parent's end, on an event loop: never blocks, tells of every message and of the end.

    Args:
        connection: its end of the pair; closed by `close`.
        kinds: what may arrive.
        on_message: is given every message and its descriptors, which it closes.
        on_end: is called once, when the child has closed its end, has died, or says what is no message.
    """

    def __init__(
        self,
        connection: socket.socket,
        kinds: Kinds,
        on_message: Callable[[Any, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._socket, self._kinds = connection, kinds
        self._on_message, self._on_end = on_message, on_end
        self._backlog: deque[tuple[bytes, Sequence[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._read)
        self.is_open = True

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:
        """Send, now or when the child reads again. The descriptors belong to the channel and are closed by it.

        Raises:
            ChildLost: if the child is gone.
            ChildError: if thousands of messages wait already.
        """
        packet = packed(message)
        if not self.is_open:
            close_all(descriptors)
            raise ChildLost("the process is gone")
        if len(packet) > MAX_MESSAGE_BYTES or len(self._backlog) >= MAX_BACKLOG:
            close_all(descriptors)
            raise ChildError("the process does not read what it is asked")
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
                close_all(descriptors)
            self._backlog.clear()

    def _write(self) -> None:
        while self._backlog:
            packet, descriptors = self._backlog[0]
            try:
                socket.send_fds(self._socket, [packet], list(descriptors))
            except BlockingIOError:
                self._loop.add_writer(self._socket.fileno(), self._write)
                return
            except OSError:
                return  # the reader is told of the end
            self._backlog.popleft()
            close_all(descriptors)
        self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        while self.is_open:
            try:
                message, descriptors = _receive(self._socket, self._kinds)
            except BlockingIOError:
                return
            except (EOFError, ValueError):
                self.close()
                self._on_end()
                return
            self._on_message(message, descriptors)


def _receive(connection: socket.socket, kinds: Kinds) -> tuple[Any, list[int]]:
    try:
        packet, descriptors, _, _ = socket.recv_fds(connection, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
    except BlockingIOError:
        raise
    except OSError as error:
        raise EOFError(str(error)) from error
    if not packet:
        raise EOFError("the other end is closed")
    try:
        return unpacked(packet, kinds), descriptors
    except ValueError:
        close_all(descriptors)
        raise


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody needs."""
    for descriptor in descriptors:
        os.close(descriptor)
