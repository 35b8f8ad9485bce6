"""Processes in place of the reader of uploads; importable by a spawned child."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from streamer.child import ChildChannel
from streamer.errors import InputError
from streamer.uploads import worker
from streamer.uploads.worker import Block, Opened, Picture, Ready


def hanging(channel: ChildChannel) -> None:
    channel.send(Ready())
    time.sleep(60)


def dying(channel: ChildChannel) -> None:
    channel.send(Ready())
    channel.receive()
    os._exit(11)


def greedy(channel: ChildChannel) -> None:
    """Takes more memory than it may have."""
    channel.send(Ready())
    channel.receive()
    with worker.in_words(Path("x")):
        bytes(1 << 30)
    channel.send(Opened(None))
    channel.send(Block(0))


def short_of_output(channel: ChildChannel) -> None:
    """The real one, with less to say."""
    worker.MAX_SOUND_S = 3
    worker.run(channel)


@dataclass(frozen=True)
class Refused:
    message: str


def reading_many(channel: ChildChannel) -> None:
    """The real one for many pictures, which stay here."""
    channel.send(Ready())
    while True:
        wanted, (descriptor,) = channel.receive()
        path = Path(f"/dev/fd/{descriptor}")
        try:
            with worker.in_words(path):
                pixels = worker.read_picture(path, wanted.longest_side)
            channel.send(Picture(*pixels.shape[:2]))
        except InputError as error:
            channel.send(Refused(str(error)))
        os.close(descriptor)
