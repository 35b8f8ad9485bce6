"""Figures of the server for Prometheus, in a registry of their own.

Nothing is labelled by session: the number of series stays the same however many sessions come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
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
    "raster",  # of a portrait, as the three that follow
    "warp",
    "eyes",
    "mouth",
    "convert",
    "other",  # of the engine, in no stage
    "look_ahead",  # the picture shows the sound this much later
    "encode",
)
_BUCKETS_MS = (1, 2, 5, 10, 20, 40, 80, 120, 200, 300, 400, 500, 700, 1000, 2000)


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


class Metrics:
    """All metrics. One object a server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self.held_frames = Counter("avatar_held_frames", "Times the last frame was held", registry=registry)
        self.dropped_frames = Counter("avatar_dropped_frames", "Frames that were too late", registry=registry)
        self.packets_lost = Counter("avatar_packets_lost", "Packets that receivers reported lost", registry=registry)
        self.frames_encoded = Counter("avatar_frames_encoded", "Frames encoded, by codec", ["codec"], registry=registry)
        self.sessions_ended = Counter("avatar_sessions_ended", "Ended sessions", ["reason"], registry=registry)
        self.sessions_refused = Counter("avatar_sessions_refused", "Refused for want of room", registry=registry)
        self.connections_lost = Counter(
            "avatar_connections_lost", "WebRTC connections that ended by themselves", ["reason"], registry=registry
        )
        for reason in ("timeout", "closed", "failed", "dtls"):
            self.connections_lost.labels(reason)
        self.errors = Counter("avatar_errors", "Errors told to clients, by code", ["code"], registry=registry)
        self.interrupts = Counter("avatar_interrupts", "Interruptions of speech", ["cause"], registry=registry)
        self.underruns = Counter("avatar_underruns", "Chunks cut while speech had too little sound", registry=registry)

    def watch(self, sessions: Callable[[], Iterable[SessionFigures]], engine_restarts: Callable[[], int]) -> None:
        """Adds the gauges.

        Args:
            sessions: gives the figures of the live sessions.
            engine_restarts: gives the count of engine restarts.
        """

        def gauge(name: str, text: str, read: Callable[[], float]) -> None:
            Gauge(name, text, registry=self.registry).set_function(read)

        def every(name: str) -> list[float]:
            found = (getattr(session, name) for session in sessions())
            return [float(figure) for figure in found if figure is not None]

        gauge("avatar_sessions", "Sessions alive", lambda: len(list(sessions())))
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

    def chunk_played(self, stage_ms: dict[str, float], rung_name: str, is_late: bool) -> None:
        """Counts a chunk, of milliseconds by stage."""
        for stage, spent in stage_ms.items():
            self._stage_ms.labels(stage).observe(spent)
        self._latency_ms.observe(sum(stage_ms.values()))
        self._chunks.labels(rung_name).inc()
        if is_late:
            self.deadline_misses.inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format; called within the event loop, whose tasks are counted."""
        return generate_latest(self.registry)
