"""Decides, every 20 ms, whether the microphone hears speech: webrtcvad and an energy gate must agree."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import webrtcvad

RATE_HZ = 16_000
BLOCK_SAMPLES = 320  # 20 ms
VAD_MODE = 2  # all modes call loud white noise speech; the energy gate is there for that
HANG_OVER_BLOCKS = 15  # 300 ms between words
OPEN_BLOCKS, OPEN_WINDOW = 3, 4  # so many of the last blocks open the gate: a click does not
SILENCE_DBFS = -55.0  # below this nothing is speech
OPEN_DB, STAY_DB = 9.0, 5.0  # above the noise, to open and to stay open
# The noise floor is the quietest moment of the last 1.6 s: speech has a pause or a stop consonant in that time, a fan,
# a tone or white noise has not, and stops being speech when the window has filled with it.
PART_BLOCKS = 16
PARTS = 5
SMOOTHING = 0.25  # moments of some 80 ms: rumble swings a lot from block to block
START_FLOOR_DBFS = -65.0


class SpeechGate:
    """One stream's gate, with hysteresis and a hang-over of 300 ms."""

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(VAD_MODE)
        self._minima: deque[float] = deque([START_FLOOR_DBFS], maxlen=PARTS)
        self._part_minimum = math.inf
        self._part_length = 0
        self._smooth_power = 10.0 ** (START_FLOOR_DBFS / 10)
        self._recent: deque[bool] = deque(maxlen=OPEN_WINDOW)
        self._hang_over = 0
        self.is_open = False

    @property
    def floor_dbfs(self) -> float:
        """The present estimate of the noise."""
        return min(*self._minima, self._part_minimum)

    def process(self, samples: np.ndarray) -> np.ndarray:
        """Decides on the next blocks of the stream.

        Args:
            samples: int16 [k·320], mono, 16 kHz.

        Returns:
            bool [k]: whether each block is speech.

        Raises:
            ValueError: for anything else. webrtcvad itself takes odd bytes and whole arrays silently.
        """
        if not isinstance(samples, np.ndarray) or samples.dtype != np.int16 or samples.ndim != 1:
            kind = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
            raise ValueError(f"sound is int16 [k*320], not {kind}")
        if len(samples) % BLOCK_SAMPLES:
            raise ValueError(f"{len(samples)} samples are no whole number of blocks of {BLOCK_SAMPLES}")
        blocks = np.ascontiguousarray(samples).reshape(-1, BLOCK_SAMPLES)
        powers = np.mean(np.square(blocks.astype(np.float32) / 32768.0), axis=1)
        return np.array([self._decide(block, float(power)) for block, power in zip(blocks, powers, strict=True)], bool)

    def _decide(self, block: np.ndarray, power: float) -> bool:
        self._smooth_power += SMOOTHING * (power - self._smooth_power)
        smooth_dbfs = _decibels(self._smooth_power)
        above_db = smooth_dbfs - self.floor_dbfs
        is_loud = _decibels(power) > SILENCE_DBFS and above_db > (STAY_DB if self.is_open else OPEN_DB)
        is_active = is_loud and self._vad.is_speech(block.tobytes(), RATE_HZ)
        self._follow_noise(smooth_dbfs)
        self._recent.append(is_active)
        if is_active and (self.is_open or sum(self._recent) >= OPEN_BLOCKS):
            self.is_open = True
            self._hang_over = HANG_OVER_BLOCKS
        elif self._hang_over:
            self._hang_over -= 1
        self.is_open = self._hang_over > 0
        return self.is_open

    def _follow_noise(self, smooth_dbfs: float) -> None:
        self._part_minimum = min(self._part_minimum, smooth_dbfs)
        self._part_length += 1
        if self._part_length == PART_BLOCKS:
            self._minima.append(self._part_minimum)
            self._part_minimum, self._part_length = math.inf, 0


def _decibels(power: float) -> float:
    return 10.0 * math.log10(power + 1e-10)
