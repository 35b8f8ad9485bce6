"""LiveKit's own runner and outputs with the avatar, in a room that is a stand-in: no server is needed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
import pytest

pytest.importorskip("livekit.agents", reason="the extra `livekit` is not installed")

from livekit import rtc  # noqa: E402
from livekit.agents.voice.io import PlaybackFinishedEvent  # noqa: E402

from streamer import Avatar  # noqa: E402
from streamer.engine import Engine  # noqa: E402
from streamer.plugins import livekit as plugin  # noqa: E402

RATE = 16_000


class Publication:
    async def wait_for_subscription(self) -> None: ...


class Participant:
    identity = "agent"

    def __init__(self) -> None:
        self.tracks: list[str] = []

    async def publish_track(self, track: Any, options: Any) -> Publication:
        self.tracks.append(track.name)
        return Publication()


class Room(rtc.EventEmitter[str]):
    """What the runner uses of a room."""

    name = "room"

    def __init__(self) -> None:
        super().__init__()
        self.local_participant = Participant()
        self.remote_participants: dict[str, Any] = {}

    def isconnected(self) -> bool:
        return True


class Output:
    """What a session's output is asked for."""

    def __init__(self) -> None:
        self.audio: Any = "voice only"

    def replace_audio_tail(self, sink: Any) -> None:
        self.audio = sink


class Agent(rtc.EventEmitter[str]):
    def __init__(self) -> None:
        super().__init__()
        self.output = Output()


class Ears:
    """What the runner sends into the room, and what it tells the agent."""

    def __init__(self, agent: Agent, runner: Any) -> None:
        self.events: list[Any] = []
        self.sound_s = self.pictures = 0.0
        agent.output.audio.on("playback_started", lambda event: self.events.append("started"))
        agent.output.audio.on("playback_finished", self.events.append)
        push = runner.av_sync.push

        async def heard(frame: Any, timestamp: float | None = None) -> None:
            await push(frame, timestamp)
            if isinstance(frame, rtc.AudioFrame):
                self.sound_s += frame.duration
            else:
                self.pictures += 1

        runner.av_sync.push = heard


@contextlib.asynccontextmanager
async def talking(engine: Engine, portrait: str):  # type: ignore[no-untyped-def]
    """Agent's output, and what is heard of it."""
    agent, room = Agent(), Room()
    async with (
        Avatar(reference=portrait, engine=engine) as avatar,
        plugin.beside_agent(agent, room, avatar) as runner,
    ):
        yield agent.output.audio, Ears(agent, runner), room


def frame(seconds: float) -> rtc.AudioFrame:
    samples = (12_000 * np.sin(np.arange(int(seconds * RATE)) * 0.3)).astype(np.int16)
    return rtc.AudioFrame(samples.tobytes(), RATE, 1, len(samples))


async def until(condition, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_segment_starts_and_finishes_once_with_its_length(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    async def run() -> None:
        async with talking(engine, portrait) as (output, ears, room):
            for _ in range(10):
                await output.capture_frame(frame(0.1))
            assert ears.events == []  # the transcript waits for the picture
            output.flush()
            await until(lambda: len(ears.events) == 2)
            assert ears.events[0] == "started"
            finished = ears.events[1]
            assert isinstance(finished, PlaybackFinishedEvent) and not finished.interrupted
            assert finished.playback_position == pytest.approx(1.0, abs=0.001)
            assert sorted(room.local_participant.tracks) == ["avatar_audio", "avatar_video"]

    runner.run(run())


def test_idle_gives_pictures_and_no_false_start(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with talking(engine, portrait) as (_, ears, _):
            await until(lambda: ears.pictures >= 20)
            assert ears.events == [] and ears.sound_s == 0

    runner.run(run())


def test_an_interruption_says_what_was_played(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with talking(engine, portrait) as (output, ears, _):
            for _ in range(30):
                await output.capture_frame(frame(0.1))
            await until(lambda: ears.sound_s >= 0.4)
            output.clear_buffer()
            output.flush()
            await until(lambda: len(ears.events) == 2)
            assert ears.events[0] == "started" and ears.events[1].interrupted
            assert ears.events[1].playback_position == pytest.approx(ears.sound_s, abs=0.06)
            heard_s, pictures = ears.sound_s, ears.pictures
            await until(lambda: ears.pictures >= pictures + 15)
            assert ears.sound_s == heard_s and len(ears.events) == 2

    runner.run(run())


def test_two_hundred_interruptions_leave_nothing_stuck(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with talking(engine, portrait) as (output, ears, _):
            for turn in range(200):
                await output.capture_frame(frame(0.2))
                if turn % 20 == 0:  # some are heard, most are cut off before
                    await until(lambda before=ears.sound_s: ears.sound_s > before)
                output.clear_buffer()
                output.flush()
                await asyncio.wait_for(output.wait_for_playout(), 10)
            finished = [event for event in ears.events if event != "started"]
            assert len(finished) == 200 and all(event.interrupted for event in finished)
            await output.capture_frame(frame(0.2))
            output.flush()
            await asyncio.wait_for(output.wait_for_playout(), 20)
            assert not ears.events[-1].interrupted
            assert ears.events[-1].playback_position == pytest.approx(0.2, abs=0.001)

    runner.run(run())


def test_segments_in_a_row_are_each_reported(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with talking(engine, portrait) as (output, ears, _):
            for seconds in (0.2, 0.4, 0.1):
                await output.capture_frame(frame(seconds))
                output.flush()
            await asyncio.wait_for(output.wait_for_playout(), 20)
            assert ears.events[::2] == ["started"] * 3
            assert [event.playback_position for event in ears.events[1::2]] == pytest.approx([0.2, 0.4, 0.1], abs=1e-3)

    runner.run(run())


def test_segments_that_wait_are_reported_when_all_is_cleared(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    async def run() -> None:
        async with talking(engine, portrait) as (output, ears, _):
            for seconds in (0.4, 0.4, 0.4):
                await output.capture_frame(frame(seconds))
                output.flush()
            await until(lambda: ears.sound_s > 0)
            output.clear_buffer()
            await asyncio.wait_for(output.wait_for_playout(), 10)
            finished = [event for event in ears.events if event != "started"]
            assert len(finished) == 3 and all(event.interrupted for event in finished)

    runner.run(run())


def test_stereo_sound_of_another_rate_is_taken(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine, is_realtime=False) as avatar:
            video = plugin.AvatarVideo(avatar)
            await video.push_audio(rtc.AudioFrame(bytes(48_000 // 5 * 4), 48_000, 2, 48_000 // 5))
            ending = asyncio.create_task(video.push_audio(plugin.AudioSegmentEnd()))
            items = []
            async for item in video:
                items.append(item)
                if isinstance(item, plugin.AudioSegmentEnd):
                    break
            assert not ending.done()  # the next segment waits for this one
            ending.cancel()
            assert sum(item.duration for item in items if isinstance(item, rtc.AudioFrame)) == pytest.approx(0.2)
            assert {(item.width, item.height) for item in items if isinstance(item, rtc.VideoFrame)} == {(96, 128)}

    runner.run(run())


class Left:
    kind = rtc.ParticipantKind.PARTICIPANT_KIND_AGENT

    def __init__(self, identity: str) -> None:
        self.identity = identity


def test_the_agents_side_goes_back_to_voice_when_the_avatar_dies(runner: asyncio.Runner) -> None:
    async def run() -> None:
        asked: list[tuple[str, str]] = []

        async def launch(url: str, token: str) -> None:
            asked.append((url, token))

        agent, room = Agent(), Room()
        session = plugin.InfinityAvatarSession(launch)
        lost: list[bool] = []
        session.on("avatar_lost", lambda: lost.append(True))
        room.isconnected = lambda: False  # type: ignore[method-assign]
        await session.start(agent, room, url="ws://127.0.0.1:7880", api_key="key", api_secret="s" * 32)
        assert asked[0][0] == "ws://127.0.0.1:7880"
        claims = plugin.api.TokenVerifier("key", "s" * 32).verify(asked[0][1])
        assert claims.identity == plugin.IDENTITY and claims.kind == "agent" and claims.video.room == "room"
        assert claims.attributes == {plugin.PUBLISH_ON_BEHALF: "agent"}
        assert isinstance(agent.output.audio, plugin.DataStreamAudioOutput)
        room.emit("participant_disconnected", Left("somebody"))
        assert lost == []
        room.emit("participant_disconnected", Left(plugin.IDENTITY))
        assert lost == [True] and agent.output.audio == "voice only"
        await session.aclose()

    runner.run(run())


def test_the_worker_ends_when_the_agent_leaves(
    runner: asyncio.Runner, engine: Engine, portrait: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Receiver(plugin.QueueAudioOutput):
        def __init__(self, room: Any, sender_identity: str | None = None) -> None:
            super().__init__(sample_rate=RATE)

    monkeypatch.setattr(plugin, "DataStreamAudioReceiver", Receiver)

    async def run() -> None:
        room = Room()
        async with Avatar(reference=portrait, engine=engine) as avatar:
            serving = asyncio.create_task(plugin.serve_room(room, avatar))
            await until(lambda: room.local_participant.tracks)
            room.emit("participant_disconnected", Left("the agent"))
            await asyncio.wait_for(serving, 10)

    runner.run(run())
