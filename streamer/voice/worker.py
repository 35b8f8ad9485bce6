"""The voice's process: turns sentences into sound when asked, one at a time, and nothing else.

It speaks with `voice.py` over a pipe:

    → ("begin", job, text, seed, skip)   a text; `skip` sentences of it have been spoken before
    → ("next", job)                      its next sentence, please
    → ("drop", job)                      forget it
    ← ("ready",) or ("unusable", sentence)
    ← ("sound", job, bytes)              int16, 48 kHz
    ← ("end", job)
    ← ("failed", job, sentence)

Nothing is spoken ahead of being asked for: that is all the flow control and cancellation there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

MAX_RUN_CHARACTERS = 240  # without any punctuation; longer runs are parted at a space
LEAD_IN_LEVEL, LEAD_IN_MS = 0.005, 40
_RUN = re.compile(rf"[^.!?,;:—\n]{{{MAX_RUN_CHARACTERS},}}")


def main(pipe: Connection) -> None:
    """Serves until the other end of the pipe is gone."""
    try:
        voice = _load()
    except Exception as error:
        pipe.send(("unusable", f"The voice cannot be loaded: {error}."))
        return
    pipe.send(("ready",))
    jobs: dict[int, Iterator[bytes]] = {}
    while True:
        try:
            kind, job, *rest = pipe.recv()
        except (EOFError, OSError):
            return
        if kind == "begin":
            jobs[job] = sentences(voice, *rest)
        elif kind == "drop":
            jobs.pop(job, None)
        elif kind == "next" and job in jobs:
            try:
                pipe.send(_next(jobs, job))
            except OSError:
                return


def _next(jobs: dict[int, Iterator[bytes]], job: int) -> tuple[Any, ...]:
    try:
        sound = next(jobs[job], None)
    except Exception as error:
        del jobs[job]
        return ("failed", job, f"The voice failed at this text: {type(error).__name__}.")
    if sound is None:
        del jobs[job]
        return ("end", job)
    return ("sound", job, sound)


def sentences(voice: Any, text: str, seed: int, skip: int) -> Iterator[bytes]:
    """Sound of a text's sentences from number `skip` on, int16 at 48 kHz."""
    from streamer.media.sound import PcmResampler

    number = 0
    for written in voice.split_sentences(part_runs(text)):
        if number < skip:
            number += 1
            continue
        parts = list(voice.stream(written, seed=seed + number))
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if not number:
            samples = without_lead_in(samples, voice.sample_rate)
        number += 1
        pcm = (np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        resampler = PcmResampler(voice.sample_rate)
        sound = np.concatenate([resampler.push(pcm), resampler.flush()]) if pcm else np.zeros(0, np.int16)
        yield sound.tobytes()


def without_lead_in(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Sound without the silence it begins with, all but 40 ms: this voice takes 0.3 s to begin, and somebody waits."""
    loud = np.flatnonzero(np.abs(samples) > LEAD_IN_LEVEL)
    return samples[max(0, loud[0] - LEAD_IN_MS * sample_rate // 1000) :] if len(loud) else samples


def part_runs(text: str) -> str:
    """Parts long runs without punctuation by line ends, so that no single sentence takes seconds."""

    def part(match: re.Match[str]) -> str:
        lines, line = [], ""
        for word in match[0].split(" "):
            while len(word) > MAX_RUN_CHARACTERS:
                lines += [line, word[:MAX_RUN_CHARACTERS]]
                line, word = "", word[MAX_RUN_CHARACTERS:]
            if line and len(line) + len(word) + 1 > MAX_RUN_CHARACTERS:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        return "\n".join(filter(None, [*lines, line]))

    return _RUN.sub(part, text)


def _load() -> Any:
    from hibari import Hibari

    voice = Hibari(threads=1)
    for _ in voice.stream("Ready.", seed=0):  # the first run is the slow one
        pass
    return voice
