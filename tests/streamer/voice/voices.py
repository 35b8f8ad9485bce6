"""Processes in place of the voice, for the tests of `Voice`; importable by a spawned child."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def counting(pipe) -> None:
    """Every character of a text is a sentence: as many samples as its code."""
    serve(pipe, lambda letter: None)


def dying(pipe) -> None:
    """Dies at the letter d, every time."""
    serve(pipe, lambda letter: os._exit(3) if letter == "d" else None)


def dying_once(pipe) -> None:
    """Dies at the letter o, but only as long as the mark it leaves is not there."""

    def before(letter: str) -> None:
        mark = Path(os.environ["VOICE_MARK"])
        if letter == "o" and not mark.exists():
            mark.touch()
            os._exit(3)

    serve(pipe, before)


def unusable(pipe) -> None:
    pipe.send(("unusable", "The voice is hoarse."))


def serve(pipe, before) -> None:
    jobs = {}
    pipe.send(("ready",))
    while True:
        try:
            kind, job, *rest = pipe.recv()
        except EOFError:
            return
        if kind == "begin":
            text, _, skip = rest
            jobs[job] = list(text[skip:])
        elif kind == "drop":
            jobs.pop(job, None)
            if not jobs:
                print("dropped", file=sys.stderr)
        elif kind == "next" and job in jobs:
            if not jobs[job]:
                del jobs[job]
                pipe.send(("end", job))
                continue
            letter = jobs[job].pop(0)
            before(letter)
            if letter == "!":
                pipe.send(("failed", job, "The voice does not shout."))
            elif letter == "~":
                time.sleep(0.2)
                pipe.send(("sound", job, bytes(2)))
            else:
                pipe.send(("sound", job, bytes(2 * ord(letter))))
