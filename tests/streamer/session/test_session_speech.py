"""What a session says, and when."""

from __future__ import annotations

import time

import numpy as np
import pytest

from streamer.errors import CapacityError, MissingExtraError, ProtocolError
from streamer.session.sources import MAX_QUEUED
from tests.streamer.session.fakes import Stage, loud_frames, loud_samples, run, stream_of, tone


def test_silence_keeps_the_mouth_shut_and_frames_coming() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.to(5.0)
            assert len(stage.broadcast.seen) == 125 and not loud_frames(stage.broadcast)
            assert stage.playout.stats.frames_held == 0 and stage.playout.stats.frames_dropped == 0
            assert not np.any(stage.broadcast.sound)
            assert all(chunk.releases == 1 for chunk in stage.stream.chunks)

    run(scene)


@pytest.mark.parametrize("at", [0.0, 0.13, 0.41])
def test_sound_is_heard_in_the_frames_that_show_it(at: float) -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.to(at)
            await stream_of(stage, tone(1.0))
            await stage.to(4.0)
            first, last = loud_samples(stage.broadcast)
            frames = loud_frames(stage.broadcast)
            assert first // 1920 == frames[0]
            assert 0 <= frames[-1] - last // 1920 <= 1  # what models hear is a millisecond late
            assert np.array_equal(stage.broadcast.sound[first - 1 : first - 1 + 48_000], tone(1.0))

    run(scene)


def test_events_come_at_the_media_time_at_which_it_is_true() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(1.0), "greeting")
            await stage.to(4.0)
            first, _ = loud_samples(stage.broadcast)
            assert stage.events.types == [
                "utterance.queued",
                "speaking.started",
                "state",
                "speaking.stopped",
                "state",
            ]
            started, stopped = stage.events.of("speaking.started")[0], stage.events.of("speaking.stopped")[0]
            assert started == {
                "type": "speaking.started",
                "utterance": "greeting",
                "source": "stream",
                "media_ms": round((first - 1) / 48),
            }
            assert stopped == {
                "type": "speaking.stopped",
                "utterance": "greeting",
                "played_ms": 1000,
                "reason": "finished",
            }
            assert [state["state"] for state in stage.events.of("state")] == ["speaking", "idle"]
            assert stage.events.of("state")[1]["media_ms"] == started["media_ms"] + 1000

    run(scene)


def test_first_sentence_is_said_before_the_last_is_synthesised() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.session.speech.say(". ".join(["sentence"] * 40))
            await stage.to(2.0)
            assert stage.events.of("speaking.started")
            assert stage.voice.asked <= 13  # ten seconds ahead, no more

    run(scene)


def test_utterances_follow_one_another_in_order() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(0.7), "a")
            await stream_of(stage, tone(0.7), "b")
            await stage.to(4.0)
            assert [event["utterance"] for event in stage.events.of("speaking.started")] == ["a", "b"]
            assert [event["played_ms"] for event in stage.events.of("speaking.stopped")] == [700, 700]
            heard = stage.broadcast.sound
            first, last = loud_samples(stage.broadcast)
            assert last - first == pytest.approx(1.4 * 48_000, abs=100)
            assert np.count_nonzero(heard) > 0

    run(scene)


def test_voice_that_fails_is_told_and_what_was_spoken_is_played() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.voice.failure = ProtocolError("the voice fell silent")
            stage.session.speech.say("one. two", "x")
            await stage.to(5.0)
            assert stage.events.of("speaking.stopped") == [
                {"type": "speaking.stopped", "utterance": "x", "played_ms": 1000, "reason": "failed"}
            ]
            assert stage.events.of("error")[0]["message"] == "The voice fell silent."

    run(scene)


def test_voice_that_is_missing_is_said_at_once() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.voice.missing = MissingExtraError("no voice here")
            with pytest.raises(ProtocolError) as failure:
                stage.session.speech.say("hello")
            assert failure.value.code == "no_voice" and not len(stage.session.cutter.queue)

    run(scene)


def test_queue_that_is_full_takes_no_more() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            for number in range(MAX_QUEUED):
                stage.session.speech.open_stream(16_000, f"s{number}")
            with pytest.raises(CapacityError):
                stage.session.speech.open_stream(16_000, "one too many")
            assert len(stage.session.cutter.queue) == MAX_QUEUED

    run(scene)


def test_ids_in_use_are_refused() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.session.speech.say("hello", "same")
            with pytest.raises(ProtocolError):
                stage.session.speech.say("hello", "same")
            assert len(stage.session.cutter.queue) == 1

    run(scene)


def test_stream_that_pauses_is_silent_and_counts_only_its_own_sound() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stream = stage.session.speech.open_stream(48_000, "s")
            await stream.append(tone(1.0).astype("<i2").tobytes(), time.monotonic())
            await stage.to(3.0)
            await stream.append(tone(1.0).astype("<i2").tobytes(), time.monotonic())
            stream.commit()
            await stage.to(6.0)
            assert stage.events.of("speaking.stopped")[0]["played_ms"] == 2000
            assert len(stage.events.of("speaking.started")) == 1

    run(scene)


def test_clear_forgets_streams_and_nothing_else() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(5.0), "stream")
            stage.session.speech.say("a text", "text")
            await stage.to(2.0)
            stage.session.speech.clear_streams()
            assert [event["utterance"] for event in stage.events.of("speaking.stopped")] == ["stream"]
            await stage.to(5.0)
            assert stage.events.of("speaking.stopped")[-1]["utterance"] == "text"
            assert stage.events.of("speaking.stopped")[-1]["reason"] == "finished"

    run(scene)


@pytest.mark.parametrize("order", ["stream before text", "text before stream"])
@pytest.mark.parametrize("at", [0.4, 0.7, 0.9, 1.1, 1.3, 1.5, 1.8])
def test_clear_beside_a_text_that_is_cut_already_stops_each_utterance_once(order: str, at: float) -> None:
    async def scene() -> None:
        async with Stage() as stage:
            if order == "text before stream":
                stage.session.speech.say("a text", "text")
            await stream_of(stage, tone(1.0), "stream")
            if order == "stream before text":
                stage.session.speech.say("a text", "text")
            await stage.to(at)
            stage.session.speech.clear_streams()
            await stage.to(8.0)
            stopped = {event["utterance"]: event for event in stage.events.of("speaking.stopped")}
            assert len(stage.events.of("speaking.stopped")) == len(stopped) == 2
            assert stopped["text"]["reason"] == "finished" and stopped["text"]["played_ms"] == 1300
            assert stopped["stream"]["played_ms"] <= 1000 and stage.session.timeline.state == "idle"
            assert len(stage.events.of("speaking.started")) <= 2
            heard_ms = 20 * sum(np.abs(block).max() > 300 for block in stage.broadcast.heard)
            assert heard_ms == pytest.approx(1000 + stopped["stream"]["played_ms"], abs=40)

    run(scene)
