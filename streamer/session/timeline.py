"""Who speaks when, by media time: what was really played of an utterance, and the events that say so.

Media time is counted in samples at 48 kHz here, from 0, so that milliseconds come out exactly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from models.timing import FRAME_SAMPLES
from streamer.media.clock import MediaClock
from streamer.media.sound import PLAYED_RATE_HZ
from streamer.protocol import (
    ErrorMessage,
    Interrupted,
    Outbound,
    Source,
    Started,
    State,
    StateMessage,
    Stopped,
    StopReason,
)


@dataclass(eq=False)
class Turn:
    """An utterance as it is played.

    Attributes:
        spans: [first media sample, samples] of its sound, in order; gaps are where it had none ready, or lost some.
        is_announced: `speaking.started` has been sent.
        is_over: `speaking.stopped` has been sent.
    """

    name: str
    source: Source
    spans: list[list[int]] = field(default_factory=list)
    is_announced: bool = False
    is_scheduled: bool = False
    is_over: bool = False

    def add(self, first: int, count: int) -> None:
        """Its next `count` samples play from media sample `first` on."""
        if not count:
            return
        if self.spans and sum(self.spans[-1]) == first:
            self.spans[-1][1] += count
        else:
            self.spans.append([first, count])

    def remove(self, first: int, end: int) -> None:
        """What would have played in [first, end) does not."""
        kept = []
        for start, count in self.spans:
            stop = start + count
            kept += [[start, min(stop, first) - start]] if start < first else []
            kept += [[max(start, end), stop - max(start, end)]] if stop > end else []
        self.spans = kept

    @property
    def start(self) -> int | None:
        return self.spans[0][0] if self.spans else None

    @property
    def end(self) -> int | None:
        return sum(self.spans[-1]) if self.spans else None

    def played_ms(self, until: int | None = None) -> int:
        """Milliseconds of it that play before media sample `until`."""
        played = 0
        for start, count in self.spans:
            played += count if until is None else min(max(until - start, 0), count)
        return round(1000 * played / PLAYED_RATE_HZ)


@dataclass
class Piece:
    """A part of a chunk's sound that belongs to a turn.

    Attributes:
        offset, count: samples, from the start of the chunk's sound.
        end: why nothing of the turn follows; None where something does.
        failure: for people, of a turn that failed.
    """

    turn: Turn
    offset: int
    count: int
    end: StopReason | None = None
    failure: ErrorMessage | None = None


class Timeline:
    """State and events of what a session says, each sent at the media time it is true.

    Args:
        clock: of the session.
        emit: sends a message to everybody.
        spawn: runs a coroutine as a task of the session.
    """

    def __init__(
        self,
        clock: MediaClock,
        emit: Callable[[Outbound], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ):
        self.state: State = "idle"
        self._clock = clock
        self._emit = emit
        self._spawn = spawn
        self._live: list[Turn] = []
        self._pending: dict[asyncio.Task[None], Turn | None] = {}

    @property
    def media_ms(self) -> int:
        """Media time now; 0 before the first frame."""
        return max(0, round(1000 * self._clock.media_s()))

    @property
    def is_speaking(self) -> bool:
        """Whether anything is being played or on its way to be."""
        return bool(self._live)

    def is_live(self, *sources: Source) -> bool:
        """Whether something from there is being played or on its way to be."""
        return any(turn.source in sources for turn in self._live)

    def forget(self, name: str) -> None:
        """An utterance that waited will not begin."""
        self._emit(Stopped(utterance=name, played_ms=0, reason="interrupted"))

    def begin(self, turn: Turn) -> None:
        """Its first sound has been cut; it counts as playing from now on."""
        self._live.append(turn)

    def commit(self, pieces: list[Piece], first_sample: int, dropped: range = range(0)) -> None:
        """The sound of a chunk is where it will be played from: its events can be set.

        Args:
            first_sample: media sample of the start of the chunk's sound.
            dropped: media samples that came too late to be played.
        """
        pieces = [piece for piece in pieces if not piece.turn.is_over]
        for piece in pieces:
            piece.turn.add(first_sample + piece.offset, piece.count)
        if dropped:
            for turn in self._live:
                turn.remove(dropped.start, dropped.stop)
        for piece in pieces:
            self._announce(piece.turn)
            if piece.end is not None:
                self._end(piece.turn, piece.end, piece.failure)

    def lose(self, pieces: list[Piece]) -> None:
        """The sound of a chunk will not be played."""
        for piece in pieces:
            if piece.end is not None and not piece.turn.is_over:
                is_unheard = piece.end == "finished" and not piece.turn.spans
                self._end(piece.turn, "failed" if is_unheard else piece.end, piece.failure)

    def stop(self, played_to_s: float, waiting: list[str]) -> tuple[str | None, int | None]:
        """Everything live ends, as far as it was played, and what waited never begins.

        Args:
            played_to_s: media time of the last sound that was sent.
            waiting: ids of the utterances that had not begun, in order.

        Returns:
            The first of them all, and the milliseconds of it that were played.
        """
        until = round(played_to_s * PLAYED_RATE_HZ)
        live, self._live = self._live, []
        for task, turn in list(self._pending.items()):
            if turn in live:
                task.cancel()
        stopped: list[tuple[str, int]] = []
        for turn in live:
            turn.is_over = True
            if turn.is_announced or turn.source != "microphone":
                stopped.append((turn.name, turn.played_ms(until)))
        stopped += [(name, 0) for name in waiting]
        name, played_ms = stopped[0] if stopped else (None, None)
        if stopped:
            self._emit(Interrupted(utterance=name, played_ms=played_ms))
            self._enter("interrupted")
        for stopped_name, stopped_ms in stopped:
            self._emit(Stopped(utterance=stopped_name, played_ms=stopped_ms, reason="interrupted"))
        return name, played_ms

    def settle(self, media_s: float) -> None:
        """After an interruption the face is at rest from this media time on."""

        def rest() -> None:
            if self.state == "interrupted":
                self._enter("idle")

        self._at(round(media_s * PLAYED_RATE_HZ), rest, None)

    def _announce(self, turn: Turn) -> None:
        if turn.start is None or turn.is_scheduled:
            return
        turn.is_scheduled = True

        def start() -> None:
            turn.is_announced = True
            self._emit(Started(utterance=turn.name, source=turn.source, media_ms=self.media_ms))
            self._enter("speaking")

        self._at(turn.start, start, turn)

    def _end(self, turn: Turn, reason: StopReason, failure: ErrorMessage | None) -> None:
        def stop() -> None:
            turn.is_over = True
            if turn in self._live:
                self._live.remove(turn)
            if failure is not None:
                self._emit(failure)
            self._emit(Stopped(utterance=turn.name, played_ms=turn.played_ms(), reason=reason))
            if self.state == "speaking" and not any(other.is_announced for other in self._live):
                self._enter("idle")

        self._at(turn.end, stop, turn)

    def _enter(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._emit(StateMessage(state=state, media_ms=self.media_ms))

    def _at(self, sample: int | None, act: Callable[[], None], turn: Turn | None) -> None:
        """Acts when a media sample plays; at once for None."""

        async def wait_and_act() -> None:
            if sample is not None:
                await self._clock.wait_until(sample / PLAYED_RATE_HZ)
            act()

        task = self._spawn(wait_and_act())
        self._pending[task] = turn
        task.add_done_callback(lambda done: self._pending.pop(done, None))


def frame_s(frame: int) -> float:
    """Media time of a frame, seconds."""
    return frame * FRAME_SAMPLES / PLAYED_RATE_HZ
