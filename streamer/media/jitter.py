"""Puts incoming sound packets in order without waiting for what is lost.

aiortc's own buffer stalls on every hole until 16 packets have passed it: 30 % of the sound was lost at 5 % packet
loss. This one gives a missing packet until three newer ones have come, or 60 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

NEWER_PACKETS = 3
WAIT_S = 0.060
RESTART_DISTANCE = 500  # packets; a jump this wide is a new stream, not a loss (10 s of sound)
SEQUENCES = 1 << 16
TIMESTAMPS = 1 << 32

P = TypeVar("P")


@dataclass
class JitterStats:
    """Counters: packets received, lost (given up), late (came after they were given up or twice), restarts."""

    packets: int = 0
    lost: int = 0
    late: int = 0
    restarts: int = 0


def signed_distance(newer: int, older: int, modulo: int) -> int:
    """newer - older on a circle, in [-modulo/2, modulo/2)."""
    return (newer - older + modulo // 2) % modulo - modulo // 2


class SkippingJitterBuffer(Generic[P]):
    """Reorders packets by their 16-bit sequence number; holds at most 3.

    Args:
        now: the monotonic clock.
        stats: counted on; new ones if None.
    """

    def __init__(self, now: Callable[[], float], stats: JitterStats | None = None):
        self.stats = stats or JitterStats()
        self._now = now
        self._expected: int | None = None
        self._waiting: dict[int, P] = {}
        self._hole_since_s: float | None = None

    def add(self, sequence: int, packet: P) -> list[P]:
        """Takes a packet and returns those that are now in order."""
        self.stats.packets += 1
        if self._expected is None:
            self._expected = sequence
        ahead = signed_distance(sequence, self._expected, SEQUENCES)
        if abs(ahead) >= RESTART_DISTANCE:
            ready = self._release_all()
            self.stats.restarts += 1
            self._expected = (sequence + 1) % SEQUENCES
            return [*ready, packet]
        if ahead < 0 or sequence in self._waiting:
            self.stats.late += 1
            return []
        self._waiting[sequence] = packet
        ready = self._release()
        if len(self._waiting) >= NEWER_PACKETS:
            ready += self._skip_hole()
        return ready

    def expire(self) -> list[P]:
        """Gives up on a hole that is older than 60 ms; to be called at `deadline_s`."""
        if self.deadline_s is None or self._now() < self.deadline_s:
            return []
        return self._skip_hole()

    @property
    def deadline_s(self) -> float | None:
        """When the present hole is given up, in seconds of `now`; None without one."""
        return None if self._hole_since_s is None else self._hole_since_s + WAIT_S

    def _release(self) -> list[P]:
        ready: list[P] = []
        assert self._expected is not None
        while self._expected in self._waiting:
            ready.append(self._waiting.pop(self._expected))
            self._expected = (self._expected + 1) % SEQUENCES
        if not self._waiting:
            self._hole_since_s = None
        elif ready or self._hole_since_s is None:
            self._hole_since_s = self._now()
        return ready

    def _skip_hole(self) -> list[P]:
        assert self._expected is not None
        expected = self._expected
        nearest = min(self._waiting, key=lambda sequence: signed_distance(sequence, expected, SEQUENCES))
        self.stats.lost += signed_distance(nearest, expected, SEQUENCES)
        self._expected = nearest
        return self._release()

    def _release_all(self) -> list[P]:
        ready: list[P] = []
        while self._waiting:
            ready += self._skip_hole()
        return ready


class TimestampUnwrapper:
    """32-bit RTP timestamps as integers that do not wrap, from 0; small steps back stay steps back.

    aiortc's own mapper takes every step back for a wrap and jumps by 2^32.
    """

    def __init__(self) -> None:
        self._last: int | None = None
        self._unwrapped = 0

    def unwrap(self, timestamp: int) -> int:
        if self._last is not None:
            self._unwrapped += signed_distance(timestamp, self._last, TIMESTAMPS)
        self._last = timestamp
        return self._unwrapped
