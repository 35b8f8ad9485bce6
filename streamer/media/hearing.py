"""What the caller says: the microphone's sound with everything that is not speech taken out."""

from __future__ import annotations

from collections import deque

import numpy as np

from streamer.media.gate import SpeechGate
from streamer.media.microphone import Microphone, Resampler16k
from streamer.media.sound import BLOCK_SAMPLES, apply_gate, pre_roll, to_model

LISTEN_S = 0.1  # how often the caller is listened to while something else is said
_LISTEN_SAMPLES = 5 * BLOCK_SAMPLES
_PRE_ROLL_BLOCKS = 10  # 200 ms before the gate opens, as far as they are in the same chunk
_KEPT_SAMPLES = 35 * BLOCK_SAMPLES  # of what was only listened to, for the chunk after an interruption: 700 ms
_RECENT_BLOCKS, _SPEECH_BLOCKS = 15, 10  # speech is 200 ms out of the last 300


class Hearing:
    """The microphone of one connection.

    While the caller drives the presenter, `take` gives a chunk at a time. While something else is said, `listen` may
    be called ten times a second instead; what it heard is kept, so that the words that interrupt are not lost.
    """

    def __init__(self, microphone: Microphone, gate: SpeechGate):
        self._microphone = microphone
        self._gate = gate
        self._to_16k = Resampler16k()
        self._was_open = False
        self._kept: deque[tuple[np.ndarray, np.ndarray, np.ndarray]] = deque()  # sound, model sound, is speech
        self._recent: deque[bool] = deque(maxlen=_RECENT_BLOCKS)

    def take(self, samples: int, left_out: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The newest `samples`, a multiple of 960.

        Args:
            left_out: samples before them, also a multiple of 960, that are heard and forgotten.

        Returns:
            sound int16 [samples] at 48 kHz and float32 [samples / 3] at 16 kHz, both silent where nobody speaks, and
            bool [samples / 960], where somebody does.
        """
        missing = samples + left_out - sum(len(part[0]) for part in self._kept)
        if missing > 0:
            self._hear(missing)
        parts = [np.concatenate(part) for part in zip(*self._kept, strict=True)]
        sound, model, speech = parts[0][-samples:], parts[1][-samples // 3 :], parts[2][-samples // BLOCK_SAMPLES :]
        self._kept.clear()
        is_open = pre_roll(speech, _PRE_ROLL_BLOCKS)
        gated = apply_gate(sound, is_open, self._was_open), apply_gate(model, is_open, self._was_open)
        self._was_open = bool(is_open[-1])
        return *gated, is_open

    def listen(self) -> bool:
        """Hears the next 100 ms; whether the caller has been speaking lately."""
        self._recent.extend(self._hear(_LISTEN_SAMPLES).tolist())
        while sum(len(part[0]) for part in self._kept) > _KEPT_SAMPLES:
            self._kept.popleft()
        self._was_open = False
        return sum(self._recent) >= _SPEECH_BLOCKS

    def skip(self, samples: int) -> None:
        """Lets sound pass unheard, so that what comes later is not behind."""
        self._kept.clear()
        self._microphone.take(samples)
        self._recent.clear()
        self._was_open = False

    def forget_speech(self) -> None:
        """The next interruption needs new speech."""
        self._recent.clear()

    def _hear(self, samples: int) -> np.ndarray:
        """Takes samples from the microphone and keeps them with the gate's verdict, bool [samples / 960]."""
        sound = self._microphone.take(samples)
        heard = self._to_16k.push(sound)
        speech = self._gate.process(heard)
        self._kept.append((sound, to_model(heard), speech))
        return speech
