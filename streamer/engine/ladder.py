"""The deadline ladder: which of the cheaper ways to make a chunk is taken when time is short.

Every rung's cost was measured when the engine started. While it runs, one factor (`load`) says how much slower
than that the machine is now; every measured chunk informs it, whatever its rung, so that a rung that has not run for
minutes is still predicted from what the machine does now. Not quite: between chunks caches go cold, which costs a cheap
rung more than a dear one, and what was learned of a rung under load stays when the load is gone. So a stream that has
been low for long tries the next rung, if that would be in time on the machine at rest, and believes what it measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.talking import Rung

CLIMB_CHUNKS = 4  # with room for a better rung, before it is taken: descending is at once, climbing is not
CLIMB_ROOM = 1.15  # a better rung must fit with this much slower a machine
TRY_CHUNKS = 40  # on one rung without room for a better one, before that is tried; twice as many after each failure
MAX_TRY_CHUNKS = 16 * TRY_CHUNKS
STALE_CHUNKS = 30  # a rung that was not made for so long is measured anew
LATE_ALLOWED_S = 0.12  # the playout still shows what comes this late; later than that a held frame is better
_GAIN = 0.25  # of the running means
_COST_GAIN = 0.05
_SPIKE = 2.0  # a chunk counts at most this many times what was predicted: one stall must not hold the ladder down


@dataclass(frozen=True)
class Due:
    """A chunk that waits: when it must be ready (monotonic seconds) and how many latents it has."""

    deadline_s: float
    latents: int


@dataclass
class StreamRung:
    """Where one stream stands on the ladder."""

    rung: Rung = Rung.FULL
    calm_chunks: int = 0
    rung_chunks: int = 0  # since it came to this rung
    try_after: int = TRY_CHUNKS

    def move(self, rung: Rung) -> None:
        """Go to another rung."""
        self.rung, self.calm_chunks, self.rung_chunks = rung, 0, 0


class Ladder:
    """Predicts what a rung costs and chooses one for each chunk.

    Args:
        latent_s: seconds a latent of every rung that the model has, FULL among them, but not HOLD; measured on the
            machine at rest.
    """

    def __init__(self, latent_s: dict[Rung, float]) -> None:
        self._rungs = tuple(sorted(latent_s))
        if Rung.FULL not in latent_s or min(latent_s.values()) <= 0:
            raise ValueError(f"every rung needs its cost, FULL among them, got {latent_s}")
        self._rest_s = dict(latent_s)
        self._latent_s = dict(self._rest_s)
        self._idle_chunks = dict.fromkeys(self._rungs, 0)  # since each rung was made
        self.load = 1.0
        self._deviation = 0.1

    def predicted_s(self, rung: Rung, latents: int) -> float:
        """Seconds a chunk is expected to take, with a margin for how much that varies; 0 for HOLD."""
        if rung is Rung.HOLD:
            return 0.0
        return self._latent_s[rung] * latents * (self.load + self._deviation)

    def record(self, rung: Rung, latents: int, seconds: float) -> None:
        """A chunk was made; a held one lets the load fall back slowly, since nothing was measured."""
        if rung is Rung.HOLD:
            self.load += _GAIN * min(0.0, 1.0 - self.load)
            return
        slower = min(seconds / (self._latent_s[rung] * latents), _SPIKE * (self.load + self._deviation))
        error = slower - self.load
        is_stale = self._idle_chunks[rung] >= STALE_CHUNKS
        self._latent_s[rung] *= max(0.1, slower / self.load) ** (1.0 if is_stale else _COST_GAIN)
        self._idle_chunks = {other: chunks + 1 for other, chunks in self._idle_chunks.items()} | {rung: 0}
        if is_stale:
            return  # all of it was the rung's, nothing the machine's
        self.load += _GAIN * error
        self._deviation += _GAIN * (abs(error) - self._deviation)

    def choose(self, stream: StreamRung, waiting: Sequence[Due], now_s: float) -> Rung:
        """Rung of the first of the waiting chunks.

        It is the best that lets all of them meet their deadlines if all take it: a rung that is only good for the
        first would be paid by the others.

        Args:
            stream: of the first chunk; its place on the ladder is updated.
            waiting: at most one chunk of each stream, the earliest deadline first.
            now_s: monotonic seconds.
        """
        best = self._best(waiting, now_s, 1.0)
        if best is None:
            finish_s = now_s + self.predicted_s(self._rungs[-1], waiting[0].latents)
            stream.calm_chunks = 0
            if finish_s > waiting[0].deadline_s + LATE_ALLOWED_S:
                return Rung.HOLD  # where it stood before counts again when the hold is over
            best = self._rungs[-1]
        roomy = self._best(waiting, now_s, CLIMB_ROOM)
        stream.rung_chunks += 1
        if best > stream.rung:
            failed = stream.rung_chunks <= 2  # it had only just come to this rung
            stream.try_after = min(2 * stream.try_after, MAX_TRY_CHUNKS) if failed else TRY_CHUNKS
            stream.move(best)
        elif roomy is not None and roomy < stream.rung:
            stream.calm_chunks += 1
            if stream.calm_chunks >= CLIMB_CHUNKS:
                stream.move(self._better(stream.rung))
        elif stream.rung_chunks > stream.try_after and self._may_try(stream.rung, waiting, now_s):
            stream.move(self._better(stream.rung))
        else:
            stream.calm_chunks = 0
        return stream.rung

    def _better(self, rung: Rung) -> Rung:
        """The next better one of the model's."""
        return self._rungs[self._rungs.index(rung) - 1]

    def _may_try(self, rung: Rung, waiting: Sequence[Due], now_s: float) -> bool:
        """Whether one chunk waits, and the next better rung would have it in time if the machine did nothing else."""
        if rung is Rung.FULL or len(waiting) > 1:
            return False
        return now_s + self._rest_s[self._better(rung)] * waiting[0].latents <= waiting[0].deadline_s

    def _best(self, waiting: Sequence[Due], now_s: float, slower: float) -> Rung | None:
        """The best rung at which all that can be in time are; None if the first cannot."""
        return next((rung for rung in self._rungs if self._all_in_time(rung, waiting, now_s, slower)), None)

    def _all_in_time(self, rung: Rung, waiting: Sequence[Due], now_s: float, slower: float) -> bool:
        busy_until_s, cheapest = now_s, self._rungs[-1]
        for place, due in enumerate(waiting):
            finish_s = busy_until_s + slower * self.predicted_s(rung, due.latents)
            if finish_s <= due.deadline_s:
                busy_until_s = finish_s
            elif place == 0:
                return False
            elif rung is not cheapest and now_s + self.predicted_s(cheapest, due.latents) <= due.deadline_s:
                return False  # a cheaper rung may save it
            # else it will be held whatever is done, and costs nothing
        return True
