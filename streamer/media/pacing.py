"""How fast packets leave: spreading a frame over time, and a budget for sending lost ones again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

PACE_FACTOR = 2.5  # times the bitrate, as WebRTC's own pacer: a frame is gone well before the next one
MAX_SPREAD_S = 0.080  # two frame intervals; a keyframe may take that long, and the next frames catch up
BURST_PACKETS = 2  # leave together: a timer for every packet costs more than it gives
RESEND_SHARE = 0.25  # of the bitrate may be packets sent again
RESEND_BURST_S = 0.5
MIN_RESEND_BURST_BYTES = 8_000


def spread(sizes: Sequence[int], bitrate_bps: float) -> list[float]:
    """When each packet of a frame leaves, in seconds after the first.

    Args:
        sizes: of the packets, bytes.
        bitrate_bps: what the encoder aims for; the packets leave at 2.5 times that, or faster where a frame would
            take more than 80 ms.

    Returns:
        One offset a packet, rising from 0, in steps of two packets; at most 80 ms.
    """
    total_bits = 8 * sum(sizes)
    rate_bps = max(PACE_FACTOR * bitrate_bps, total_bits / MAX_SPREAD_S, 1.0)
    offsets = []
    sent_bits = 0
    offset_s = 0.0
    for position, size in enumerate(sizes):
        if position % BURST_PACKETS == 0:
            offset_s = sent_bits / rate_bps
        offsets.append(offset_s)
        sent_bits += 8 * size
    return offsets


class ResendBudget:
    """A token bucket: at most a quarter of the bitrate goes into packets sent again.

    Without it a link that is too narrow collapses: 64,000 repeat requests and 8 frames in 30 s were measured.

    Args:
        now: the monotonic clock.
    """

    def __init__(self, now: Callable[[], float]):
        self.refused = 0
        self._now = now
        self._updated_s = now()
        self._tokens_bytes = float(MIN_RESEND_BURST_BYTES)

    def take(self, size: int, bitrate_bps: float) -> bool:
        """Whether a packet of that many bytes may be sent again now; counts those that may not."""
        now_s = self._now()
        rate = RESEND_SHARE * bitrate_bps / 8
        limit = max(MIN_RESEND_BURST_BYTES, rate * RESEND_BURST_S)
        self._tokens_bytes = min(limit, self._tokens_bytes + rate * (now_s - self._updated_s))
        self._updated_s = now_s
        if self._tokens_bytes < size:
            self.refused += 1
            return False
        self._tokens_bytes -= size
        return True
