"""What the children of `test_process` run; importable by a spawned child."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import numpy as np

from streamer.child import ChildChannel
from streamer.child.arrays import array_file


@dataclass(frozen=True)
class Hello:
    name: str


@dataclass(frozen=True)
class Echo:
    size: int


def echoing(channel: ChildChannel, name: str) -> None:
    """Answers with as many int16 as it is asked for."""
    channel.send(Hello(name))
    for message in channel:
        channel.send(message, [array_file(np.arange(message.size).astype("int16"))])


def silent(channel: ChildChannel, name: str) -> None:
    channel.send(Hello(name))
    time.sleep(60)


def dying(channel: ChildChannel, name: str) -> None:
    channel.send(Hello(name))
    channel.receive()
    os._exit(3)


def failing(channel: ChildChannel, name: str) -> None:
    raise ValueError(name)
