"""What runs as a part of a session, and how its parts are closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from streamer.errors import SessionError

CLOSE_TIMEOUT_S = 3.0

log = logging.getLogger(__name__)


class Tasks(asyncio.TaskGroup):
    """Tasks that end with the session, and whose failure ends it. `shut` lets nothing new begin, `cancel` ends all."""

    def __init__(self) -> None:
        super().__init__()
        self._running: set[asyncio.Task[Any]] = set()
        self.is_open = False

    async def __aenter__(self) -> Tasks:
        self.is_open = True
        await super().__aenter__()
        return self

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """
        Raises:
            SessionError: if the session is ending, or has not begun.
        """
        if not self.is_open:
            work.close()
            raise SessionError("The session is ending.")
        task = self.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def shut(self) -> None:
        """Nothing new begins."""
        self.is_open = False

    def cancel(self) -> None:
        """Nothing new begins, and what runs ends."""
        self.shut()
        for task in tuple(self._running):
            task.cancel()


async def within_limit(closing: Coroutine[Any, Any, None]) -> None:
    """What closes must not keep the rest from closing."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await closing
    except Exception as error:
        log.warning("a part of a session could not be closed: %r", error)
