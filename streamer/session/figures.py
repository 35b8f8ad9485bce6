"""What a session tells of itself once a second."""

from __future__ import annotations

from collections.abc import Iterable

from streamer.protocol import MetricsMessage
from streamer.session.chunks import ChunkCounts, PlayoutLike
from streamer.session.metrics import Metrics
from streamer.session.parts import BroadcastLike, Connection

REPORT_S = 1.0


class Figures:
    """Reads the counts of a session, for the `metrics` event and for Prometheus.

    Attributes:
        bitrate_bps: encoded in the last second.
    """

    def __init__(self, broadcast: BroadcastLike, playout: PlayoutLike, counts: ChunkCounts, metrics: Metrics):
        self.bitrate_bps = 0.0
        self._broadcast = broadcast
        self._playout = playout
        self._counts = counts
        self._metrics = metrics
        self._bytes_seen = 0
        self._lost_before = 0  # by connections that have ended
        self._lost: dict[str, int] = {}

    def read(self, connections: Iterable[Connection]) -> MetricsMessage:
        """The figures of now; to be called once a `REPORT_S`."""
        sent, playout, counts = self._broadcast.stats, self._playout.stats, self._counts
        self.bitrate_bps = 8 * (sent.bytes - self._bytes_seen) / REPORT_S
        self._bytes_seen = sent.bytes
        peers = {connection.ident: connection.peer.stats() for connection in connections}
        round_trips = [peer.rtt_ms for peer in peers.values() if peer.rtt_ms is not None]
        self._lost_before += sum(lost for ident, lost in self._lost.items() if ident not in peers)
        self._lost = {ident: peer.packets_lost for ident, peer in peers.items()}
        totals, stamps = counts.totals, counts.stamps
        totals.held_frames, totals.dropped_frames = playout.frames_held, playout.frames_dropped
        totals.encodes = dict(sent.encodes)
        totals.packets_lost = self._lost_before + sum(self._lost.values())
        self._metrics.update(totals)
        return MetricsMessage(
            fps=round(sent.fps_out, 1),
            latency_ms=None if stamps is None else round(stamps.latency_ms, 1),
            av_offset_ms=None if sent.av_offset_ms is None else round(sent.av_offset_ms, 1),
            rung=counts.rung,
            rung_name=counts.rung_name,
            bitrate_kbps=round(self.bitrate_bps / 1000, 1),
            packets_lost=totals.packets_lost,
            rtt_ms=round(max(round_trips), 1) if round_trips else None,
            late_chunks=counts.late,
            held_frames=totals.held_frames,
            dropped_frames=totals.dropped_frames,
            stages={} if stamps is None else {name: round(spent, 1) for name, spent in stamps.stage_ms.items()},
            queue_ms=None if stamps is None else round(stamps.stage_ms["queue"], 1),
        )
