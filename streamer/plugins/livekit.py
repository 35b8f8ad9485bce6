"""LiveKit Agents: the avatar as a `VideoGenerator`, as a worker that joins a room, and as an `AvatarSession`.

In one process with the agent (`beside_agent`) the agent's sound goes straight to the avatar. As a worker of its own
(`run_worker`) the avatar joins the room as a participant, and the agent, which started `InfinityAvatarSession`, sends
it the sound over LiveKit's data streams. Both tell the agent when a segment begins and ends to be heard, so transcripts
follow the picture, and both end when the other side is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
from livekit import api, rtc
from livekit.agents.voice.avatar import (
    AudioReceiver,
    AudioSegmentEnd,
    AvatarOptions,
    AvatarRunner,
    AvatarSession,
    DataStreamAudioOutput,
    DataStreamAudioReceiver,
    QueueAudioOutput,
    VideoGenerator,
)

from streamer.avatar import Avatar, Picture, Sound, UtteranceEnd

IDENTITY = "infinity-avatar"
PUBLISH_ON_BEHALF = "lk.publish_on_behalf"
AGENT_RATE_HZ = 16_000  # what the models hear; more would only be thrown away
CLEAR_TIMEOUT_S = 2.0  # None would let an interruption hang on a dead avatar (livekit/agents#6164)
QUEUE_MS = 40  # of the runner: what it counts as played is at most a frame ahead of what is


class AvatarVideo(VideoGenerator):
    """What LiveKit's runner asks for. While nothing is said it gives pictures only: sound would count as playback."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._is_over = asyncio.Event()  # the utterance that ended last has been said

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Sound of the agent, int16 of any rate and number of channels, or the end of a segment.

        The end waits until the segment has been said: the runner counts one at a time.
        """
        if isinstance(frame, AudioSegmentEnd):
            self._is_over.clear()
            if await self._avatar.end() is not None:
                await self._is_over.wait()
            return
        samples = np.frombuffer(frame.data, np.int16)
        if frame.num_channels > 1:
            samples = samples.reshape(-1, frame.num_channels).mean(axis=1).astype(np.int16)
        await self._avatar.push(samples, frame.sample_rate)

    async def clear_buffer(self) -> None:
        """The agent was interrupted."""
        await self._avatar.interrupt()

    async def _items(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        async for item in self._avatar:
            match item:
                case Picture(pixels=pixels):
                    height, width = pixels.shape[:2]
                    yield rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, pixels.tobytes())
                case Sound(samples=samples, sample_rate=rate):
                    yield rtc.AudioFrame(samples.tobytes(), rate, 1, len(samples))
                case UtteranceEnd(is_interrupted=is_interrupted):
                    if not is_interrupted:  # else the runner has told the agent itself
                        yield AudioSegmentEnd()
                    self._is_over.set()

    def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        return self._items()


class AgentSound(QueueAudioOutput):
    """LiveKit's queue in one process, where segments that are cleared before anybody read them are reported as well."""

    def __init__(self) -> None:
        super().__init__(sample_rate=AGENT_RATE_HZ, wait_playback_start=True)
        self._unread = 0  # segments
        self._is_open = False  # more of the newest segment may come
        self._is_next_new = True  # what is read next begins a segment

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        if not self._is_open:
            self._is_open = True
            self._unread += 1
        await super().capture_frame(frame)

    def flush(self) -> None:
        self._is_open = False
        super().flush()

    def clear_buffer(self) -> None:
        unread, self._unread = self._unread, 0
        self._is_next_new = self._is_next_new or not self._is_open
        super().clear_buffer()
        for _ in range(unread):
            self.on_playback_finished(playback_position=0.0, interrupted=True)

    async def _read(self) -> AsyncIterator[rtc.AudioFrame | AudioSegmentEnd]:
        async for item in super().__aiter__():
            is_end = isinstance(item, AudioSegmentEnd)
            if self._is_next_new and not is_end:
                self._unread -= 1
            self._is_next_new = is_end
            yield item

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame | AudioSegmentEnd]:
        return self._read()


def options_of(avatar: Avatar) -> AvatarOptions:
    """Size and rates of what an entered avatar gives."""
    height, width = avatar.frame_size
    return AvatarOptions(
        video_width=width, video_height=height, video_fps=avatar.fps, audio_sample_rate=48_000, audio_channels=1
    )


@contextlib.asynccontextmanager
async def running(room: rtc.Room, avatar: Avatar, receiver: AudioReceiver) -> AsyncIterator[AvatarRunner]:
    """LiveKit's runner with this avatar, for as long as the context lasts."""
    runner = AvatarRunner(
        room,
        audio_recv=receiver,
        video_gen=AvatarVideo(avatar),
        options=options_of(avatar),
        _queue_size_ms=QUEUE_MS,
        _lazy_publish=False,  # whoever is in the room sees the presenter listen
    )
    await runner.start()
    try:
        yield runner
    finally:
        await runner.aclose()


@contextlib.asynccontextmanager
async def beside_agent(agent_session: Any, room: rtc.Room, avatar: Avatar) -> AsyncIterator[AvatarRunner]:
    """The avatar in the agent's own process: what the agent says goes to the avatar, and from there into the room."""
    sound = AgentSound()
    agent_session.output.replace_audio_tail(sound)
    async with running(room, avatar, sound) as runner:
        yield runner


async def run_worker(url: str, token: str, avatar: Avatar, agent_identity: str | None = None) -> None:
    """Join a room as the avatar and talk, until the agent leaves or the room is closed.

    Args:
        url, token: of the LiveKit server; the token as `InfinityAvatarSession` makes it.
        agent_identity: whose sound it says; None for the first agent in the room.
    """
    room = rtc.Room()
    await room.connect(url, token)
    try:
        await serve_room(room, avatar, agent_identity)
    finally:
        await room.disconnect()


async def serve_room(room: rtc.Room, avatar: Avatar, agent_identity: str | None = None) -> None:
    """`run_worker` in a room that is connected already."""
    gone = asyncio.Event()

    def left(participant: rtc.RemoteParticipant) -> None:
        is_agent = participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
        if participant.identity == agent_identity or agent_identity is None and is_agent:
            gone.set()

    room.on("participant_disconnected", left)
    room.on("disconnected", lambda *_: gone.set())
    receiver = DataStreamAudioReceiver(room, sender_identity=agent_identity)
    async with running(room, avatar, receiver) as runner:
        waiting = [asyncio.create_task(gone.wait()), asyncio.create_task(runner.wait_for_complete())]
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            room.off("participant_disconnected", left)
    for task in done:
        task.result()  # an avatar that failed is not silent


class InfinityAvatarSession(AvatarSession[Any]):
    """The agent's side of an avatar that runs as a worker of its own.

    Args:
        launch: starts a worker, given the server's URL and the token it joins with, and returns when it has been asked.
        identity: of the avatar in the room.

    Emits `avatar_lost` when the avatar leaves the room while the agent goes on; the agent's own sound is then sent as
    it was before the avatar came.
    """

    def __init__(self, launch: Callable[[str, str], Awaitable[None]], identity: str = IDENTITY) -> None:
        super().__init__()
        self._launch, self._identity = launch, identity
        self._restore: Callable[[], None] = _nothing

    @property
    def avatar_identity(self) -> str:
        return self._identity

    @property
    def provider(self) -> str:
        return "infinity-avatar"

    async def start(  # type: ignore[override]
        self, agent_session: Any, room: rtc.Room, *, url: str, api_key: str, api_secret: str
    ) -> None:
        """Ask for a worker, and send what the agent says to it as soon as its picture is there."""
        await super().start(agent_session, room)
        token = (
            api.AccessToken(api_key, api_secret)
            .with_kind("agent")
            .with_identity(self._identity)
            .with_name(self._identity)
            .with_grants(api.VideoGrants(room_join=True, room=room.name))
            .with_attributes({PUBLISH_ON_BEHALF: room.local_participant.identity})
            .to_jwt()
        )
        await self._launch(url, token)
        before = agent_session.output.audio
        self._restore = lambda: agent_session.output.replace_audio_tail(before)
        room.on("participant_disconnected", self._left)
        agent_session.output.replace_audio_tail(
            DataStreamAudioOutput(
                room,
                destination_identity=self._identity,
                sample_rate=AGENT_RATE_HZ,
                wait_remote_track=rtc.TrackKind.KIND_VIDEO,
                wait_playback_start=True,  # the transcript follows the picture (livekit/agents#4406)
                clear_buffer_timeout=CLEAR_TIMEOUT_S,
            )
        )

    def _left(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity == self._identity:
            restore, self._restore = self._restore, _nothing
            restore()
            self.emit("avatar_lost")

    async def aclose(self) -> None:
        if self._room is not None:
            self._room.off("participant_disconnected", self._left)
        await super().aclose()


def _nothing() -> None:
    """The agent's sound is where it was."""
