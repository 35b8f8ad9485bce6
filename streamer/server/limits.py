"""How often one client, and all clients of one session, may ask for what costs something."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from streamer.errors import RateError

# Of one client address: a minute, and for `sockets` and `unseen` at once. All clients of a session together may have
# twice as many offers, candidates and uploads.
DEFAULTS = {
    "sessions": 60,  # made
    "offers": 120,
    "candidates": 600,  # PATCH requests
    "uploads": 30,
    "tokens": 10,  # wrong ones
    "sockets": 32,  # WebSockets
    "unseen": 4,  # sessions that nobody has connected to yet
}
SESSION_SHARE = 2
MAX_BUCKETS = 20_000


class Limits:
    """Token buckets: full at first, and again after a minute without a request.

    Args:
        changed: numbers that differ from `DEFAULTS`, by name.

    Raises:
        ValueError: for a name that is none, or a number below 1.
    """

    def __init__(self, changed: Mapping[str, int] | None = None, now: Callable[[], float] = time.monotonic):
        for name, number in (changed or {}).items():
            if name not in DEFAULTS:
                raise ValueError(f"there is no limit {name!r}; there are {', '.join(DEFAULTS)}")
            if number < 1:
                raise ValueError(f"the limit {name} is at least 1, not {number}")
        self.numbers = DEFAULTS | dict(changed or {})
        self._now = now
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # what is left, as of when
        self._open: Counter[tuple[str, str]] = Counter()

    def take(self, name: str, client: str, session: str | None = None) -> None:
        """Counts a request.

        Raises:
            RateError: if there have been too many; it is not counted then.
        """
        self.check(name, client)
        if session is not None:
            self._draw((name, session), SESSION_SHARE * self.numbers[name])
        self._draw((name, client), self.numbers[name])

    def check(self, name: str, client: str) -> None:
        """Counts nothing.

        Raises:
            RateError: if a request would be one too many.
        """
        self._draw((name, client), self.numbers[name], cost=0)

    @contextmanager
    def place(self, name: str, client: str) -> Iterator[None]:
        """One of the places that a client, or a session, may hold at once.

        Raises:
            RateError: if it holds all of them.
        """
        if self._open[name, client] >= self.numbers[name]:
            raise RateError(f"There are {self.numbers[name]} of these open already.", 10)
        self._open[name, client] += 1
        try:
            yield
        finally:
            self._open[name, client] -= 1
            self._open += Counter()  # keeps what is above 0

    def _draw(self, key: tuple[str, str], per_minute: int, cost: int = 1) -> None:
        now = self._now()
        left, before = self._buckets.pop(key, (float(per_minute), now))
        left = min(per_minute, left + (now - before) * per_minute / 60)
        is_enough = left >= 1
        self._buckets[key] = (left - cost if is_enough else left, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)  # the one that was asked for longest ago
        if not is_enough:
            raise RateError("Too many requests; wait a moment.", max(1, round((1 - left) * 60 / per_minute)))
