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
import logging
from collections.abc import Callable

import numpy as np

from models.timing import FPS, FRAME_SAMPLES
from streamer.engine import EngineChunk
from streamer.errors import EngineError, StepCancelled
from streamer.media.clock import happens_before
from streamer.protocol import ErrorMessage
from streamer.session.cutter import ChunkTimes, Cutter, Feed, is_no_stream
from streamer.session.figures import Figures
from streamer.session.hub import Hub
from streamer.session.parts import SessionParts
from streamer.session.sources import Utterance
from streamer.session.tasks import Tasks
from streamer.session.timeline import Timeline, frame_s

MAX_IN_ENGINE = 2
PUT_S = 0.01  # between the engine's end and the first frame being where it is played from
STILL_S = 0.5  # after an interruption the mouth moves no longer than this; where silence is not made yet, it is held
OUTAGE_S = 20.0  # an engine that makes nothing for so long is given up


log = logging.getLogger(__name__)


class ChunkLoop:
    """Keeps the engine fed and the playout filled."""

    def __init__(
        self,
        times: ChunkTimes,
        parts: SessionParts,
        cutter: Cutter,
        timeline: Timeline,
        figures: Figures,
        hub: Hub,
        tasks: Tasks,
    ):
        self._times = times
        self._parts = parts
        self._clock, self._playout, self._stream = parts.clock, parts.playout, parts.stream
        self._stream.on_lost = self._tell_lost
        self._cutter = cutter
        self._timeline = timeline
        self._figures = figures
        self._hub = hub
        self._tasks = tasks
        self._budget = times.new_budget()
        self._epoch = 0
        self._still_frame = 0  # from here on nothing that was said before the last interruption is seen
        self._in_engine: list[Feed] = []
        self._newest: Feed | None = None
        self._interrupted = asyncio.Event()
        self._is_down = False
        self._last_played_s = self._clock.media_s()
        self._left_out_blocks = 0  # of the caller's silence, by the budget's fall

    async def run(self, before_cut: Callable[[], None]) -> None:
        """Until it is cancelled.

        Args:
            before_cut: called before every cut: the moment for what happens between chunks.

        Raises:
            EngineError: if the engine makes nothing any more.
        """
        chunk = 0
        while True:
            if self._cutter.is_quiet:
                self._left_out_blocks += self._budget.fall()
            cut_s = self._times.cut_s(chunk, self._budget.seconds)
            if await happens_before(self._interrupted, self._clock, cut_s):
                await self._make_again()
                continue
            chunk += self._missed_chunks(cut_s)
            before_cut()
            if self._clock.media_s() - self._last_played_s > OUTAGE_S:
                raise EngineError("The engine does not make pictures any more.")
            if not self._parts.is_engine_ready():
                self._lost()
                self._cutter.skip()
            elif len(self._in_engine) >= MAX_IN_ENGINE:
                self._figures.chunks_skipped("behind")
                self._cutter.skip()
            else:
                await self._step(self._cutter.cut(chunk, self._epoch, self._now(), self._left_out_blocks))
                self._left_out_blocks = 0
            chunk += 1

    def interrupt(
        self, cause: str | None = None, is_kept: Callable[[Utterance], bool] = lambda utterance: False
    ) -> tuple[str | None, int | None]:
        """Silences and clears everything now; the face follows as soon as the engine can.

        Args:
            cause: it is counted under; None for no interruption of somebody's.
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
        self._interrupted.set()
        name, played_ms = self._timeline.stop(played_to_s, [utterance.name for utterance in waiting])
        if cause is not None and name is not None:
            self._figures.metrics.interrupts.labels(cause).inc()
        return name, played_ms

    def clear_streams(self) -> None:
        """Silences and forgets what agents appended.

        Beside a text or a file that is on its way as well, what has been cut of a stream still plays: under a second.
        """
        if self._timeline.is_live("stream") and not self._timeline.is_live("text", "file"):
            self.interrupt(is_kept=is_no_stream)
        for name in self._cutter.clear_streams():
            self._timeline.forget(name)

    def _now(self) -> float:
        """Wall time, on the clock's scale."""
        return self._clock.wall_s(self._clock.media_s())

    def _missed_chunks(self, cut_s: float) -> int:
        """How many chunks passed while the process was stopped."""
        missed = max(0, int((self._clock.media_s() - cut_s) / self._times.chunk_s))
        if missed:
            self._figures.chunks_skipped("stalled", missed)
            self._cutter.skip()
        return missed

    async def _step(self, feed: Feed) -> None:
        """Gives a chunk to the engine."""
        self._newest = feed
        self._in_engine.append(feed)
        self._tasks.spawn(self._finish(feed))
        await asyncio.sleep(0)  # its request is on its way before a rewind or the next one can be

    async def _finish(self, feed: Feed) -> None:
        """Waits for a chunk and puts it where it is played from."""
        first_s = frame_s(self._times.first_frame(feed.chunk))
        deadline_s = self._clock.wall_s(first_s) - PUT_S
        if feed.is_again:
            deadline_s = max(deadline_s, self._now() + self._times.compute_s)
        try:
            made = await self._stream.step(feed.model, deadline_s)
        except StepCancelled:
            return
        except EngineError as error:
            log.warning("chunk %d was not made: %s", feed.chunk, error)
            self._lose(feed)
            return
        finally:
            self._in_engine.remove(feed)
        try:
            if not feed.is_void:
                self._put(feed, made)
        finally:
            made.release()

    def _put(self, feed: Feed, made: EngineChunk) -> None:
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
        dropped = 0
        if len(frames):
            if feed.is_again:
                self._playout.drop_from(begin)
            dropped = self._playout.put(begin, frames, sound)
        if is_current:
            lost = range(begin * FRAME_SAMPLES, (begin + dropped) * FRAME_SAMPLES)
            self._timeline.commit(feed.pieces, feed.chunk * self._times.samples, lost)
        if feed.is_again:
            self._timeline.settle(frame_s(begin))
        else:
            self._judge(feed, made)
        first_s = self._clock.wall_s(frame_s(first))
        self._figures.chunk_made(made, feed.cut_s, max(self._now(), first_s))

    def _judge(self, feed: Feed, made: EngineChunk) -> None:
        """Tells the budget what a chunk took, from its cut to now."""
        took_s = self._now() - feed.cut_s
        compute_s = made.finished_s - made.started_s
        self._budget.record(took_s, None if made.rung == 0 else took_s - compute_s + made.full_s)

    async def _make_again(self) -> None:
        """After an interruption: the newest chunk is made again in silence, if that is sooner than the next one.

        The next chunk must not be late for it: twice the compute has to fit before that is shown.
        """
        self._interrupted.clear()
        newest = self._newest
        if newest is None or newest.is_void:
            self._timeline.settle(self._clock.media_s())
            return
        if not newest.pieces:  # silent already; what was said before may reach into its first frames
            self._timeline.settle(frame_s(self._times.first_frame(newest.chunk) + self._times.delay_frames))
            return
        next_s = frame_s(self._times.first_frame(newest.chunk + 1))
        is_time = self._clock.media_s() + 2 * self._times.compute_s <= next_s
        if is_time and self._parts.is_engine_ready() and await self._stream.rewind():
            newest.is_void = True
            await self._step(self._cutter.cut_silence(newest, self._epoch, self._now()))
        else:
            self._timeline.settle(next_s + self._times.delay_s)

    def _lose(self, feed: Feed) -> None:
        """The engine did not make this chunk."""
        if not feed.is_void and feed.epoch == self._epoch:
            self._timeline.lose(feed.pieces)
        self._lost()

    def _lost(self) -> None:
        """A chunk is missing for want of an engine."""
        self._figures.chunks_skipped("engine_lost")
        self._tell_lost()

    def _tell_lost(self) -> None:
        """Said once, until there are frames again."""
        if not self._is_down:
            self._is_down = True
            self._hub.emit(ErrorMessage(code="engine_lost", message="The engine stopped; it is being started again."))
