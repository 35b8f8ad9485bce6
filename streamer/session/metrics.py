"""Figures of the server for Prometheus, in a registry of their own.

Nothing is labelled by session: the number of series stays the same however many sessions come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Stages of a chunk in the order in which sound passes them; `latency` of a chunk is their sum.
STAGES = (
    "audio_wait",  # until the chunk's sound is complete: the chunk's length
    "queue",  # before and after the engine: for its turn, and for its time to be played
    "audio",
    "lr_a2v",
    "lr_decode",
    "pose",
    "low_pass",
    "animator",
    "refiner",
    "decode",
    "convert",
    "other",  # of the engine, in no stage
    "look_ahead",  # the picture shows the sound this much later
    "encode",
)
_BUCKETS_MS = (1, 2, 5, 10, 20, 40, 80, 120, 200, 300, 400, 500, 700, 1000, 2000)


@dataclass(frozen=True)
class StageStamps:
    """Where the time of a chunk went; carried by each of its frames.

    Attributes:
        chunk: number of the chunk in its session.
        rung: of the ladder it was made on.
        stage_ms: milliseconds by stage of `STAGES`.
        cut_s, queued_s, started_s, finished_s, put_s: wall times (monotonic): its sound was cut, it was given to the
            engine, work began, work ended, its frames were put where they are played from.
    """

    chunk: int
    rung: int
    stage_ms: dict[str, float]
    cut_s: float
    queued_s: float
    started_s: float
    finished_s: float
    put_s: float

    @property
    def latency_ms(self) -> float:
        """From the first sample of the chunk to its picture being sent, milliseconds."""
        return sum(self.stage_ms.values())


class SessionFigures(Protocol):
    """What the gauges read of a session when they are asked."""

    @property
    def rung(self) -> int: ...
    @property
    def viewers(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def av_offset_ms(self) -> float | None: ...
    @property
    def bitrate_bps(self) -> float: ...


@dataclass
class Totals:
    """Counts of one session that only grow; the difference since the last look goes into the counters.

    Attributes:
        encodes: frames encoded, by codec.
    """

    held_frames: int = 0
    dropped_frames: int = 0
    packets_lost: int = 0
    encodes: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)


class Metrics:
    """All metrics. One object a server.

    Args:
        sessions: gives the live sessions, for the gauges.
        engine_restarts: gives the count of engine restarts.
    """

    def __init__(
        self,
        sessions: Callable[[], Iterable[SessionFigures]] = tuple,
        engine_restarts: Callable[[], int] = lambda: 0,
    ):
        self.registry = CollectorRegistry()
        self._sessions = sessions
        registry = self.registry
        self._stage_ms = Histogram(
            "avatar_stage_milliseconds",
            "Time of a chunk by stage",
            ["stage"],
            buckets=_BUCKETS_MS,
            registry=registry,
        )
        for stage in STAGES:
            self._stage_ms.labels(stage)
        self._latency_ms = Histogram(
            "avatar_latency_milliseconds",
            "From the first sample of a chunk to its picture being sent: the sum of the stages",
            buckets=(*_BUCKETS_MS, 3000),
            registry=registry,
        )
        self._chunks = Counter("avatar_chunks", "Chunks played, by rung of the ladder", ["rung"], registry=registry)
        self.deadline_misses = Counter("avatar_deadline_misses", "Chunks finished too late", registry=registry)
        self.skipped_chunks = Counter("avatar_skipped_chunks", "Chunks never made", ["reason"], registry=registry)
        for reason in ("behind", "engine_lost", "stalled"):
            self.skipped_chunks.labels(reason)
        self._held = Counter("avatar_held_frames", "Times the last frame was held", registry=registry)
        self._dropped = Counter("avatar_dropped_frames", "Frames dropped because they were late", registry=registry)
        self._lost = Counter("avatar_packets_lost", "Packets that receivers reported lost", registry=registry)
        self._encoded = Counter("avatar_frames_encoded", "Frames encoded, by codec", ["codec"], registry=registry)
        self.sessions_ended = Counter("avatar_sessions_ended", "Ended sessions", ["reason"], registry=registry)
        self.sessions_refused = Counter("avatar_sessions_refused", "Refused for want of room", registry=registry)
        self.errors = Counter("avatar_errors", "Errors told to clients, by code", ["code"], registry=registry)
        self.interrupts = Counter("avatar_interrupts", "Interruptions of speech", ["cause"], registry=registry)
        self.underruns = Counter("avatar_underruns", "Chunks cut while speech had too little sound", registry=registry)
        self._gauges(engine_restarts)

    def _gauges(self, engine_restarts: Callable[[], int]) -> None:
        def gauge(name: str, text: str, read: Callable[[], float]) -> None:
            Gauge(name, text, registry=self.registry).set_function(read)

        def every(name: str) -> list[float]:
            found = (getattr(session, name) for session in self._sessions())
            return [float(figure) for figure in found if figure is not None]

        gauge("avatar_sessions", "Sessions alive", lambda: len(list(self._sessions())))
        gauge("avatar_viewers", "Viewers of all sessions", lambda: sum(every("viewers")))
        gauge("avatar_rung", "Lowest rung of the ladder any session is on", lambda: max(every("rung"), default=0))
        gauge("avatar_fps_out", "Frames a second of the slowest session", lambda: min(every("fps"), default=0))
        gauge("avatar_bitrate_bps", "Bits a second encoded, all sessions", lambda: sum(every("bitrate_bps")))
        gauge("avatar_tasks", "asyncio tasks of the server", lambda: len(asyncio.all_tasks()))
        gauge("avatar_engine_restarts", "Times the engine process was started again", engine_restarts)
        gauge(
            "avatar_av_offset_milliseconds",
            "Picture behind sound as sent, of the session where it is largest",
            lambda: max(every("av_offset_ms"), key=abs, default=0),
        )

    def chunk_played(self, stamps: StageStamps, rung_name: str, is_late: bool) -> None:
        """Counts a chunk."""
        for stage, spent in stamps.stage_ms.items():
            self._stage_ms.labels(stage).observe(spent)
        self._latency_ms.observe(stamps.latency_ms)
        self._chunks.labels(rung_name).inc()
        if is_late:
            self.deadline_misses.inc()

    def update(self, totals: Totals) -> None:
        """Adds what a session's counts have grown by since it was last looked at."""
        for name, counter in (
            ("held_frames", self._held),
            ("dropped_frames", self._dropped),
            ("packets_lost", self._lost),
        ):
            self._add(counter, totals, name, getattr(totals, name))
        for codec, encodes in totals.encodes.items():
            self._add(self._encoded.labels(codec), totals, codec, encodes)

    @staticmethod
    def _add(counter: Counter, totals: Totals, name: str, now: int) -> None:
        counter.inc(max(0, now - totals.seen.get(name, 0)))
        totals.seen[name] = now

    def text(self) -> bytes:
        """Everything in Prometheus' text format; called within the event loop, whose tasks are counted."""
        return generate_latest(self.registry)
