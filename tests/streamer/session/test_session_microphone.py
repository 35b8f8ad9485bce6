"""The caller's own voice."""

from __future__ import annotations

import numpy as np
import pytest

from tests.streamer.session.fakes import Stage, loud_frames, loud_samples, run, stream_of, tone


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
            stage.session.cutter.is_microphone_on = False
            await stage.to(3.0)
            assert not np.any(stage.broadcast.sound)

    run(scene)


def test_broadcast_mode_has_no_microphone() -> None:
    async def scene() -> None:
        async with Stage(mode="broadcast") as stage:
            await stage.connect("v=0", "caller")
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
            assert stage.session.speech.interrupt()[0] == "microphone-1"
            await stage.to(4.5)
            assert [event["type"] for event in stage.events.messages].count("speaking.started") == 1
            await stage.to(8.0)
            assert stage.events.of("speaking.started")[-1]["utterance"] == "microphone-2"

    run(scene)
