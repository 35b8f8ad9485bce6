"""Text as sound: the built-in English voice (hibari-tts), sentence by sentence, offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import av
import numpy as np

from streamer.audio_in import Resampler
from streamer.errors import MissingExtraError, TextError

if TYPE_CHECKING:
    from hibari import Hibari

MAX_TEXT_CHARACTERS = 50_000  # about an hour of speech
TAIL_S = 0.3  # of silence after the last word, so that the mouth is seen to close


class SpokenText:
    """A text read out by the built-in voice; a `SoundSource`.

    Args:
        text: English, at most `MAX_TEXT_CHARACTERS`.
        seed: of the voice's noise; the same seed gives the same samples at every reading.

    Raises:
        TextError: if there is nothing to say, or too much.
        MissingExtraError: if hibari-tts is not installed.
    """

    def __init__(self, text: str, seed: int = 0):
        text = text.strip()
        if not text:
            raise TextError("there is nothing to say: the text is empty")
        if len(text) > MAX_TEXT_CHARACTERS:
            raise TextError(f"the text has {len(text)} characters, at most {MAX_TEXT_CHARACTERS} are spoken at once")
        if not re.search(r"[A-Za-z0-9]", text):
            raise TextError("there is nothing to say: the text holds no letter or digit of English")
        try:
            import hibari  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("speaking a text needs the voice: pip install 'infinity-avatar[say]'") from error
        self._text = text
        self._seed = seed

    @property
    def name(self) -> str:
        words = re.findall(r"[a-z0-9]+", self._text.lower())
        return "-".join(words[:5])[:40] or "speech"

    @property
    def duration_s(self) -> float | None:
        return len(self._text) / 15.0  # characters a second of this voice, roughly

    @cached_property
    def _voice(self) -> Hibari:
        from hibari import Hibari

        return Hibari(threads=1)

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        """See `SoundSource`; the first block is there as soon as the first sentence is spoken.

        Raises:
            TextError: if the voice finds nothing in the text that it can say.
        """
        rate = self._voice.sample_rate
        resampler = Resampler(sample_rate)
        spoken = 0
        for sentence in self._voice.stream(self._text, seed=self._seed):
            spoken += len(sentence)
            if len(sentence):
                yield from resampler.push(_frame(sentence, rate))
        if not spoken:
            raise TextError("there is nothing to say: the voice finds no word in the text")
        yield from resampler.push(_frame(np.zeros(round(TAIL_S * rate), np.float32), rate))
        yield from resampler.flush()


def _frame(samples: np.ndarray, sample_rate: int) -> av.AudioFrame:
    planes = np.ascontiguousarray(samples, dtype=np.float32)[None]
    frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="mono")
    frame.sample_rate = sample_rate
    return frame
