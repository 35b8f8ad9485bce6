from __future__ import annotations

import asyncio

from streamer.media.clock import MediaClock
from tests.streamer.media.simulated import SimulatedTime


def test_media_time_counts_from_the_origin() -> None:
    time = SimulatedTime(50.0)
    clock = MediaClock(52.0, now=time)
    assert clock.media_s() == -2.0
    time.now_s = 53.5
    assert clock.media_s() == 1.5
    assert clock.wall_s(1.5) == 53.5


def test_ntp_of_a_known_moment() -> None:
    # 1 January 2000 is 3,155,673,600 s after 1900.
    clock = MediaClock(10.0, now=lambda: 7.0, unix_now=lambda: 946_684_800.0 - 3.0)
    assert clock.ntp(0.0) == 3_155_673_600 << 32
    assert clock.ntp(0.5) == (3_155_673_600 << 32) + (1 << 31)
    assert clock.ntp(-0.25) == (3_155_673_599 << 32) + 3 * (1 << 30)


def test_ntp_is_of_media_time_and_not_of_now() -> None:
    time = SimulatedTime(0.0)
    unix_s = [1_000.0]
    clock = MediaClock(0.0, now=time, unix_now=lambda: unix_s[0])
    before = clock.ntp(3.0)
    time.now_s, unix_s[0] = 500.0, 99_999.0  # time passes, and the system's clock is set to something else
    assert clock.ntp(3.0) == before
    assert (clock.ntp(4.0) - before) / 2**32 == 1.0


def test_ntp_keeps_microseconds() -> None:
    clock = MediaClock(0.0, now=lambda: 0.0, unix_now=lambda: 1_790_000_000.0)
    for step in range(1, 2000, 97):
        passed = (clock.ntp(step * 0.02) - clock.ntp(0.0)) / 2**32
        assert abs(passed - step * 0.02) < 2e-6


def test_waiting_for_what_has_passed_returns_at_once() -> None:
    clock = MediaClock(0.0, now=lambda: 10.0)

    async def main() -> None:
        waiting = asyncio.ensure_future(clock.wait_until(10.0))
        await asyncio.sleep(0)
        assert waiting.done()

    asyncio.run(main())


def test_waiting_goes_on_when_the_timer_wakes_early(monkeypatch) -> None:
    time = SimulatedTime(0.0)
    clock = MediaClock(0.0, now=time)
    slept: list[float] = []

    async def early_sleep(seconds: float) -> None:
        slept.append(seconds)
        time.now_s += 0.6 * seconds

    monkeypatch.setattr("streamer.media.clock.asyncio.sleep", early_sleep)
    asyncio.run(clock.wait_until(1.0))
    assert len(slept) > 3
    assert 1.0 - time.now_s < 0.001
