"""Prompt, emotion, gestures and avatars."""

from __future__ import annotations

import pytest

from streamer.errors import ProtocolError
from tests.streamer.session.fakes import Stage, run, stream_of, tone


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
            assert not stage.stream.updates and stage.session.audience.info.avatar == "Ada"
            await stage.to(4.0)
            assert stage.stream.updates[0].keys() == {"reference", "prompt"}
            assert stage.events.of("session")[-1]["avatar"] == "Ben"
            stopped = [event["type"] for event in stage.events.messages].index("speaking.stopped")
            changed = [event.get("avatar") for event in stage.events.messages].index("Ben")
            assert changed > stopped

    run(scene)
