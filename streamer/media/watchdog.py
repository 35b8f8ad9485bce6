"""Notices a peer that has gone without a word: a closed tab, a pulled cable."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Watchdog:
    """Counts from the last sign of life. One timer, set again for what is left; no polling.

    Args:
        connect_limit_s: for the first sign.
        silence_limit_s: between signs after that; may be changed until then.
        now: the monotonic clock.
    """

    def __init__(
        self,
        connect_limit_s: float,
        silence_limit_s: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        self._connect_limit_s = connect_limit_s
        self.silence_limit_s = silence_limit_s
        self._now = now
        self._sleep = sleep
        self._started_s = now()
        self._is_connected = False
        self.last_sign_s: float | None = None

    def sign(self) -> None:
        """The peer is there."""
        self.last_sign_s = self._now()

    @property
    def silent_s(self) -> float | None:
        """Since the last sign; None before the first."""
        return None if self.last_sign_s is None else self._now() - self.last_sign_s

    def connected(self) -> None:
        """The connection stands: from now on silence counts."""
        self._is_connected = True
        self.sign()

    async def wait(self) -> None:
        """Returns when the peer has been silent for too long, or has not connected in time."""
        while (left_s := self._deadline_s() - self._now()) > 0:
            # Never longer than a silence: connecting brings the end nearer.
            await self._sleep(min(left_s, self.silence_limit_s))

    def _deadline_s(self) -> float:
        if not self._is_connected or self.last_sign_s is None:
            return self._started_s + self._connect_limit_s
        return self.last_sign_s + self.silence_limit_s
