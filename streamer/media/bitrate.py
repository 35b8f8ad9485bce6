"""How many bits a second a codec may use: what its receivers report, smoothed."""

from __future__ import annotations

from collections.abc import Iterable

START_BPS = 500_000  # starting higher made narrow links collapse
MIN_BPS = 150_000
MAX_BPS_256 = 1_500_000  # at 256 x 256; grows with the side of the picture
RISE_PER_STEP = 1.10  # one step a second
IDLE_SHARE = 0.5  # of the target; who sends less has not tried what the link carries
DEADBAND = 0.03  # changes smaller than this are not passed to the encoder

LOSS_HIGH = 0.10
LOSS_LOW = 0.02
LOSS_RISE = 1.08


def max_bitrate_bps(frame_size: tuple[int, int]) -> int:
    """The most that is worth sending for a picture of that (height, width)."""
    height, width = frame_size
    return round(MAX_BPS_256 * max(1.0, (height * width / 65_536) ** 0.5))


class ReceiverEstimate:
    """What one receiver can take, from its REMB messages (delay) and its receiver reports (loss).

    Args:
        leads: it is the one that the picture is made for.
    """

    def __init__(self, leads: bool = False) -> None:
        self.leads = leads
        self.remb_bps: float | None = None
        self._loss_cap_bps: float | None = None

    def report_remb(self, bitrate_bps: float) -> None:
        self.remb_bps = bitrate_bps

    def report_loss(self, fraction: float, sending_bps: float) -> None:
        """Takes the loss since the last report, 0 … 1, and what is being sent.

        More than 10 % lost lowers the cap by half of the loss; below 2 % it rises again; between, loss is the
        link's own and sending less would not help.
        """
        if fraction > LOSS_HIGH:
            self._loss_cap_bps = min(self._loss_cap_bps or sending_bps, sending_bps) * (1.0 - 0.5 * fraction)
        elif fraction < LOSS_LOW and self._loss_cap_bps is not None:
            self._loss_cap_bps *= LOSS_RISE

    @property
    def limit_bps(self) -> float | None:
        """None while nothing is known."""
        known = [limit for limit in (self.remb_bps, self._loss_cap_bps) if limit is not None]
        return min(known) if known else None


class BitratePlan:
    """The target of one encoder: its receivers' limit; down at once, up by 10 % a second.

    All receivers of a codec get the same packets. The one that leads, the session's caller, decides; without one the
    median does, of an even number the lower. So no viewer can lower the picture of everybody; one whose link takes less
    loses packets.

    Args:
        start_bps: at most 500 kb/s is used, however much is asked for.
        max_bps: the ceiling.
    """

    def __init__(self, start_bps: int, max_bps: int):
        self.max_bps = max_bps
        self.target_bps = int(min(max(start_bps, MIN_BPS), START_BPS, max_bps))

    def step(self, estimates: Iterable[ReceiverEstimate], sent_bps: float | None = None) -> int | None:
        """One step, to be called once a second.

        Receivers cannot report more than they get: while a still picture needs little, low limits say nothing about
        the link, and the target does not fall below where it would start.

        Args:
            estimates: of the receivers.
            sent_bps: what was really sent since the last step; None if that is not known.

        Returns:
            The new target where the encoder should change, else None.
        """
        receivers = list(estimates)
        deciding = [estimate for estimate in receivers if estimate.leads] or receivers
        limits = sorted(limit for estimate in deciding if (limit := estimate.limit_bps) is not None)
        if not limits:
            return None
        wanted = min(max(limits[(len(limits) - 1) // 2], MIN_BPS), self.max_bps)
        wanted = int(min(wanted, self.target_bps * RISE_PER_STEP))
        if sent_bps is not None and sent_bps < IDLE_SHARE * self.target_bps:
            wanted = max(wanted, min(self.target_bps, START_BPS))
        if abs(wanted - self.target_bps) < DEADBAND * self.target_bps:
            return None
        self.target_bps = wanted
        return wanted
