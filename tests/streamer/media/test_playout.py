from __future__ import annotations

import asyncio

import numpy as np
import pytest

from streamer.media.playout import Playout
from tests.streamer.media.simulated import SimulatedClock, SimulatedTime, pictures, ramp, settle

SIZE = (16, 16)


def make(now_media_s: float = 0.0, max_frames: int = 36) -> tuple[SimulatedTime, Playout]:
    time = SimulatedTime()
    clock = SimulatedClock(time, origin_s=time.now_s - now_media_s)
    return time, Playout(clock, SIZE, max_frames)


def put(playout: Playout, first: int, count: int, tag: object = None) -> int:
    return playout.put(first, pictures(first, count), ramp(first, count), tag)


def brightness(picture: np.ndarray | None) -> int | None:
    return None if picture is None else int(picture[0, 0])


def play(playout: Playout, frame: int) -> tuple[int | None, list[int]]:
    """Plays a frame and its two blocks; the sound as the set of its values."""
    picture = playout.frame(frame)
    sound = np.concatenate([playout.sound(2 * frame), playout.sound(2 * frame + 1)])
    return brightness(picture), sorted(set(sound.tolist()))


def test_what_is_put_comes_out_at_its_place() -> None:
    time, playout = make()
    assert put(playout, 0, 12) == 0
    for k in range(12):
        assert play(playout, k) == (20 + k, [100 + k])
        time.now_s += 0.04
    assert (playout.stats.frames_put, playout.stats.frames_played, playout.stats.frames_held) == (12, 12, 0)
    assert playout.stats.frames_dropped == 0 and playout.stats.sound_ms_dropped == 0


def test_blocks_are_the_halves_of_a_frame() -> None:
    _, playout = make()
    sound = np.arange(1920, dtype=np.int16)
    playout.put(0, pictures(0, 1), sound)
    assert np.array_equal(playout.sound(0), sound[:960])
    assert np.array_equal(playout.sound(1), sound[960:])


def test_put_copies() -> None:
    _, playout = make()
    frames, sound = pictures(0, 2), ramp(0, 2)
    playout.put(0, frames, sound)
    frames[:], sound[:] = 0, 0
    assert play(playout, 0) == (20, [100])


def test_nothing_there_is_held_and_silent() -> None:
    _, playout = make()
    assert playout.frame(0) is None
    assert not playout.sound(0).any() and playout.sound(0).shape == (960,)
    assert playout.stats.frames_held == 1


def test_up_to_120_ms_late_is_kept() -> None:
    _, playout = make(now_media_s=0.12)
    assert put(playout, 0, 3) == 0
    assert play(playout, 0) == (20, [100])


def test_later_than_120_ms_drops_sound_and_picture_of_the_same_frames() -> None:
    _, playout = make(now_media_s=0.20 + 1e-4)  # frames 0, 1 and 2 are more than 120 ms late, frame 3 is not
    assert put(playout, 0, 12) == 3
    assert playout.stats.frames_dropped == 3 and playout.stats.sound_ms_dropped == pytest.approx(120)
    assert playout.stats.frames_put == 9
    assert play(playout, 2) == (None, [0])
    assert play(playout, 3) == (23, [103])


def test_a_span_that_is_late_as_a_whole_leaves_nothing() -> None:
    _, playout = make(now_media_s=2.0)
    assert put(playout, 0, 12) == 12
    assert playout.frames_ahead == 0 and playout.stats.frames_put == 0


def test_late_boundary_is_exact_far_into_a_session() -> None:
    """After ten hours a frame is still kept at 120 ms and dropped right after."""
    base = 900_000
    for late_s, dropped in ((0.1199, 0), (0.12, 0), (0.1201, 1)):
        _, playout = make(now_media_s=base * 0.04 + late_s)
        assert put(playout, base, 1) == dropped, late_s


def test_a_place_that_was_played_is_not_filled_afterwards() -> None:
    _, playout = make(now_media_s=0.05)
    assert play(playout, 0) == (None, [0])
    assert put(playout, 0, 3) == 1
    assert play(playout, 1) == (21, [101])


def test_half_played_frame_is_dropped_with_its_picture() -> None:
    """The first block went out as silence: the rest of that frame's sound and its picture must not follow."""
    _, playout = make(now_media_s=0.01)
    playout.sound(0)
    assert put(playout, 0, 2) == 1
    assert playout.frame(0) is None
    assert not playout.sound(1).any()
    assert play(playout, 1) == (21, [101])


def test_frames_before_the_session_are_left_out_uncounted() -> None:
    _, playout = make(now_media_s=-1.0)
    assert put(playout, -2, 12) == 0
    assert playout.stats.frames_put == 10 and playout.stats.frames_dropped == 0
    assert play(playout, 0) == (20, [100])


def test_too_far_ahead_is_refused_and_stores_nothing() -> None:
    _, playout = make(now_media_s=0.4, max_frames=36)  # frame 10 plays now
    assert put(playout, 10, 36) == 0
    with pytest.raises(ValueError, match="37 ahead"):
        put(playout, 35, 12)
    assert playout.frames_ahead == 36
    _, early = make(now_media_s=-10.0, max_frames=12)
    assert put(early, 0, 12) == 0
    with pytest.raises(ValueError, match="13 ahead"):
        put(early, 1, 12)


def test_memory_is_bounded_without_a_player() -> None:
    time, playout = make()
    for chunk in range(200):
        put(playout, 12 * chunk, 12)
        time.now_s += 0.48
    assert playout.frames_ahead <= 36 + 4
    assert len(playout._sound) <= 36 + 4 and len(playout._tags) <= 36 + 4
    assert playout.stats.frames_dropped + playout.frames_ahead == playout.stats.frames_put


@pytest.mark.parametrize(
    ("frames", "sound"),
    [
        (np.zeros((2, 24, 16), np.float32), ramp(0, 2)),
        (np.zeros((2, 16, 16), np.uint8), ramp(0, 2)),
        (np.zeros((24, 16), np.uint8), ramp(0, 1)),
        (np.zeros((2, 24, 16), np.uint8), ramp(0, 3)),
        (np.zeros((2, 24, 16), np.uint8), ramp(0, 2).astype(np.float32)),
        (np.zeros((2, 24, 16), np.uint8), ramp(0, 2)[None]),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(frames: np.ndarray, sound: np.ndarray) -> None:
    _, playout = make()
    with pytest.raises(ValueError):
        playout.put(0, frames, sound)
    assert playout.frames_ahead == 0


def test_player_that_jumps_drops_what_it_passed_over() -> None:
    _, playout = make(now_media_s=0.1)
    put(playout, 0, 12)
    assert play(playout, 5) == (25, [105])
    assert playout.stats.frames_dropped == 5
    assert playout.stats.sound_ms_dropped == pytest.approx(200)


def test_tags_stay_with_their_frames() -> None:
    _, playout = make()
    put(playout, 0, 2, tag="a")
    put(playout, 2, 2, tag="b")
    for k, tag in enumerate("aabb"):
        playout.frame(k)
        assert playout.tag(k) == tag
        assert playout.tag(k) is None


# --- barge-in


def test_mute_fades_in_10_ms_and_silences_all_that_follows() -> None:
    _, playout = make()
    playout.put(0, pictures(0, 4), np.full(4 * 1920, 10_000, np.int16))
    assert playout.mute_from(0.05) == pytest.approx(0.06)
    heard = np.concatenate([playout.sound(block) for block in range(8)])
    start, end = 2400, 2880
    assert (heard[:start] == 10_000).all()
    fade = heard[start:end].astype(int)
    assert (np.diff(fade) <= 0).all() and fade[0] == 10_000 and 0 < fade[-1] < 100
    assert abs(fade[240] - 5000) < 30
    assert not heard[end:].any()
    assert playout.frame(3) is not None  # the picture goes on


def test_mute_cannot_take_back_what_was_handed_out() -> None:
    _, playout = make(now_media_s=0.07)
    playout.put(0, pictures(0, 4), np.full(4 * 1920, 10_000, np.int16))
    sent = [playout.sound(block) for block in range(4)]  # up to 80 ms
    assert playout.mute_from(0.07) == pytest.approx(0.09)
    assert all((block == 10_000).all() for block in sent)
    rest = np.concatenate([playout.sound(block) for block in range(4, 8)])
    assert rest[0] == 10_000 and not rest[480:].any()


@pytest.mark.parametrize("media_s", [0.0, 0.0001, 0.0199, 0.035, 0.0399, 0.04, 0.075])
def test_mute_reports_exactly_the_last_sample_that_sounds(media_s: float) -> None:
    _, playout = make()
    playout.put(0, pictures(0, 3), np.full(3 * 1920, 20_000, np.int16))
    played_s = playout.mute_from(media_s)
    heard = np.concatenate([playout.sound(block) for block in range(6)])
    last = int(np.flatnonzero(heard)[-1]) + 1
    assert -0.01 < played_s * 48_000 - last <= 1.01


def test_fade_reaches_over_the_border_of_two_frames() -> None:
    _, playout = make()
    playout.put(0, pictures(0, 2), np.full(2 * 1920, 10_000, np.int16))
    playout.mute_from(0.035)
    heard = np.concatenate([playout.sound(block) for block in range(4)]).astype(int)
    assert np.abs(np.diff(heard)).max() <= 22  # no step


def test_mute_where_nothing_sounds_reports_its_start() -> None:
    _, playout = make()
    put(playout, 0, 2)
    assert playout.mute_from(0.2) == pytest.approx(0.2)


def test_what_is_put_after_a_mute_is_heard() -> None:
    _, playout = make()
    put(playout, 0, 4)
    playout.mute_from(0.0)
    put(playout, 4, 4)
    for k in range(4):
        play(playout, k)
    assert play(playout, 4) == (24, [104])


def test_drop_from_forgets_what_was_planned_and_makes_room() -> None:
    _, playout = make()
    put(playout, 0, 24, tag="old")
    playout.drop_from(12)
    assert playout.frames_ahead == 12 and playout.stats.frames_dropped == 0
    playout.put(12, pictures(100, 12), ramp(100, 12), "new")
    for k in range(12):
        assert play(playout, k) == (20 + k, [100 + k])
    assert play(playout, 12) == (120, [200])
    assert playout.tag(12) == "new"


# --- waiting


def run(scenario) -> None:
    async def main() -> None:
        time, playout = make()
        await scenario(time, playout)

    asyncio.run(main())


def test_waiting_ends_when_the_frame_comes() -> None:
    async def scenario(time: SimulatedTime, playout: Playout) -> None:
        waiting = asyncio.ensure_future(playout.wait_for(0))
        await time.advance(0.1)
        assert not waiting.done()
        put(playout, 0, 1)
        await settle()
        assert waiting.done() and waiting.result() is True

    run(scenario)


def test_waiting_ends_at_120_ms_without_it() -> None:
    async def scenario(time: SimulatedTime, playout: Playout) -> None:
        waiting = asyncio.ensure_future(playout.wait_for(3))
        await time.advance(0.12 + 0.119)
        assert not waiting.done()
        put(playout, 0, 3)  # others come, not this one
        await settle()
        assert not waiting.done()
        await time.advance(0.001)
        assert waiting.done() and waiting.result() is False

    run(scenario)


def test_after_a_wait_in_vain_nothing_is_waited_for_until_something_comes() -> None:
    async def scenario(time: SimulatedTime, playout: Playout) -> None:
        waiting = asyncio.ensure_future(playout.wait_for(0))
        await time.advance(0.12)
        assert await waiting is False
        for frame in range(3, 10):
            assert await playout.wait_for(frame) is False  # at once: the time stands still
        put(playout, 10, 2)
        waiting = asyncio.ensure_future(playout.wait_for(12))
        await settle()
        assert await playout.wait_for(10) and await playout.wait_for(11)
        waiting.cancel()

    run(scenario)


def test_what_is_too_late_to_be_played_does_not_end_an_outage() -> None:
    async def scenario(time: SimulatedTime, playout: Playout) -> None:
        waiting = asyncio.ensure_future(playout.wait_for(0))
        await time.advance(1.0)
        assert await waiting is False
        assert put(playout, 0, 12) == 12
        assert await playout.wait_for(25) is False

    run(scenario)


def test_what_is_missing_before_something_that_is_there_is_not_waited_for() -> None:
    async def scenario(time: SimulatedTime, playout: Playout) -> None:
        put(playout, 12, 12)
        assert await playout.wait_for(11) is False  # at once
        assert await playout.wait_for(12) is True

    run(scenario)


def test_a_cancelled_wait_leaves_no_task() -> None:
    async def scenario(time: SimulatedTime, playout: Playout) -> None:
        waiting = asyncio.ensure_future(playout.wait_for(0))
        await settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario)
