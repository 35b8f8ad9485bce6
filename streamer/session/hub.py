"""Events of a session to everybody who listens to it."""

from __future__ import annotations

from typing import Protocol

from streamer.protocol import Outbound, dump


class Listener(Protocol):
    """A connection that takes messages. `send` never waits: what a slow one does not take, it loses by its own rule."""

    def send(self, message: str, is_optional: bool = False) -> None:
        """Takes a message; what is optional is left out first."""


class Hub:
    """The listeners of a session. A message is serialised once."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def __len__(self) -> int:
        return len(self._listeners)

    def add(self, listener: Listener) -> None:
        """From now on it is told everything."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """It is told nothing more; nothing happens if it was not there."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, message: Outbound, is_optional: bool = False) -> None:
        """Sends to all; what is optional is the first thing a slow listener goes without."""
        if self._listeners:
            line = dump(message)
            for listener in tuple(self._listeners):
                listener.send(line, is_optional)
