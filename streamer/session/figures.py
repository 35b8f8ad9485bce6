"""What a session tells of itself: once a second to its listeners, and to Prometheus."""

from __future__ import annotations

from prometheus_client import Counter

from streamer.engine import EngineChunk
from streamer.protocol import MetricsMessage
from streamer.session.audience import Audience
from streamer.session.cutter import ChunkTimes
from streamer.session.hub import Hub
from streamer.session.metrics import STAGES, Metrics
from streamer.session.parts import SessionParts

REPORT_S = 1.0


class Figures:
    """The counts of a session.

    Attributes:
        rung, rung_name: of the ladder, of the newest chunk.
        late_chunks: finished after their deadline.
        skipped_chunks: never made.
        stage_ms: where the time of the newest chunk went, by stage of `STAGES`; empty before the first.
        bitrate_bps: encoded in the last second.
    """

    def __init__(self, times: ChunkTimes, parts: SessionParts, audience: Audience, metrics: Metrics):
        self.metrics = metrics
        self.rung, self.rung_name = 0, "full"
        self.late_chunks = 0
        self.skipped_chunks = 0
        self.stage_ms: dict[str, float] = {}
        self.bitrate_bps = 0.0
        self._times = times
        self._clock, self._playout, self._broadcast = parts.clock, parts.playout, parts.broadcast
        self._audience = audience
        self._bytes_seen = 0
        self._lost_before = 0  # by connections that have ended
        self._lost: dict[str, int] = {}
        self._counted: dict[Counter, int] = {}  # how much of this session is in the counters

    @property
    def viewers(self) -> int:
        return self._audience.viewers

    @property
    def fps(self) -> float:
        return self._broadcast.stats.fps_out

    @property
    def av_offset_ms(self) -> float:
        return self._broadcast.stats.av_offset_ms

    @property
    def latency_ms(self) -> float | None:
        """From the first sample of the newest chunk to its picture being sent; None before the first."""
        return sum(self.stage_ms.values()) if self.stage_ms else None

    def chunk_made(self, made: EngineChunk, cut_s: float, shown_s: float) -> None:
        """Notes a chunk.

        Args:
            cut_s, shown_s: wall times: its sound was cut, its first frame plays.
        """
        spent = dict.fromkeys(STAGES, 0.0) | {name: made.stage_ms[name] for name in made.stage_ms if name in STAGES}
        spent["other"] = max(0.0, 1000 * (made.finished_s - made.started_s) - sum(spent.values()))
        spent["audio_wait"] = 1000 * self._times.chunk_s
        spent["queue"] = 1000 * max(0.0, made.started_s - cut_s + shown_s - made.finished_s)
        spent["look_ahead"] = 1000 * self._times.delay_s
        spent["encode"] = self._broadcast.stats.encode_ms
        self.stage_ms = spent
        self.rung, self.rung_name = int(made.rung), made.rung.name.lower()
        self.late_chunks += made.is_late
        self.metrics.chunk_played(spent, self.rung_name, made.is_late)

    def chunks_skipped(self, reason: str, count: int = 1) -> None:
        """Notes chunks that are never made."""
        self.skipped_chunks += count
        self.metrics.skipped_chunks.labels(reason).inc(count)

    async def report(self, hub: Hub) -> None:
        """Tells everybody once a second."""
        media_s = self._clock.media_s()
        while True:
            media_s = max(media_s + REPORT_S, self._clock.media_s())
            await self._clock.wait_until(media_s)
            hub.emit(self.read(), is_optional=True)

    def read(self) -> MetricsMessage:
        """The figures of now; to be called once a second."""
        sent, playout = self._broadcast.stats, self._playout.stats
        self.bitrate_bps = 8 * (sent.bytes - self._bytes_seen) / REPORT_S
        self._bytes_seen = sent.bytes
        peers = {ident: connection.peer.stats() for ident, connection in self._audience.connections.items()}
        round_trips = [peer.rtt_ms for peer in peers.values() if peer.rtt_ms is not None]
        self._lost_before += sum(lost for ident, lost in self._lost.items() if ident not in peers)
        self._lost = {ident: peer.packets_lost for ident, peer in peers.items()}
        packets_lost = self._lost_before + sum(self._lost.values())
        self._count(self.metrics.held_frames, playout.frames_held)
        self._count(self.metrics.dropped_frames, playout.frames_dropped)
        self._count(self.metrics.packets_lost, packets_lost)
        for codec, encodes in sent.encodes.items():
            self._count(self.metrics.frames_encoded.labels(codec), encodes)
        return MetricsMessage(
            fps=round(sent.fps_out, 1),
            latency_ms=None if self.latency_ms is None else round(self.latency_ms, 1),
            av_offset_ms=round(sent.av_offset_ms, 1),
            rung=self.rung,
            rung_name=self.rung_name,
            bitrate_kbps=round(self.bitrate_bps / 1000, 1),
            packets_lost=packets_lost,
            rtt_ms=round(max(round_trips), 1) if round_trips else None,
            late_chunks=self.late_chunks,
            held_frames=playout.frames_held,
            dropped_frames=playout.frames_dropped,
            stages={name: round(spent, 1) for name, spent in self.stage_ms.items()},
            queue_ms=round(self.stage_ms["queue"], 1) if self.stage_ms else None,
        )

    def _count(self, counter: Counter, now: int) -> None:
        """Adds what a count of this session has grown by."""
        counter.inc(max(0, now - self._counted.get(counter, 0)))
        self._counted[counter] = now
