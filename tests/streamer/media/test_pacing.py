from __future__ import annotations

import pytest

from streamer.media.pacing import MAX_SPREAD_S, ResendBudget, spread
from tests.streamer.media.simulated import SimulatedTime


def test_a_keyframe_of_38_packets_leaves_no_burst() -> None:
    offsets = spread([1290] * 38, 500_000)
    assert offsets[0] == 0.0 and offsets == sorted(offsets)
    assert MAX_SPREAD_S * 0.9 < offsets[-1] <= MAX_SPREAD_S
    assert max(offsets.count(offset) for offset in offsets) == 2


def test_an_ordinary_frame_is_gone_within_half_a_frame_interval() -> None:
    """At 500 kb/s a frame has 2.5 kB: two packets of 1250 leave together, a third follows in 16 ms."""
    assert spread([1250, 1250], 500_000) == [0.0, 0.0]
    assert spread([1250, 1250, 1250], 500_000)[2] == pytest.approx(0.016)


def test_the_rate_is_two_and_a_half_times_the_bitrate() -> None:
    offsets = spread([1000] * 9, 1_000_000)
    assert offsets[8] == pytest.approx(8 * 8000 / 2_500_000)


def test_nothing_to_send_has_no_offsets() -> None:
    assert spread([], 500_000) == []
    assert spread([10], 0) == [0.0]


def test_resending_stops_when_the_budget_is_used() -> None:
    time = SimulatedTime(0.0)
    budget = ResendBudget(time)
    allowed = sum(budget.take(1200, 500_000) for _ in range(1000))
    assert allowed == 8000 // 1200
    assert budget.refused == 1000 - allowed


def test_resending_gets_a_quarter_of_the_bitrate_over_time() -> None:
    time = SimulatedTime(0.0)
    budget = ResendBudget(time)
    allowed = 0
    for _ in range(10_000):  # 100 s, asked for 8 times as much
        time.now_s += 0.01
        allowed += budget.take(1250, 500_000)
    assert allowed * 1250 * 8 / 100 == pytest.approx(0.25 * 500_000, rel=0.02)


def test_a_rest_does_not_save_up_more_than_half_a_second() -> None:
    time = SimulatedTime(0.0)
    budget = ResendBudget(time)
    time.now_s = 3600.0
    allowed = sum(budget.take(1000, 1_500_000) for _ in range(1000))
    assert allowed == int(0.25 * 1_500_000 / 8 * 0.5 // 1000)
