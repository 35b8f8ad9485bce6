"""A pipecat pipeline whose speech is said by the avatar: from a sound file, offline; put your own stages around it.

python docs/examples/pipecat_bot.py speech.wav
"""

import asyncio
import sys

import av
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    SpeechOutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from streamer import Avatar
from streamer.plugins.pipecat import InfinityAvatarService


class Screen(FrameProcessor):
    """Stands where your transport's output would: counts what it would send."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures, self.sound_s = 0, 0.0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputImageRawFrame):
            self.pictures += 1
        elif isinstance(frame, SpeechOutputAudioRawFrame):
            self.sound_s += len(frame.audio) / 2 / frame.sample_rate
        await self.push_frame(frame, direction)


def speech(path: str) -> list[Frame]:
    """What a text-to-speech service would send."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
    with av.open(path) as container:
        blocks = [block for frame in container.decode(audio=0) for block in resampler.resample(frame)]
    frames: list[Frame] = [TTSAudioRawFrame(block.to_ndarray().tobytes(), 24_000, 1) for block in blocks]
    return [TTSStartedFrame(), *frames, TTSStoppedFrame()]


async def main(path: str, avatar: Avatar | None = None) -> Screen:
    screen = Screen()
    worker = PipelineWorker(Pipeline([InfinityAvatarService(avatar or Avatar()), screen]))
    await worker.queue_frames([OutputTransportReadyFrame(), *speech(path), EndFrame()])
    runner = WorkerRunner()
    await runner.add_workers(worker)
    await runner.run()
    print(f"{screen.pictures} pictures, {screen.sound_s:.2f} s of speech")
    return screen


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
