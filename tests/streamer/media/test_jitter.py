from __future__ import annotations

import random

from streamer.media.jitter import SkippingJitterBuffer, TimestampUnwrapper, signed_distance
from tests.streamer.media.simulated import SimulatedTime


def make() -> tuple[SimulatedTime, SkippingJitterBuffer[int]]:
    time = SimulatedTime(0.0)
    return time, SkippingJitterBuffer(time)


def feed(buffer: SkippingJitterBuffer[int], *sequences: int) -> list[int]:
    return [packet for sequence in sequences for packet in buffer.add(sequence % 65_536, sequence)]


def test_packets_in_order_pass_at_once() -> None:
    _, buffer = make()
    for sequence in range(65_530, 65_560):  # over the wrap
        assert feed(buffer, sequence) == [sequence]
    assert buffer.stats.lost == buffer.stats.late == 0 and buffer.deadline_s is None


def test_swapped_packets_are_put_in_order() -> None:
    _, buffer = make()
    assert feed(buffer, 10) == [10]
    assert feed(buffer, 12) == []
    assert feed(buffer, 11) == [11, 12]
    assert buffer.stats.lost == 0


def test_a_hole_is_given_up_at_the_third_newer_packet() -> None:
    _, buffer = make()
    assert feed(buffer, 1, 3, 4) == [1]
    assert feed(buffer, 5) == [3, 4, 5]
    assert buffer.stats.lost == 1
    assert feed(buffer, 2) == [] and buffer.stats.late == 1


def test_a_hole_is_given_up_after_60_ms() -> None:
    time, buffer = make()
    feed(buffer, 1, 3)
    assert buffer.deadline_s == 0.06
    time.now_s = 0.059
    assert buffer.expire() == []
    time.now_s = 0.06
    assert buffer.expire() == [3]
    assert buffer.deadline_s is None and buffer.stats.lost == 1


def test_the_second_hole_has_its_own_60_ms() -> None:
    time, buffer = make()
    feed(buffer, 1, 3)
    time.now_s = 0.05
    feed(buffer, 5)
    assert feed(buffer, 2) == [2, 3]
    assert buffer.deadline_s is not None and buffer.deadline_s > 0.1
    time.now_s = 0.11
    assert buffer.expire() == [5]


def test_doubles_are_dropped() -> None:
    _, buffer = make()
    assert feed(buffer, 1, 1, 3, 3, 2) == [1, 2, 3]
    assert buffer.stats.late == 2


def test_a_jump_is_a_new_stream_and_not_a_thousand_losses() -> None:
    _, buffer = make()
    assert feed(buffer, 1, 2, 4) == [1, 2]
    assert feed(buffer, 30_000) == [4, 30_000]
    assert feed(buffer, 30_001) == [30_001]
    assert buffer.stats.restarts == 1 and buffer.stats.lost == 1


def test_random_loss_and_order_keep_all_that_came_in_order() -> None:
    """5 % lost, packets up to two places out of order: nothing that came is lost, and the order is right."""
    chance = random.Random(3)
    _, buffer = make()
    sent = [sequence for sequence in range(40_000, 45_000) if sequence == 40_000 or chance.random() > 0.05]
    arriving = sorted(sent, key=lambda sequence: sequence + (chance.random() * 2.4 if sequence > 40_000 else 0))
    received = feed(buffer, *arriving)
    assert received == sorted(received)
    assert len(received) >= 0.995 * len(sent)
    assert buffer.stats.lost <= 5000 - len(received) + 3


def test_signed_distance_takes_the_short_way_round() -> None:
    assert signed_distance(1, 65_535, 1 << 16) == 2
    assert signed_distance(65_535, 1, 1 << 16) == -2


def test_timestamps_wrap_forward_and_step_back_a_little() -> None:
    unwrapper = TimestampUnwrapper()
    assert unwrapper.unwrap(2**32 - 960) == 0
    assert unwrapper.unwrap(0) == 960
    assert unwrapper.unwrap(2**32 - 960) == 0  # a step back is no wrap
    assert unwrapper.unwrap(1920) == 2880
