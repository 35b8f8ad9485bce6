from __future__ import annotations

import numpy as np
import pytest

from streamer.media.broadcast import SOUND_LEAD_S
from streamer.session.budget import CHUNKS, MAX_CHUNKS_LONG, MIN_CHUNKS, PATIENCE_CHUNKS, Budget
from tests.streamer.session.fakes import Stage, loud_frames, loud_samples, run, stream_of, tone

CHUNK_S = 0.48


def started(took_s: float = 0.2, chunks: int = CHUNKS) -> Budget:
    budget = Budget(took_s, CHUNK_S)
    for _ in range(chunks):
        budget.record(took_s, None)
    return budget


def fall_all_the_way(budget: Budget) -> int:
    """Blocks it fell by."""
    blocks = 0
    while fallen := budget.fall():
        blocks += fallen
    return blocks


def test_it_starts_with_a_little_more_than_was_measured() -> None:
    assert 0.2 + SOUND_LEAD_S < Budget(0.2, CHUNK_S).seconds < 0.3


def test_it_rises_within_five_chunks_that_take_longer() -> None:
    budget = started()
    for _ in range(5):
        budget.record(0.3, None)
    assert budget.seconds == pytest.approx(0.3 + SOUND_LEAD_S)


def test_a_single_stall_changes_nothing() -> None:
    for chunks in (0, 1, MIN_CHUNKS, CHUNKS):
        budget = started(chunks=chunks)
        before_s = budget.seconds
        budget.record(2.0, None)
        assert budget.seconds == before_s


def test_it_falls_in_whole_blocks_when_the_slow_chunks_are_half_a_minute_old() -> None:
    budget = started(0.3)
    high_s = budget.seconds
    for _ in range(CHUNKS - 5):
        budget.record(0.2, None)
    assert high_s - budget.seconds == 0.0 and fall_all_the_way(budget) <= 2  # down to the 300 ms that it was told
    for _ in range(5):
        budget.record(0.2, None)
    assert 1 <= budget.fall() <= 2
    fall_all_the_way(budget)
    assert 0.2 + SOUND_LEAD_S <= budget.seconds < 0.2 + SOUND_LEAD_S + 0.02


def test_it_does_not_fall_on_a_few_chunks() -> None:
    budget = Budget(0.3, CHUNK_S)
    for _ in range(MIN_CHUNKS - 1):
        budget.record(0.05, None)
    assert budget.fall() == 0
    budget.record(0.05, None)
    assert budget.fall() > 0


def test_it_is_bounded() -> None:
    budget = started()
    for _ in range(CHUNKS):
        budget.record(5.0, None)
    assert budget.seconds == MAX_CHUNKS_LONG * CHUNK_S


def test_chunks_of_a_lower_rung_do_not_lower_it_and_in_the_end_make_room_for_the_full_one() -> None:
    budget = started(0.3)
    before_s = budget.seconds
    for _ in range(PATIENCE_CHUNKS):
        budget.record(0.1, 0.4)
    assert budget.seconds == before_s
    for _ in range(5):
        budget.record(0.1, 0.4)
    assert budget.seconds == pytest.approx(0.4 + SOUND_LEAD_S)


def test_a_session_gives_a_slower_engine_more_time_and_holds_nothing_any_more() -> None:
    async def scene() -> None:
        async with Stage(0.4) as stage:
            await stage.to(5.0)
            stage.stream.compute_s = 0.38
            await stage.to(9.0)
            held, latency_ms = stage.playout.stats.frames_held, stage.events.of("metrics")[-1]["latency_ms"]
            await stream_of(stage, tone(3.0))
            await stage.to(16.0)
            assert stage.playout.stats.frames_held == held
            assert latency_ms == pytest.approx(480 + 80 + 1000 * (0.38 + SOUND_LEAD_S), abs=25)
            assert stage.events.of("speaking.stopped")[-1]["played_ms"] == 3000

    run(scene)


@pytest.mark.parametrize("spoken_s", [0.0, 60.0])
def test_the_caller_is_later_only_by_what_the_engine_takes(spoken_s: float) -> None:
    """A faster engine's budget falls while the caller is silent, and the sound of the fall is left out."""

    async def scene() -> None:
        async with Stage(0.75) as stage:
            microphone = await stage.call()
            start = microphone.taken
            microphone.sound = lambda at: np.where(at < start + 48_000 * spoken_s, 9000, 0)
            stage.stream.compute_s = 0.1
            await stage.to(20.0)
            chunks = len(stage.stream.heard)
            left_out = (microphone.taken - start) - chunks * 23_040
            latency_ms = stage.events.of("metrics")[-1]["latency_ms"]
            if spoken_s:
                assert left_out == 0 and latency_ms > 900  # not in the middle of a word
            else:
                assert left_out % 960 == 0 and left_out / 48 == pytest.approx(300, abs=40)
                assert latency_ms == pytest.approx(480 + 80 + 100 + 1000 * SOUND_LEAD_S, abs=25)
            assert stage.playout.stats.frames_held == 0

    run(scene)


def test_speech_is_whole_while_the_budget_changes() -> None:
    async def scene() -> None:
        async with Stage(0.75) as stage:
            stage.stream.compute_s = 0.1
            await stage.to(7.5)
            await stream_of(stage, tone(1.0))
            stage.stream.compute_s = 0.3
            await stage.to(14.0)
            first, last = loud_samples(stage.broadcast)
            assert np.array_equal(stage.broadcast.sound[first - 1 : first - 1 + 48_000], tone(1.0))
            assert loud_frames(stage.broadcast)[0] == first // 1920

    run(scene)
