from __future__ import annotations

import pytest

from streamer.media.bitrate import MIN_BPS, BitratePlan, ReceiverEstimate, max_bitrate_bps


def reporting(bitrate_bps: float) -> ReceiverEstimate:
    estimate = ReceiverEstimate()
    estimate.report_remb(bitrate_bps)
    return estimate


def test_never_starts_above_500_kbps() -> None:
    assert BitratePlan(2_500_000, 3_000_000).target_bps == 500_000
    assert BitratePlan(300_000, 1_500_000).target_bps == 300_000


def test_ceiling_grows_with_the_picture() -> None:
    assert max_bitrate_bps((256, 256)) == 1_500_000
    assert max_bitrate_bps((512, 512)) == 3_000_000
    assert max_bitrate_bps((64, 64)) == 1_500_000


def test_falls_at_once_to_the_slowest_receiver() -> None:
    plan = BitratePlan(500_000, 1_500_000)
    assert plan.step([reporting(900_000), reporting(232_000), ReceiverEstimate()]) == 232_000


def test_climbs_by_steps_of_10_percent_to_the_ceiling() -> None:
    plan = BitratePlan(500_000, 1_500_000)
    targets = [plan.step([reporting(50e6)]) for _ in range(20)]
    changes = [target for target in targets if target is not None]
    assert changes[0] == 550_000
    assert all(later <= earlier * 1.1001 for earlier, later in zip([500_000, *changes], changes, strict=False))
    assert changes[-1] == 1_500_000 and len(changes) == 12


def test_never_below_the_floor() -> None:
    plan = BitratePlan(500_000, 1_500_000)
    plan.step([reporting(10_000)])
    assert plan.target_bps == MIN_BPS


def test_no_viewer_lowers_the_picture_of_everybody() -> None:
    caller = ReceiverEstimate(leads=True)
    caller.report_remb(1_200_000)
    plan = BitratePlan(500_000, 1_500_000)
    for _ in range(20):
        plan.step([reporting(10_000), caller, reporting(10_000)])
    assert plan.target_bps > 1_150_000
    caller.report_remb(300_000)
    plan.step([reporting(2_000_000), caller])
    assert plan.target_bps == 300_000


def test_a_caller_that_has_not_reported_yet_is_waited_for() -> None:
    plan = BitratePlan(500_000, 1_500_000)
    assert plan.step([reporting(10_000), ReceiverEstimate(leads=True)]) is None


def test_without_a_caller_the_median_viewer_decides() -> None:
    plan = BitratePlan(500_000, 1_500_000)
    plan.step([reporting(10_000), reporting(400_000), reporting(900_000), reporting(1_000_000)])
    assert plan.target_bps == 400_000


def test_small_changes_leave_the_encoder_alone() -> None:
    plan = BitratePlan(500_000, 1_500_000)
    assert plan.step([reporting(510_000)]) is None
    assert plan.step([]) is None
    assert plan.target_bps == 500_000


def test_heavy_loss_lowers_and_calm_raises() -> None:
    estimate = ReceiverEstimate()
    estimate.report_loss(0.3, 500_000)
    assert estimate.limit_bps == pytest.approx(425_000)
    estimate.report_loss(0.3, 425_000)
    assert estimate.limit_bps == pytest.approx(361_250)
    for _ in range(5):
        estimate.report_loss(0.0, 361_250)
    assert estimate.limit_bps == pytest.approx(361_250 * 1.08**5)


def test_five_percent_loss_changes_nothing() -> None:
    """That is the link's own; sending less would not make it better."""
    estimate = ReceiverEstimate()
    for _ in range(100):
        estimate.report_loss(0.05, 500_000)
    assert estimate.limit_bps is None
    estimate.report_remb(700_000)
    assert estimate.limit_bps == 700_000


def test_the_smaller_of_delay_and_loss_counts() -> None:
    estimate = reporting(450_000)
    estimate.report_loss(0.5, 500_000)
    assert estimate.limit_bps == pytest.approx(375_000)
    estimate.report_remb(200_000)
    assert estimate.limit_bps == 200_000


def test_a_still_picture_does_not_starve_what_follows() -> None:
    """Receivers of 30 kb/s report little more than that, and it says nothing about the link."""
    plan = BitratePlan(500_000, 1_500_000)
    assert plan.step([reporting(28_000)], sent_bps=33_000) is None
    assert plan.target_bps == 500_000
    assert plan.step([reporting(28_000)], sent_bps=480_000) == MIN_BPS  # that was tried


def test_a_still_picture_keeps_no_more_than_the_start() -> None:
    plan = BitratePlan(500_000, 1_500_000)
    for _ in range(10):
        plan.step([reporting(2_000_000)], sent_bps=1_000_000)
    assert plan.target_bps > 1_000_000
    assert plan.step([reporting(28_000)], sent_bps=33_000) == 500_000
