"""The engine: a process of its own that makes frames, and its asyncio side.

Importing this package never imports torch; only the child process does.
"""

from streamer.engine.client import Engine, EngineChunk, EngineStream, StepCancelled
from streamer.engine.config import EngineConfig, EngineFacts, StreamSpec
from streamer.engine.ladder import Rung

__all__ = [
    "Engine",
    "EngineChunk",
    "EngineConfig",
    "EngineFacts",
    "EngineStream",
    "Rung",
    "StepCancelled",
    "StreamSpec",
]
