"""Chunks of sound: when they are cut, what is in them, and who speaks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.timing import FPS, FRAME_SAMPLES, FRAMES_PER_LATENT
from streamer.media.hearing import Hearing
from streamer.media.microphone import Resampler16k
from streamer.media.sound import BLOCK_SAMPLES, to_model
from streamer.session.budget import MAX_CHUNKS_LONG, Budget
from streamer.session.metrics import Metrics
from streamer.session.sources import Queue, StreamUtterance, Utterance
from streamer.session.timeline import Piece, Timeline, Turn, frame_s

MIN_RTF, MAX_RTF = 0.1, 0.75  # what is hardly real time is the ladder's business, not the budget's
_FEED_SAMPLES_PER_LATENT = FRAMES_PER_LATENT * FRAME_SAMPLES


@dataclass(frozen=True)
class ChunkTimes:
    """What chunks of a session are; fixed for its life.

    Attributes:
        latents: of a chunk, n.
        delay_frames: the picture is behind the sound it is given by these.
        compute_s: what a chunk takes in the engine, as measured when that started.
    """

    latents: int
    delay_frames: int
    compute_s: float

    @classmethod
    def of_engine(cls, latents: int, delay_frames: int, warm_rtf: float) -> ChunkTimes:
        """Times for an engine that takes `warm_rtf` seconds for a second of sound."""
        chunk_s = latents * FRAMES_PER_LATENT / FPS
        compute_s = min(max(warm_rtf, MIN_RTF), MAX_RTF) * chunk_s
        return cls(latents, delay_frames, compute_s)

    @property
    def frames(self) -> int:
        return self.latents * FRAMES_PER_LATENT

    @property
    def samples(self) -> int:
        """Of played sound."""
        return self.latents * _FEED_SAMPLES_PER_LATENT

    @property
    def chunk_s(self) -> float:
        return self.frames / FPS

    @property
    def max_frames_ahead(self) -> int:
        """Frames a playout must have room for: a chunk, what is played before it, and one being put again."""
        return 2 * self.frames + int(MAX_CHUNKS_LONG * self.frames) + 2

    def first_frame(self, chunk: int) -> int:
        """First frame a chunk shows."""
        return chunk * self.frames - self.delay_frames

    def cut_s(self, chunk: int, budget_s: float) -> float:
        """Media time at which its sound is cut."""
        return frame_s(self.first_frame(chunk)) - budget_s

    @property
    def first_cut_s(self) -> float:
        """Media time at which a session begins."""
        return self.cut_s(0, self.new_budget().seconds)

    @property
    def delay_s(self) -> float:
        return self.delay_frames / FPS

    def new_budget(self) -> Budget:
        """A session's, at its start."""
        return Budget(self.compute_s, self.chunk_s)


@dataclass(eq=False)
class Feed:
    """The sound of a chunk on its way.

    Attributes:
        chunk: number of the chunk.
        model: float32 [n·2560], 16 kHz, what the models hear.
        played: int16 [F·1920], 48 kHz, of the frames the chunk shows.
        pieces: who speaks in it.
        epoch: of the session; sound of an epoch before the last interruption is not played any more.
        tail: int16, what was left of the chunk before, in case this one is made again.
        has_old_mouth: its first `delay` frames still show what was said before an interruption.
        is_again: it replaces a chunk that was rewound.
        is_void: it was rewound itself.
    """

    chunk: int
    model: np.ndarray
    played: np.ndarray
    pieces: list[Piece]
    epoch: int
    tail: np.ndarray
    cut_s: float
    has_old_mouth: bool = False
    is_again: bool = False
    is_void: bool = False


class Cutter:
    """Cuts a chunk's sound out of what is queued, or of the microphone, or of silence."""

    def __init__(self, times: ChunkTimes, timeline: Timeline, metrics: Metrics):
        self.queue = Queue()
        self.hearing: Hearing | None = None
        self.is_microphone_on = True
        self._times = times
        self._timeline = timeline
        self._metrics = metrics
        self._to_16k = Resampler16k()
        self._tail = np.zeros(times.delay_frames * FRAME_SAMPLES, np.int16)
        self._current: tuple[Utterance, Turn] | None = None
        self._cleared: Turn | None = None  # of a stream, whose end is yet to be told
        self._caller: Turn | None = None
        self._caller_number = 0
        self._has_old_mouth = False
        self._is_caller_held = False  # interrupted: stays silent until the caller has paused

    @property
    def is_utterance_playing(self) -> bool:
        return self._current is not None

    @property
    def is_quiet(self) -> bool:
        """Nobody speaks and nothing waits to be said."""
        return self._current is None and self._caller is None and not len(self.queue)

    def cut(self, chunk: int, epoch: int, cut_s: float, left_out_blocks: int = 0) -> Feed:
        """The sound of a chunk, from now.

        Args:
            left_out_blocks: of 20 ms of the caller's sound, heard before it and not played.
        """
        sound = np.zeros(self._times.samples, np.int16)
        pieces, has_utterance = self._say(sound)
        if has_utterance:
            pieces = self._end_caller() + pieces
            model = to_model(self._to_16k.push(sound))
        elif self.hearing is not None and self.is_microphone_on:
            sound, model, pieces = self._hear(pieces, left_out_blocks)
        else:
            pieces += self._end_caller()
            model = to_model(self._to_16k.push(sound))
        return self._feed(chunk, sound, model, pieces, epoch, cut_s)

    def cut_silence(self, replaced: Feed, epoch: int, cut_s: float) -> Feed:
        """Silence in place of a chunk that was rewound."""
        model = np.zeros(len(replaced.model), np.float32)
        feed = self._feed(replaced.chunk, np.zeros(self._times.samples, np.int16), model, [], epoch, cut_s)
        feed.is_again = True
        return feed

    def skip(self) -> None:
        """A chunk passes without sound being cut."""
        if self.hearing is not None:
            self.hearing.skip(self._times.samples)

    def interrupt(self, is_kept: Callable[[Utterance], bool]) -> list[Utterance]:
        """Forgets what is being said, and of what is queued all that is not kept; returns what had not begun."""
        self._tail = np.zeros_like(self._tail)
        self._to_16k = Resampler16k()  # it holds a millisecond of what was said
        self._has_old_mouth = True
        self._is_caller_held = self._caller is not None
        self._current = self._cleared = self._caller = None
        return [utterance for utterance in self.queue.clear(is_kept) if not utterance.is_started]

    def clear_streams(self) -> list[str]:
        """Forgets agents' streams, all but what has been cut; returns the names of those that had not begun."""
        cleared = self.queue.clear(is_kept=is_no_stream)
        if self._current is not None and self._current[0] in cleared:
            self._cleared, self._current = self._current[1], None
        return [stream.name for stream in cleared if not stream.is_started]

    def _feed(
        self, chunk: int, sound: np.ndarray, model: np.ndarray, pieces: list[Piece], epoch: int, cut_s: float
    ) -> Feed:
        joined = np.concatenate([self._tail, sound])
        feed = Feed(chunk, model, joined[: len(sound)], pieces, epoch, self._tail, cut_s, self._has_old_mouth)
        self._tail = joined[len(sound) :]
        self._has_old_mouth = False
        return feed

    def _say(self, sound: np.ndarray) -> tuple[list[Piece], bool]:
        """Writes what is queued into the sound; who speaks, and whether an utterance is at it."""
        cleared, self._cleared = self._cleared, None
        pieces = [] if cleared is None else [Piece(cleared, 0, 0, end="interrupted")]
        filled = 0
        while filled < len(sound):
            utterance = self.queue.head
            if utterance is None:
                break
            if isinstance(utterance, StreamUtterance):
                utterance.close_if_forgotten(time.monotonic())
            if not utterance.is_ready:
                break
            block = utterance.take(len(sound) - filled)
            sound[filled : filled + len(block)] = block
            piece = Piece(self._turn_of(utterance), filled, len(block))
            pieces.append(piece)
            filled += len(block)
            if not utterance.is_exhausted:
                if filled < len(sound):
                    self._metrics.underruns.inc()
                break
            piece.end, piece.failure = "finished" if utterance.failure is None else "failed", utterance.failure
            self.queue.remove(utterance)
            self._current = None
        return pieces, filled > 0 or self._current is not None

    def _turn_of(self, utterance: Utterance) -> Turn:
        if self._current is None or self._current[0] is not utterance:
            turn = Turn(utterance.name, utterance.source)
            self._timeline.begin(turn)
            self._current = (utterance, turn)
        return self._current[1]

    def _hear(self, pieces: list[Piece], left_out_blocks: int) -> tuple[np.ndarray, np.ndarray, list[Piece]]:
        """The caller's chunk: sound, model sound, and who speaks in it."""
        assert self.hearing is not None
        sound, model, is_open = self.hearing.take(self._times.samples, left_out_blocks * BLOCK_SAMPLES)
        if not is_open.any():
            self._is_caller_held = False
            return sound, model, pieces + self._end_caller()
        if self._is_caller_held:
            return np.zeros_like(sound), np.zeros_like(model), pieces
        if self._caller is None:
            self._caller_number += 1
            self._caller = Turn(f"microphone-{self._caller_number}", "microphone")
            self._timeline.begin(self._caller)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], is_open, [False]])))
        for first, end in edges.reshape(-1, 2):
            pieces.append(Piece(self._caller, int(first) * BLOCK_SAMPLES, int(end - first) * BLOCK_SAMPLES))
        return sound, model, pieces

    def _end_caller(self) -> list[Piece]:
        """A whole chunk without a word, or something else is said: the caller's utterance is over."""
        turn, self._caller = self._caller, None
        return [] if turn is None else [Piece(turn, 0, 0, end="finished")]


def is_no_stream(utterance: Utterance) -> bool:
    """Whether it is a text or a file."""
    return not isinstance(utterance, StreamUtterance)
