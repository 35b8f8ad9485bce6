"""The voice's process: turns a sentence into sound when asked, one at a time, and nothing else.

It keeps nothing between two questions: a text and the number of a sentence of it are the whole question, so that one
that was not answered can be put to another process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from streamer.child import ChildChannel
from streamer.child.arrays import array_file

MAX_CHARACTERS, MAX_PHONEMES = 240, 400  # of what is spoken at once: some 0.5 s of work
LEAD_IN_LEVEL, LEAD_IN_MS = 0.005, 40
_LONG_NUMBER = re.compile(r"\d{13,}")  # longer than it can count, and than anybody wants to hear as one number
_CLAUSE_END = re.compile(r"[.!?,;:—]+\s")


@dataclass(frozen=True)
class Ready:
    """The voice is loaded."""


@dataclass(frozen=True)
class Speak:
    """Sentence `number` of a text, please."""

    text: str
    number: int
    seed: int


@dataclass(frozen=True)
class Sound:
    """So many samples, int16 at 48 kHz; with their descriptor, unless there are none."""

    samples: int


@dataclass(frozen=True)
class NoSentence:
    """The text has fewer."""


@dataclass(frozen=True)
class Unspeakable:
    """The voice fails at this sentence."""

    message: str


MESSAGES = (Ready, Speak, Sound, NoSentence, Unspeakable)


def run(channel: ChildChannel) -> None:
    """The process's whole life.

    Raises:
        RuntimeError: if the voice cannot be loaded.
    """
    try:
        voice = _load()
    except Exception as error:
        raise RuntimeError(f"the voice cannot be loaded: {error}") from error
    split = lru_cache(maxsize=64)(lambda text: tuple(sentences(text, voice.split_sentences, voice.g2p)))
    channel.send(Ready())
    for wanted in channel:
        try:
            written = split(wanted.text)
            if wanted.number >= len(written):
                channel.send(NoSentence())
                continue
            sound = spoken(voice, written[wanted.number], wanted.number, wanted.seed)
        except Exception as error:
            channel.send(Unspeakable(f"the voice fails at a part of this text ({type(error).__name__})"))
        else:
            channel.send(Sound(len(sound)), [array_file(sound)] if len(sound) else [])


def spoken(voice: Any, sentence: str, number: int, seed: int) -> np.ndarray:
    """Sound of a text's sentence, int16 [S] at 48 kHz; the first one begins at once."""
    from streamer.media.sound import PcmResampler

    parts = list(voice.stream(sentence, seed=seed + number))
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not number:
        samples = without_lead_in(samples, voice.sample_rate)
    if not len(samples):
        return np.zeros(0, np.int16)
    resampler = PcmResampler(voice.sample_rate)
    pcm = (np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
    return np.concatenate([resampler.push(pcm), resampler.flush()])


def without_lead_in(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Sound without the silence it begins with, all but 40 ms: this voice takes 0.3 s to begin, and somebody waits."""
    loud = np.flatnonzero(np.abs(samples) > LEAD_IN_LEVEL)
    return samples[max(0, loud[0] - LEAD_IN_MS * sample_rate // 1000) :] if len(loud) else samples


def sentences(text: str, split: Callable[[str], list[str]], phonemes: Callable[[str], str | None]) -> Iterator[str]:
    """Sentences of a text; those that would take long are parted, so that nobody's sound waits long for another's.

    Args:
        split: a text into sentences, however long.
        phonemes: of a sentence; what it costs to speak grows with them.
    """
    text = _LONG_NUMBER.sub(lambda digits: " ".join(digits[0]), text)
    for sentence in split(text):
        yield from _short(sentence, phonemes)


def _short(sentence: str, phonemes: Callable[[str], str | None]) -> Iterator[str]:
    if len(sentence) < 2 or len(sentence) <= MAX_CHARACTERS and len(phonemes(sentence) or "") <= MAX_PHONEMES:
        yield sentence
        return
    middle = _near_middle(sentence)
    for half in (sentence[:middle].strip(), sentence[middle:].strip()):
        if half:
            yield from _short(half, phonemes)


def _near_middle(sentence: str) -> int:
    """Where to part: after a clause or else a word that ends in the middle half, or else in the middle."""
    quarter, middle = len(sentence) // 4, len(sentence) // 2
    for pattern in (_CLAUSE_END, re.compile(r"\s")):
        ends = [match.end() for match in pattern.finditer(sentence, quarter, len(sentence) - quarter)]
        if ends:
            return min(ends, key=lambda end: abs(end - middle))
    return middle


def _load() -> Any:
    from hibari import Hibari

    voice = Hibari(threads=1)
    for _ in voice.stream("Ready.", seed=0):  # the first run is the slow one
        pass
    return voice
