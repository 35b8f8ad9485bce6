"""The chunk loop: on every tick of the session's clock, sound is cut, the engine makes frames of it, both are played.

Frame k plays at media time k·40 ms. Chunk c is given the sound of F frames from frame F·c on and shows the F frames
from F·c − delay on. It is cut a budget before the first of those plays; `Budget` says how that follows the engine.

    media time      … F·c − delay               F·c                              F·(c+1) − delay …
    cut (sound known, engine starts) ──budget──> first frame plays

Overflow: at most two chunks are in the engine. On a tick with two still there, or while the engine is down, the chunk
is skipped: no text or file loses sound by it (it goes on later), the microphone's sound of that time is dropped, the
last frame is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from streamer.errors import EngineError
from streamer.media.sound import FPS, FRAME_SAMPLES
from streamer.protocol import ErrorMessage, Outbound
from streamer.session.budget import Budget
from streamer.session.cutter import ChunkTimes, Cutter, Feed
from streamer.session.metrics import STAGES, Metrics, StageStamps, Totals
from streamer.session.sources import Utterance
from streamer.session.timeline import Clock, Timeline, frame_s

MAX_IN_ENGINE = 2
PUT_S = 0.01  # between the engine's end and the first frame being where it is played from
STILL_S = 0.5  # after an interruption the mouth moves no longer than this; where silence is not made yet, it is held
OUTAGE_S = 20.0  # an engine that makes nothing for so long is given up


class EngineStreamLike(Protocol):
    """What is needed of `streamer.engine.client.EngineStream`."""

    on_lost: Callable[[], None]

    async def step(self, samples: np.ndarray, deadline_s: float) -> Any: ...
    async def rewind(self) -> bool: ...
    async def update(
        self,
        *,
        prompt: str | None = None,
        motion_energy: float | None = None,
        reference: np.ndarray | None = None,
    ) -> None: ...
    async def close(self) -> None: ...


class PlayoutLike(Protocol):
    """What is needed of `streamer.media.playout.Playout`."""

    stats: Any

    def put(self, first_frame: int, frames: np.ndarray, sound: np.ndarray, tag: object = None) -> int: ...
    def mute_from(self, media_s: float) -> float: ...
    def drop_from(self, frame: int) -> None: ...


log = logging.getLogger(__name__)


@dataclass
class ChunkCounts:
    """What became of a session's chunks.

    Attributes:
        late: finished after their deadline.
        skipped: never made.
        rung, rung_name: of the newest one.
        stamps: of the newest one that was played.
    """

    late: int = 0
    skipped: int = 0
    rung: int = 0
    rung_name: str = "full"
    stamps: StageStamps | None = None
    totals: Totals = field(default_factory=Totals)


class ChunkLoop:
    """Keeps the engine fed and the playout filled.

    Args:
        is_engine_ready: whether steps can be taken now.
        encode_ms: what encoding a frame takes, for the stamps.
        cancelled: what a rewound step raises.
    """

    def __init__(
        self,
        times: ChunkTimes,
        budget: Budget,
        clock: Clock,
        stream: EngineStreamLike,
        playout: PlayoutLike,
        cutter: Cutter,
        timeline: Timeline,
        metrics: Metrics,
        *,
        is_engine_ready: Callable[[], bool],
        encode_ms: Callable[[], float],
        emit: Callable[[Outbound], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        cancelled: type[Exception],
    ):
        self.counts = ChunkCounts()
        self.before_cut: Callable[[], None] = lambda: None
        """Called before every cut: the moment for what happens between chunks."""
        self._times = times
        self._clock = clock
        self._stream = stream
        stream.on_lost = self._tell_lost
        self._playout = playout
        self._cutter = cutter
        self._timeline = timeline
        self._metrics = metrics
        self._is_engine_ready = is_engine_ready
        self._encode_ms = encode_ms
        self._emit = emit
        self._spawn = spawn
        self._cancelled = cancelled
        self._epoch = 0
        self._still_frame = 0  # from here on nothing that was said before the last interruption is seen
        self._in_engine: list[Feed] = []
        self._newest: Feed | None = None
        self._wake = asyncio.Event()
        self._is_down = False
        self._last_played_s = clock.media_s()
        self._budget = budget
        self._left_out_blocks = 0  # of the caller's silence, by the budget's fall

    async def run(self) -> None:
        """Until it is cancelled.

        Raises:
            EngineError: if the engine makes nothing any more.
        """
        chunk = 0
        while True:
            if self._cutter.is_quiet:
                self._left_out_blocks += self._budget.fall()
            cut_s = self._times.cut_s(chunk, self._budget.seconds)
            if await self._interrupted_before(cut_s):
                await self._make_again()
                continue
            late_s = self._clock.media_s() - cut_s
            if late_s >= self._times.chunk_s:  # the process was stopped for a while
                missed = int(late_s / self._times.chunk_s)
                chunk += missed
                self._skip("stalled", missed)
                self._cutter.skip()
            self.before_cut()
            if self._clock.media_s() - self._last_played_s > OUTAGE_S:
                raise EngineError("The engine does not make pictures any more.")
            if not self._is_engine_ready():
                self._lost()
                self._cutter.skip()
            elif len(self._in_engine) >= MAX_IN_ENGINE:
                self._skip("behind")
                self._cutter.skip()
            else:
                await self._step(self._cutter.cut(chunk, self._epoch, self._now(), self._left_out_blocks))
                self._left_out_blocks = 0
            chunk += 1

    def interrupt(
        self, is_kept: Callable[[Utterance], bool] = lambda utterance: False
    ) -> tuple[str | None, int | None]:
        """Silences and clears everything now; the face follows as soon as the engine can.

        Args:
            is_kept: what may stay in the queue.

        Returns:
            The utterance that was playing, and the milliseconds of it that were really played; (None, None) if
            there was none.
        """
        played_to_s = self._playout.mute_from(max(0.0, self._clock.media_s()))
        waiting = self._cutter.interrupt(is_kept)
        if not self._timeline.is_speaking and not waiting:
            return None, None
        self._epoch += 1
        self._still_frame = max(0, int((self._clock.media_s() + STILL_S) * FPS))
        self._playout.drop_from(self._still_frame)
        self._wake.set()
        return self._timeline.stop(played_to_s, [utterance.name for utterance in waiting])

    def _now(self) -> float:
        """Wall time, on the clock's scale."""
        return self._clock.wall_s(self._clock.media_s())

    async def _interrupted_before(self, media_s: float) -> bool:
        """Waits for a media time; true at once if there is an interruption to deal with."""
        if self._wake.is_set():
            return True
        waits = [asyncio.ensure_future(self._clock.wait_until(media_s)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return self._wake.is_set()

    async def _step(self, feed: Feed) -> None:
        """Gives a chunk to the engine."""
        self._newest = feed
        self._in_engine.append(feed)
        self._spawn(self._finish(feed))
        await asyncio.sleep(0)  # its request is on its way before a rewind or the next one can be

    async def _finish(self, feed: Feed) -> None:
        """Waits for a chunk and puts it where it is played from."""
        first_s = frame_s(self._times.first_frame(feed.chunk))
        deadline_s = self._clock.wall_s(first_s) - PUT_S
        if feed.is_again:
            deadline_s = max(deadline_s, self._now() + self._times.compute_s)
        try:
            made = await self._stream.step(feed.model, deadline_s)
        except self._cancelled:
            return
        except EngineError as error:
            log.warning("chunk %d was not made: %s", feed.chunk, error)
            self._lose(feed)
            return
        finally:
            self._in_engine.remove(feed)
        with contextlib.closing(_Releasing(made)):
            if not feed.is_void:
                self._put(feed, made)

    def _put(self, feed: Feed, made: Any) -> None:
        """Hands frames and sound to the playout, and says so."""
        self._is_down = False
        self._last_played_s = self._clock.media_s()
        first, frames, sound = self._times.first_frame(feed.chunk), made.frames, feed.played
        is_current = feed.epoch == self._epoch
        if not is_current:
            sound = np.zeros_like(sound)
        # Frames before 0 are nobody's. Of a chunk made again, what has been played already stays as it was.
        begin = max(first, 0, int(self._clock.media_s() * FPS) + 1) if feed.is_again else max(first, 0)
        if feed.has_old_mouth and self._still_frame < first + self._times.delay_frames:
            begin = max(begin, first + self._times.delay_frames)
        end = len(frames) if is_current else min(max(0, self._still_frame - first), len(frames))
        frames, sound = frames[begin - first : end], sound[(begin - first) * FRAME_SAMPLES : end * FRAME_SAMPLES]
        stamps = self._stamp(feed, made)
        dropped = 0
        if len(frames):
            if feed.is_again:
                self._playout.drop_from(begin)
            dropped = self._playout.put(begin, frames, sound, tag=stamps)
        if is_current:
            lost = range(begin * FRAME_SAMPLES, (begin + dropped) * FRAME_SAMPLES)
            self._timeline.commit(feed.pieces, feed.chunk * self._times.samples, lost)
        if feed.is_again:
            self._timeline.settle(frame_s(begin))
        else:
            self._judge(feed, made)
        self.counts.late += made.is_late
        self.counts.rung, self.counts.rung_name = int(made.rung), made.rung.name.lower()
        self.counts.stamps = stamps
        self._metrics.chunk_played(stamps, self.counts.rung_name, made.is_late)

    def _judge(self, feed: Feed, made: Any) -> None:
        """Tells the budget what a chunk took, from its cut to now."""
        took_s = self._now() - feed.cut_s
        compute_s = made.finished_s - made.started_s
        self._budget.record(took_s, None if made.rung == 0 else took_s - compute_s + made.full_s)

    def _stamp(self, feed: Feed, made: Any) -> StageStamps:
        """Where the time of this chunk went; the stages add up to its latency."""
        now = self._now()
        first_s = self._clock.wall_s(frame_s(self._times.first_frame(feed.chunk)))
        waited_s = (made.started_s - feed.cut_s) + (max(now, first_s) - made.finished_s)
        compute_ms = 1000 * (made.finished_s - made.started_s)
        spent = dict.fromkeys(STAGES, 0.0) | {name: made.stage_ms[name] for name in made.stage_ms if name in STAGES}
        spent["other"] = max(0.0, compute_ms - sum(spent.values()))
        spent["audio_wait"] = 1000 * self._times.chunk_s
        spent["queue"] = 1000 * max(0.0, waited_s)
        spent["look_ahead"] = 1000 * self._times.delay_frames / FPS
        spent["encode"] = self._encode_ms()
        return StageStamps(
            feed.chunk, int(made.rung), spent, feed.cut_s, made.queued_s, made.started_s, made.finished_s, now
        )

    async def _make_again(self) -> None:
        """After an interruption: the newest chunk is made again in silence, if that is sooner than the next one.

        The next chunk must not be late for it: twice the compute has to fit before that is shown.
        """
        self._wake.clear()
        newest = self._newest
        if newest is None or newest.is_void:
            self._timeline.settle(self._clock.media_s())
            return
        if not newest.pieces:  # silent already; what was said before may reach into its first frames
            self._timeline.settle(frame_s(self._times.first_frame(newest.chunk) + self._times.delay_frames))
            return
        next_s = frame_s(self._times.first_frame(newest.chunk + 1))
        is_time = self._clock.media_s() + 2 * self._times.compute_s <= next_s
        if is_time and self._is_engine_ready() and await self._stream.rewind():
            newest.is_void = True
            await self._step(self._cutter.cut_silence(newest, self._epoch, self._now()))
        else:
            self._timeline.settle(next_s + frame_s(self._times.delay_frames))

    def _lose(self, feed: Feed) -> None:
        """The engine did not make this chunk."""
        if not feed.is_void and feed.epoch == self._epoch:
            self._timeline.lose(feed.pieces)
        self._lost()

    def _lost(self) -> None:
        """A chunk is missing for want of an engine."""
        self._skip("engine_lost")
        self._tell_lost()

    def _tell_lost(self) -> None:
        """Said once, until there are frames again."""
        if not self._is_down:
            self._is_down = True
            self._emit(ErrorMessage(code="engine_lost", message="The engine stopped; it is being started again."))

    def _skip(self, reason: str, count: int = 1) -> None:
        self.counts.skipped += count
        self._metrics.skipped_chunks.labels(reason).inc(count)


class _Releasing:
    """A chunk of the engine whose memory is given back at the end of a `with`."""

    def __init__(self, made: Any):
        self._made = made

    def close(self) -> None:
        self._made.release()
