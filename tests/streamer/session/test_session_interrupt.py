"""Interruptions of what is said."""

from __future__ import annotations

import numpy as np
import pytest

from tests.streamer.session.fakes import Stage, loud_frames, loud_samples, moving_frames, run, stream_of, tone


@pytest.mark.parametrize("warm_rtf", [0.2, 0.45, 0.8])
@pytest.mark.parametrize("phase", range(0, 480, 60))
def test_interrupt_silences_sound_at_once_and_the_mouth_within_600_ms(phase: int, warm_rtf: float) -> None:
    async def scene() -> None:
        async with Stage(warm_rtf) as stage:
            await stream_of(stage, tone(8.0))
            at = 3.0 + phase / 1000
            await stage.to(at)
            name, played_ms = stage.session.speech.interrupt()
            await stage.to(at + 3.0)
            first, last = loud_samples(stage.broadcast)
            assert name == "tone" and played_ms is not None
            assert last / 48_000 <= at + 0.031  # a fade of 10 ms, behind the block of 20 ms that was out already
            assert abs(played_ms - (last - first) / 48) <= 2
            assert moving_frames(stage.broadcast)[-1] * 0.04 <= at + 0.6
            assert loud_frames(stage.broadcast)[-1] * 0.04 <= at + (0.6 if warm_rtf < 0.5 else 1.0)
            assert stage.events.of("speaking.stopped") == [
                {"type": "speaking.stopped", "utterance": "tone", "played_ms": played_ms, "reason": "interrupted"}
            ]
            assert stage.events.of("interrupted") == [
                {"type": "interrupted", "utterance": "tone", "played_ms": played_ms}
            ]
            assert stage.session.timeline.state == "idle"
            assert stage.playout.stats.frames_held <= (2 if warm_rtf < 0.4 else 4 if warm_rtf < 0.5 else 12)
            assert all(chunk.releases == 1 for chunk in stage.stream.chunks)

    run(scene)


def test_frames_keep_coming_through_many_interruptions() -> None:
    async def scene() -> None:
        async with Stage(0.45) as stage:
            for number in range(20):
                await stream_of(stage, tone(2.0), f"u{number}")
                await stage.clock.advance(0.7 + 0.037 * number)
                stage.session.speech.interrupt()
            await stage.clock.advance(2.0)
            assert stage.playout.stats.frames_held <= 2 * 20
            assert loud_frames(stage.broadcast)[-1] < len(stage.broadcast.seen) - 30
            assert stage.stream.rewinds > 0

    run(scene)


def test_interrupt_clears_what_is_queued_and_tells_every_one_of_them() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.session.speech.say("one. two. three", "a")
            stage.session.speech.say("four", "b")
            stage.session.speech.say("five", "c")
            await stage.to(1.5)
            assert stage.session.speech.interrupt()[0] == "a"
            stopped = stage.events.of("speaking.stopped")
            assert [event["utterance"] for event in stopped] == ["a", "b", "c"]
            assert [event["played_ms"] for event in stopped[1:]] == [0, 0]
            await stage.to(6.0)
            assert len(stage.events.of("speaking.started")) == 1 and not len(stage.session.cutter.queue)
            assert stage.voice.dropped == 3  # nothing is synthesised any more

    run(scene)


def test_interrupt_before_anything_is_heard_reports_nothing_played() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(2.0))
            await stage.clock.advance(0.05)  # cut, but far from played
            assert stage.session.speech.interrupt() == ("tone", 0)
            await stage.to(3.0)
            assert not np.any(stage.broadcast.sound) and not loud_frames(stage.broadcast)

    run(scene)


def test_interrupt_with_nothing_to_interrupt() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.to(1.0)
            assert stage.session.speech.interrupt() == (None, None)
            assert stage.events.types == [] and stage.stream.rewinds == 0

    run(scene)


def test_speech_after_an_interruption_is_whole() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(5.0), "long")
            await stage.to(2.0)
            stage.session.speech.interrupt()
            await stream_of(stage, tone(1.0), "next")
            await stage.to(6.0)
            assert stage.events.of("speaking.stopped")[-1] == {
                "type": "speaking.stopped",
                "utterance": "next",
                "played_ms": 1000,
                "reason": "finished",
            }

    run(scene)
