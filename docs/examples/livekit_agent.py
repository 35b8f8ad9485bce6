"""A LiveKit agent with the avatar in the same process. Offline it says a sound file into a room that is a stand-in.

python docs/examples/livekit_agent.py speech.wav
"""

import asyncio
import sys
from typing import Any

import av
from livekit import rtc

from streamer import Avatar
from streamer.plugins.livekit import AGENT_RATE_HZ, beside_agent


async def entrypoint(ctx: Any) -> None:
    """The entry point of a LiveKit worker: `cli.run_app(WorkerOptions(entrypoint_fnc=entrypoint))`."""
    from livekit.agents import Agent, AgentSession

    await ctx.connect()
    session: Any = AgentSession()  # with your stt=, llm=, tts=
    async with Avatar() as avatar, beside_agent(session, ctx.room, avatar) as runner:
        await session.start(Agent(instructions="You are a friendly presenter."), room=ctx.room)
        await runner.wait_for_complete()


class Stand(rtc.EventEmitter[str]):
    """As much of a room, its participant and an agent's session as the avatar uses."""

    name = identity = "offline"

    def __init__(self) -> None:
        super().__init__()
        self.local_participant = self.output = self
        self.audio: Any = None

    def isconnected(self) -> bool:
        return True

    async def publish_track(self, track: Any, options: Any) -> Any:
        print(f"published {track.name}")
        return self

    async def wait_for_subscription(self) -> None: ...

    def replace_audio_tail(self, sink: Any) -> None:
        self.audio = sink


async def main(path: str, avatar: Avatar | None = None) -> float:
    stand = Stand()
    resampler = av.AudioResampler(format="s16", layout="mono", rate=AGENT_RATE_HZ)
    async with avatar or Avatar() as entered, beside_agent(stand, stand, entered):  # type: ignore[arg-type]
        with av.open(path) as container:
            for frame in container.decode(audio=0):
                for block in resampler.resample(frame):
                    data = block.to_ndarray().tobytes()
                    await stand.audio.capture_frame(rtc.AudioFrame(data, AGENT_RATE_HZ, 1, len(data) // 2))
        stand.audio.flush()
        finished = await stand.audio.wait_for_playout()
    print(f"said {finished.playback_position:.2f} s")
    return float(finished.playback_position)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
