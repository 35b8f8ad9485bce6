"""pipecat: the avatar as a video service, between a pipeline's text-to-speech and its output transport.

    Pipeline([transport.input(), stt, …, llm, tts, InfinityAvatarService(Avatar("maya")), transport.output()])

The transport wants `TransportParams(audio_out_enabled=True, video_out_enabled=True, video_out_is_live=True)` and the
avatar's size. Speech is taken from the pipeline and given back with its pictures, in real time; speech that comes
faster waits here. While nothing is said the presenter listens.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    SpeechOutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings

from streamer.avatar import Avatar, Picture, Sound, UtteranceEnd
from streamer.errors import EngineLost


class InfinityAvatarService(AIService):
    """A presenter who says what the pipeline says.

    Args:
        avatar: not entered yet; the service enters and leaves it.

    Attributes:
        last_played_ms: of the utterance that ended or was interrupted last.
    """

    def __init__(self, avatar: Avatar, **options: Any) -> None:
        super().__init__(settings=ServiceSettings(model=None), **options)
        self.last_played_ms: int | None = None
        self._avatar = avatar
        self._is_entered = False
        self._reader: asyncio.Task[None] | None = None
        self._newest: int | None = None  # the utterance that was ended last
        self._is_over = asyncio.Event()  # it has been said
        self._is_over.set()

    def can_generate_metrics(self) -> bool:
        """The time from the first speech to the first picture that speaks."""
        return True

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as all of pipecat's own
        await super().setup(setup)
        await self._avatar.__aenter__()
        self._is_entered = True

    async def stop(self, frame: EndFrame) -> None:
        """What was to be said is said to its end."""
        await super().stop(frame)
        if self._reader is not None:
            await self._is_over.wait()
        await self._leave()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._leave()

    async def cleanup(self) -> None:
        await super().cleanup()
        await self._leave()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Speech is swallowed; everything else goes on."""
        await super().process_frame(frame, direction)
        match frame:
            case TTSAudioRawFrame():
                samples = np.frombuffer(frame.audio, np.int16)
                if frame.num_channels > 1:
                    samples = samples.reshape(-1, frame.num_channels).mean(axis=1).astype(np.int16)
                await self._avatar.push(samples, frame.sample_rate)
                return
            case TTSStartedFrame():
                await self.start_ttfb_metrics()
            case TTSStoppedFrame():
                number = await self._avatar.end()
                if number is not None:
                    self._newest = number
                    self._is_over.clear()
            case InterruptionFrame():
                await self._avatar.interrupt()
            case BotStartedSpeakingFrame():
                await self.stop_ttfb_metrics()
            case OutputTransportReadyFrame() if self._reader is None:  # nothing may be sent before
                self._reader = self.create_task(self._read())
        await self.push_frame(frame, direction)

    async def _read(self) -> None:
        while True:
            try:
                await self._give_out()
            except EngineLost as error:  # it is being started again
                await self.push_error(error_msg=f"the avatar's engine stopped: {error}", exception=error)

    async def _give_out(self) -> None:
        async for item in self._avatar:
            match item:
                case Picture(pixels=pixels):
                    height, width = pixels.shape[:2]
                    await self.push_frame(OutputImageRawFrame(pixels.tobytes(), (width, height), "RGB"))
                case Sound(samples=samples, sample_rate=rate):
                    await self.push_frame(SpeechOutputAudioRawFrame(samples.tobytes(), rate, 1))
                case UtteranceEnd(utterance=number, played_ms=played_ms):
                    self.last_played_ms = played_ms
                    if number == self._newest:
                        self._is_over.set()

    async def _leave(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await self.cancel_task(reader)
        if self._is_entered:
            self._is_entered = False
            await self._avatar.__aexit__(None, None, None)
