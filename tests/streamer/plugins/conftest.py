"""One engine with the test pattern for the plug-ins, and a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from PIL import Image

from streamer.engine import Engine, EngineConfig

SIZE = (128, 96)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner) -> Iterator[Engine]:
    engine = runner.run(
        Engine.launch(EngineConfig(pipeline="test-pattern", pattern_size=SIZE, max_streams=2, mark=None))
    )
    yield engine
    runner.run(engine.close())


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "grey.png"
    Image.new("RGB", SIZE[::-1], (64, 64, 64)).save(path)
    return str(path)
