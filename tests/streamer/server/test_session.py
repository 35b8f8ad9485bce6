from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from streamer.errors import CapacityError, EngineLost, MissingExtraError, ProtocolError, SessionError
from streamer.server.chunks import OUTAGE_S
from streamer.server.session import MAX_VIEWERS
from streamer.server.sources import MAX_QUEUED
from tests.streamer.server.fakes import Stage, loud_frames, loud_samples, moving_frames, settle, stream_of, tone


def run(scene) -> None:
    asyncio.run(scene())


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
                "utterance.queued", "speaking.started", "state", "speaking.stopped", "state",
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


@pytest.mark.parametrize("warm_rtf", [0.2, 0.45, 0.8])
@pytest.mark.parametrize("phase", range(0, 480, 60))
def test_interrupt_silences_sound_at_once_and_the_mouth_within_600_ms(phase: int, warm_rtf: float) -> None:
    async def scene() -> None:
        async with Stage(warm_rtf) as stage:
            await stream_of(stage, tone(8.0))
            at = 3.0 + phase / 1000
            await stage.to(at)
            name, played_ms = stage.session.interrupt()
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
                stage.session.interrupt()
            await stage.clock.advance(2.0)
            assert stage.playout.stats.frames_held <= 2 * 20
            assert loud_frames(stage.broadcast)[-1] < len(stage.broadcast.seen) - 30
            assert stage.stream.rewinds > 0

    run(scene)


def test_interrupt_clears_what_is_queued_and_tells_every_one_of_them() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.session.say("one. two. three", "a")
            stage.session.say("four", "b")
            stage.session.say("five", "c")
            await stage.to(1.5)
            assert stage.session.interrupt()[0] == "a"
            stopped = stage.events.of("speaking.stopped")
            assert [event["utterance"] for event in stopped] == ["a", "b", "c"]
            assert [event["played_ms"] for event in stopped[1:]] == [0, 0]
            await stage.to(6.0)
            assert len(stage.events.of("speaking.started")) == 1 and not len(stage.session.queue)
            assert stage.voice.dropped == 3  # nothing is synthesised any more

    run(scene)


def test_interrupt_before_anything_is_heard_reports_nothing_played() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(2.0))
            await stage.clock.advance(0.05)  # cut, but far from played
            assert stage.session.interrupt() == ("tone", 0)
            await stage.to(3.0)
            assert not np.any(stage.broadcast.sound) and not loud_frames(stage.broadcast)

    run(scene)


def test_interrupt_with_nothing_to_interrupt() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.to(1.0)
            assert stage.session.interrupt() == (None, None)
            assert stage.events.types == [] and stage.stream.rewinds == 0

    run(scene)


def test_speech_after_an_interruption_is_whole() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(5.0), "long")
            await stage.to(2.0)
            stage.session.interrupt()
            await stream_of(stage, tone(1.0), "next")
            await stage.to(6.0)
            assert stage.events.of("speaking.stopped")[-1] == {
                "type": "speaking.stopped",
                "utterance": "next",
                "played_ms": 1000,
                "reason": "finished",
            }

    run(scene)


def test_first_sentence_is_said_before_the_last_is_synthesised() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.session.say(". ".join(["sentence"] * 40))
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
            stage.session.say("one. two", "x")
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
                stage.session.say("hello")
            assert failure.value.code == "no_voice" and not len(stage.session.queue)

    run(scene)


def test_queue_that_is_full_takes_no_more() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            for number in range(MAX_QUEUED):
                stage.session.open_stream(16_000, f"s{number}")
            with pytest.raises(CapacityError):
                stage.session.open_stream(16_000, "one too many")
            assert len(stage.session.queue) == MAX_QUEUED

    run(scene)


def test_ids_in_use_are_refused() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.session.say("hello", "same")
            with pytest.raises(ProtocolError):
                stage.session.say("hello", "same")
            assert len(stage.session.queue) == 1

    run(scene)


def test_stream_that_pauses_is_silent_and_counts_only_its_own_sound() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stream = stage.session.open_stream(48_000, "s")
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
            stage.session.say("a text", "text")
            await stage.to(2.0)
            stage.session.clear_streams()
            assert [event["utterance"] for event in stage.events.of("speaking.stopped")] == ["stream"]
            await stage.to(5.0)
            assert stage.events.of("speaking.stopped")[-1]["utterance"] == "text"
            assert stage.events.of("speaking.stopped")[-1]["reason"] == "finished"

    run(scene)


# -- microphone --------------------------------------------------------------------------------------------


def test_caller_drives_the_presenter_with_their_own_sound_later() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            microphone = await stage.call()
            speech = tone(20.0)
            microphone.sound = lambda at: np.where((at >= 48_000) & (at < 96_000), speech[at % len(speech)], 0)
            await stage.to(5.0)
            first, last = loud_samples(stage.broadcast)
            frames = loud_frames(stage.broadcast)
            assert frames[0] == first // 1920 and abs(frames[-1] - last // 1920) <= 1
            # The chunk that is cut at 0 is the microphone's first: its sample 0 plays with frame 0.
            assert first == pytest.approx(48_000, abs=400)
            events = [event for event in stage.events.messages if event["type"].startswith("speaking")]
            assert [event["type"] for event in events] == ["speaking.started", "speaking.stopped"]
            assert events[0]["source"] == "microphone" and events[1]["played_ms"] == pytest.approx(1000, abs=250)

    run(scene)


def test_noise_of_the_room_neither_opens_the_mouth_nor_is_heard() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            microphone = await stage.call()
            microphone.sound = lambda at: 2000 * np.sin(at / 20)
            await stage.to(4.0)
            assert not np.any(stage.broadcast.sound) and not np.any(np.concatenate(stage.stream.heard))
            assert stage.events.types == []

    run(scene)


def test_microphone_that_is_switched_off_is_not_heard() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            microphone = await stage.call()
            microphone.sound = lambda at: tone(1.0)[at % 48_000]
            stage.session.set_microphone(False)
            await stage.to(3.0)
            assert not np.any(stage.broadcast.sound)

    run(scene)


def test_broadcast_mode_has_no_microphone() -> None:
    async def scene() -> None:
        async with Stage(mode="broadcast") as stage:
            await stage.session.connect("v=0", "caller")
            assert stage.peers[0].microphone is None and stage.session.cutter.hearing is None

    run(scene)


@pytest.mark.parametrize("is_barge_in", [True, False])
def test_caller_who_speaks_interrupts_only_where_that_is_wanted(is_barge_in: bool) -> None:
    async def scene() -> None:
        async with Stage(is_barge_in=is_barge_in) as stage:
            microphone = await stage.call()
            await stream_of(stage, tone(6.0), "say")
            await stage.to(2.0)
            microphone.sound = lambda at: tone(1.0)[at % 48_000]
            await stage.to(2.6)
            assert bool(stage.events.of("interrupted")) == is_barge_in
            await stage.to(5.0)
            sources = [event["source"] for event in stage.events.of("speaking.started")]
            assert sources == (["stream", "microphone"] if is_barge_in else ["stream"])

    run(scene)


def test_interrupted_caller_is_silent_until_they_have_paused() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            microphone = await stage.call()
            microphone.sound = lambda at: np.where((at < 144_000) | (at > 240_000), tone(1.0)[at % 48_000], 0)
            await stage.to(2.0)
            assert stage.session.interrupt()[0] == "microphone-1"
            await stage.to(4.5)
            assert [event["type"] for event in stage.events.messages].count("speaking.started") == 1
            await stage.to(8.0)
            assert stage.events.of("speaking.started")[-1]["utterance"] == "microphone-2"

    run(scene)


# -- trouble with the engine -------------------------------------------------------------------------------


def test_lost_engine_costs_a_chunk_and_is_told_once() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(6.0))
            await stage.to(2.0)
            stage.stream.error = EngineLost("the engine died")
            await stage.to(2.5)
            stage.is_engine_ready = False
            await stage.to(4.0)
            stage.is_engine_ready, stage.stream.error = True, None
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
            stage.is_engine_ready = False
            await stage.to(3.0)
            assert len(stage.events.of("error")) == 1  # the chunks that are missing tell nothing new
            stage.is_engine_ready = True
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
            stage.is_engine_ready = False
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
            assert stage.session.chunks.counts.skipped > 0 and stage.session.chunks.counts.late > 0
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
            assert stage.session.chunks.counts.skipped >= 9

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


# -- direction and avatars ---------------------------------------------------------------------------------


def test_prompt_emotion_and_gestures_reach_the_engine_as_it_knows_them() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.session.set_prompt(None, "happy", None)
            await stage.session.set_prompt("by the sea", "sad", 1.5)
            await stage.session.set_prompt(None, None, 0.5)
            assert stage.stream.updates == [
                {"prompt": "happy, smiling"},
                {"prompt": "sad, downcast, by the sea", "motion_energy": 1.5},
                {"motion_energy": 0.5},
            ]
            assert [event["prompt"] for event in stage.events.of("session")][-2:] == [
                "happy, smiling",
                "sad, downcast, by the sea",
            ]
            with pytest.raises(ProtocolError):
                await stage.session.set_prompt(None, None, None)

    run(scene)


def test_avatar_changes_only_when_nobody_speaks() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stream_of(stage, tone(2.0))
            await stage.to(0.5)
            await stage.session.set_avatar("Ben")
            await stage.to(1.5)
            assert not stage.stream.updates and stage.session.describe().avatar == "Ada"
            await stage.to(4.0)
            assert stage.stream.updates[0].keys() == {"reference", "prompt"}
            assert stage.events.of("session")[-1]["avatar"] == "Ben"
            stopped = [event["type"] for event in stage.events.messages].index("speaking.stopped")
            changed = [event.get("avatar") for event in stage.events.messages].index("Ben")
            assert changed > stopped

    run(scene)


# -- connections -------------------------------------------------------------------------------------------


def test_session_ends_when_nobody_has_been_connected_for_30_s() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            ident, _ = await stage.session.connect("v=0", "viewer")
            await stage.to(60.0)
            assert stage.session.end_reason is None
            await stage.session.disconnect(ident)
            await stage.to(89.0)
            assert stage.session.end_reason is None
            await stage.to(91.0)
            assert stage.session.end_reason == "idle" and stage.stream.is_closed

    run(scene)


def test_second_caller_takes_the_place_of_the_first() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            await stage.call()
            await settle()
            assert [peer.is_closed for peer in stage.peers] == [True, False]
            assert len(stage.session.connections) == 1
            assert stage.session.cutter.hearing is not None

    run(scene)


def test_peer_that_is_gone_is_closed() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            stage.peers[0].on_gone("timeout")
            await settle()
            assert stage.peers[0].is_closed and not stage.session.connections
            assert stage.session.cutter.hearing is None

    run(scene)


def test_offer_that_cannot_be_used_leaves_nothing() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            with pytest.raises(ProtocolError):
                await stage.session.connect("nonsense", "caller")
            assert stage.peers[0].is_closed and not stage.session.connections

    run(scene)


def test_viewers_are_counted_told_and_limited() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            for _ in range(MAX_VIEWERS):
                await stage.session.connect("v=0", "viewer")
            assert stage.events.of("session")[-1]["viewers"] == MAX_VIEWERS
            with pytest.raises(CapacityError):
                await stage.session.connect("v=0", "viewer")
            await stage.session.connect("v=0", "caller")  # the caller has a place of their own

    run(scene)


def test_new_connections_are_told_the_session_once_when_their_channel_opens() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            stage.peers[0].sent.clear()
            stage.peers[0].on_open()
            assert [message["type"] for message in stage.peers[0].sent] == ["session"]
            assert stage.peers[0].sent[0]["id"] == "s"
            await stage.to(3.5)
            assert "session" not in [message["type"] for message in stage.peers[0].sent[1:]]

    run(scene)


def test_ending_closes_everything_and_says_why() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            await stage.call()
            stage.session.say("one. two. three")
            await stage.to(1.0)
            stage.session.end("deleted")
            stage.session.end("idle")  # only the first reason counts
            await settle()
            assert stage.stream.is_closed and stage.peers[0].is_closed
            assert stage.peers[0].sent[-1] == {"type": "closed", "reason": "deleted"}
            with pytest.raises(SessionError):
                stage.session.say("too late")
        assert len(asyncio.all_tasks()) == 1

    run(scene)


def test_failure_within_a_session_ends_it_with_a_word() -> None:
    async def scene() -> None:
        async with Stage() as stage:
            stage.stream.error = RuntimeError("fell over")
            await stage.to(1.0)
            assert stage.session.end_reason == "internal"
            assert stage.events.messages[-1] == {"type": "closed", "reason": "internal"}

    run(scene)
