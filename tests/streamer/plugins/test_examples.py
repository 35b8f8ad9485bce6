"""The examples of docs/examples, as they stand there, with the test pattern."""

from __future__ import annotations

import asyncio
import importlib.util
import wave
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from streamer import Avatar
from streamer.engine import Engine

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


def load(name: str) -> ModuleType:
    path = EXAMPLES / f"{name}.py"
    assert len(path.read_text().splitlines()) < 80
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def speech(tmp_path: Path) -> str:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((12_000 * np.sin(np.arange(16_000) * 0.3)).astype("<i2").tobytes())
    return str(path)


def test_pipecat_bot(runner: asyncio.Runner, engine: Engine, portrait: str, speech: str) -> None:
    pytest.importorskip("pipecat", reason="the extra `pipecat` is not installed")
    screen = runner.run(load("pipecat_bot").main(speech, Avatar(reference=portrait, engine=engine)))
    assert screen.sound_s == pytest.approx(1.0, abs=0.01) and screen.pictures >= 25


def test_livekit_agent(runner: asyncio.Runner, engine: Engine, portrait: str, speech: str) -> None:
    pytest.importorskip("livekit.agents", reason="the extra `livekit` is not installed")
    said_s = runner.run(load("livekit_agent").main(speech, Avatar(reference=portrait, engine=engine)))
    assert said_s == pytest.approx(1.0, abs=0.01)
