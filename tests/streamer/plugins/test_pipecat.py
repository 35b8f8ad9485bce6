"""pipecat's own test pipeline with the avatar."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("pipecat", reason="the extra `pipecat` is not installed")

from pipecat.frames.frames import (  # noqa: E402
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    OutputTransportReadyFrame,
    SpeechOutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.tests.utils import SleepFrame, run_test  # noqa: E402

from streamer import Avatar  # noqa: E402
from streamer.engine import Engine  # noqa: E402
from streamer.plugins.pipecat import InfinityAvatarService  # noqa: E402

RATE = 24_000


def speech(seconds: float, channels: int = 1) -> TTSAudioRawFrame:
    samples = (12_000 * np.sin(np.arange(int(seconds * RATE)) * 0.3)).astype(np.int16)
    return TTSAudioRawFrame(np.repeat(samples, channels).tobytes(), RATE, channels)


def run(
    runner: asyncio.Runner, engine: Engine, portrait: str, frames: Sequence[Frame]
) -> tuple[InfinityAvatarService, list[Frame]]:
    """The service, and what came out of it."""

    async def run() -> tuple[InfinityAvatarService, list[Frame]]:
        service = InfinityAvatarService(Avatar(reference=portrait, engine=engine))
        down, _ = await run_test(service, frames_to_send=frames, start_timeout=20)
        assert engine.streams == 0  # the service has left the avatar
        return service, list(down)

    return runner.run(run())


def sound_s(frames: Sequence[Frame]) -> float:
    return sum(len(f.audio) / 2 / f.sample_rate for f in frames if isinstance(f, SpeechOutputAudioRawFrame))


def test_speech_comes_back_whole_with_its_pictures(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    frames = [OutputTransportReadyFrame(), TTSStartedFrame(), speech(0.5), speech(0.3, channels=2), TTSStoppedFrame()]
    service, down = run(runner, engine, portrait, frames)
    assert sound_s(down) == pytest.approx(0.8, abs=0.001) and service.last_played_ms == 800
    assert not any(isinstance(frame, TTSAudioRawFrame) for frame in down)
    pictures = [frame for frame in down if isinstance(frame, OutputImageRawFrame)]
    assert len(pictures) >= 20 and {(frame.size, frame.format) for frame in pictures} == {((96, 128), "RGB")}


def test_nothing_is_sent_before_the_transport_is_ready(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    _, down = run(runner, engine, portrait, [SleepFrame(0.5)])
    assert not any(isinstance(frame, OutputImageRawFrame) for frame in down)


def test_idle_gives_pictures_and_no_sound(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    _, down = run(runner, engine, portrait, [OutputTransportReadyFrame(), SleepFrame(1.0)])
    assert any(isinstance(frame, OutputImageRawFrame) for frame in down) and sound_s(down) == 0


def test_an_interruption_stops_the_speech_and_is_passed_on(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    frames = [OutputTransportReadyFrame(), TTSStartedFrame(), speech(3.0), SleepFrame(1.0), InterruptionFrame()]
    service, down = run(runner, engine, portrait, [*frames, SleepFrame(0.5)])
    at = next(index for index, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
    assert 0 < sound_s(down) < 2.0 and sound_s(down[at:]) <= 0.08
    assert service.last_played_ms == pytest.approx(1000 * sound_s(down), abs=60)


def test_many_interruptions_leave_nothing_stuck(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    frames: list[Frame] = [OutputTransportReadyFrame()]
    for _ in range(200):
        frames += [TTSStartedFrame(), speech(0.2), SleepFrame(0.01), InterruptionFrame()]  # which overtakes what waits
    service, down = run(runner, engine, portrait, [*frames, SleepFrame(0.2), speech(0.4), TTSStoppedFrame()])
    assert service.last_played_ms == 400
    assert sum(isinstance(frame, InterruptionFrame) for frame in down) == 200
