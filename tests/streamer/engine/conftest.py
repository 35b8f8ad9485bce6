"""One loop a module, so that a started engine can be shared by its tests; weights of the tiny preset."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models import checkpoints
    from models.pipeline import AvatarPipeline
    from models.presets import preset

    folder = tmp_path_factory.mktemp("weights")
    pipeline = AvatarPipeline(preset("tiny"))
    checkpoints.write_config(folder, pipeline.preset)
    for component in checkpoints.components(pipeline.preset):
        checkpoints.save_component(folder, component, getattr(pipeline, component))
    return folder
