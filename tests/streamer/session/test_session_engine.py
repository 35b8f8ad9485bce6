"""Trouble with the engine, and latency."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.errors import EngineLost
from streamer.session.chunks import OUTAGE_S
from tests.streamer.session.fakes import Stage, loud_frames, run, stream_of, tone


def test_lost_engine_costs_a_chunk_and_is_told_once() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(6.0))
            await stage.to(2.0)
            stage.stream.error = EngineLost("the engine died")
            await stage.to(2.5)
            stage.engine.is_ready = False
            await stage.to(4.0)
            stage.engine.is_ready, stage.stream.error = True, None
            await stage.to(10.0)
            assert [event["code"] for event in stage.events.of("error")] == ["engine_lost"]
            assert stage.playout.stats.frames_held > 0
            # what was not in the engine when it died is said afterwards
            played_ms = stage.events.of("speaking.stopped")[0]["played_ms"]
            assert 6000 - 2 * 480 <= played_ms < 6000
            assert stage.session.end_reason is None

    run(scene)


def test_lost_engine_is_told_without_a_chunk_on_its_way_and_again_the_next_time() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.to(2.0)
            assert not stage.stream.pending
            stage.stream.on_lost()
            assert [event["code"] for event in stage.events.of("error")] == ["engine_lost"]
            stage.engine.is_ready = False
            await stage.to(3.0)
            assert len(stage.events.of("error")) == 1  # the chunks that are missing tell nothing new
            stage.engine.is_ready = True
            await stage.to(5.0)
            stage.stream.on_lost()
            assert len(stage.events.of("error")) == 2
            assert stage.playout.stats.frames_held > 0

    run(scene)


def test_engine_that_never_comes_back_closes_the_session() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            recorder = stage.events
            await stage.call()
            await stage.to(1.0)
            stage.engine.is_ready = False
            await stage.to(OUTAGE_S + 3.0)
            assert stage.session.end_reason == "engine_lost"
            assert recorder.messages[-1] == {"type": "closed", "reason": "engine_lost"}

    run(scene)


def test_engine_that_is_behind_gets_no_more_than_two_chunks() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.stream.compute_s = 1.1
            await stream_of(stage, tone(3.0))
            await stage.to(12.0)
            assert stage.stream.most_pending == 2
            assert stage.session.figures.skipped_chunks > 0 and stage.session.figures.late_chunks > 0
            assert stage.playout.stats.frames_dropped > 0
            stage.stream.compute_s = 0.1
            await stage.to(20.0)
            held = stage.playout.stats.frames_held
            await stage.to(24.0)
            assert stage.playout.stats.frames_held == held

    run(scene)


def test_sound_and_picture_that_come_too_late_are_dropped_together() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(4.0))
            await stage.to(1.0)
            stage.stream.compute_s = 0.9
            await stage.to(2.0)
            stage.stream.compute_s = 0.2
            await stage.to(9.0)
            heard = np.abs(stage.broadcast.sound[: len(stage.broadcast.seen) * 1920]).reshape(-1, 1920).max(axis=1)
            moving = {index for index, peak in enumerate(heard) if peak > 300}
            shown = set(loud_frames(stage.broadcast))
            assert moving <= shown  # a held frame may show an open mouth without sound, never the other way round
            played_ms = stage.events.of("speaking.stopped")[0]["played_ms"]
            assert played_ms == pytest.approx(len(moving) * 40, abs=80) and played_ms < 4000

    run(scene)


def test_process_that_was_stopped_for_seconds_goes_on_at_the_present() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.to(1.0)
            stage.clock._now += 5.0  # nothing was woken in this time
            await stage.to(9.0)
            held = stage.playout.stats.frames_held
            await stage.to(12.0)
            assert stage.playout.stats.frames_held == held
            assert stage.session.figures.skipped_chunks >= 9

    run(scene)


def test_latency_is_the_sum_of_its_stages_and_does_not_wander() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            latencies = []
            for second in range(1, 8):
                await stage.to(float(second))
                metrics = stage.events.of("metrics")[-1]
                assert metrics["latency_ms"] == pytest.approx(sum(metrics["stages"].values()), abs=1)
                latencies.append(metrics["latency_ms"])
            expected = 480 + 80 + 1000 * stage.times.new_budget().seconds + 1  # a millisecond of encoding
            assert latencies == pytest.approx([expected] * 7, abs=1)

    run(scene)
