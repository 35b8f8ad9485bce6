"""Processes in place of the voice, for the tests of `Voice`; importable by a spawned child."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from streamer.child import ChildChannel
from streamer.child.arrays import array_file
from streamer.voice.worker import NoSentence, Ready, Sound, Unspeakable


def counting(channel: ChildChannel) -> None:
    """Every character of a text is a sentence: as many samples as its code."""
    serve(channel, lambda letter: None)


def dying(channel: ChildChannel) -> None:
    """Dies at the letter d, every time."""
    serve(channel, lambda letter: os._exit(3) if letter == "d" else None)


def dying_once(channel: ChildChannel) -> None:
    """Dies at the letter o, but only as long as the mark it leaves is not there."""

    def before(letter: str) -> None:
        mark = Path(os.environ["VOICE_MARK"])
        if letter == "o" and not mark.exists():
            mark.touch()
            os._exit(3)

    serve(channel, before)


def unusable(channel: ChildChannel) -> None:
    raise RuntimeError("the voice is hoarse")


def serve(channel: ChildChannel, before: Callable[[str], object]) -> None:
    channel.send(Ready())
    for wanted in channel:
        if wanted.number >= len(wanted.text):
            channel.send(NoSentence())
            continue
        letter = wanted.text[wanted.number]
        before(letter)
        if letter == "!":
            channel.send(Unspeakable("the voice does not shout"))
        elif letter == " ":
            channel.send(Sound(0))
        else:
            if letter == "~":
                time.sleep(0.2)
            channel.send(Sound(ord(letter)), [array_file(np.zeros(ord(letter), np.int16))])
