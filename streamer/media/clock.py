"""The one clock of a session: media time against the machine's monotonic clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

NTP_EPOCH_OFFSET_S = 2_208_988_800  # from 1900, where NTP starts, to 1970
EARLY_S = 0.0002  # timers of event loops round to a millisecond; waking this much early counts as on time


class MediaClock:
    """Media time 0 plays at `origin_s`; sound, picture and sender reports all go by it.

    Args:
        origin_s: when media time 0 plays, in seconds of `now`. May lie in the future.
        now: the monotonic clock.
        unix_now: the time of day, read once: a step of the system's clock never moves the session.
    """

    def __init__(
        self,
        origin_s: float,
        now: Callable[[], float] = time.monotonic,
        unix_now: Callable[[], float] = time.time,
    ):
        self.origin_s = origin_s
        self._now = now
        self._unix_origin_s = unix_now() - now() + origin_s

    def media_s(self) -> float:
        """The media time that plays now; negative before the origin."""
        return self._now() - self.origin_s

    def wall_s(self, media_s: float) -> float:
        """When that media time plays, in seconds of the monotonic clock."""
        return self.origin_s + media_s

    def ntp(self, media_s: float) -> int:
        """When that media time plays, as a 64-bit NTP timestamp: what a sender report pairs with its RTP time."""
        seconds = self._unix_origin_s + media_s + NTP_EPOCH_OFFSET_S
        whole = int(seconds // 1)
        return (whole << 32) | int((seconds - whole) * (1 << 32)) & 0xFFFFFFFF

    async def wait_until(self, media_s: float) -> None:
        """Returns when that media time plays; at once if it has passed."""
        while (left_s := self.wall_s(media_s) - self._now()) > EARLY_S:
            await asyncio.sleep(left_s)


async def happens_before(event: asyncio.Event, clock: MediaClock, media_s: float) -> bool:
    """Waits for an event, but no longer than until a media time; whether it has happened."""
    if event.is_set():
        return True
    waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(clock.wait_until(media_s))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return event.is_set()
