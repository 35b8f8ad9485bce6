"""Arithmetic on sound between its two rates: what is played (int16, 48 kHz) and what models hear (float32, 16 kHz).

Everything works on a chunk at a time and takes about a millisecond, so it may run on the event loop. The way down to
16 kHz is `streamer.media.microphone.Resampler16k`.
"""

from __future__ import annotations

import numpy as np

from models.timing import SOUND_RATE_HZ as PLAYED_RATE_HZ
from streamer.audio_in import Resampler

BLOCK_SAMPLES = PLAYED_RATE_HZ // 50  # 20 ms, a packet: 960
_FADE_SAMPLES = 240  # 5 ms


def to_model(sound: np.ndarray) -> np.ndarray:
    """int16 → float32 in -1 … 1."""
    return sound.astype(np.float32) / 32768.0


def to_int16(sound: np.ndarray) -> np.ndarray:
    """float32 in -1 … 1 → int16, clipped."""
    return np.clip(np.rint(sound * 32767.0), -32768, 32767).astype(np.int16)


def apply_gate(sound: np.ndarray, is_open: np.ndarray, was_open: bool) -> np.ndarray:
    """Silences the shut blocks; edges are ramps of 5 ms, within the open side.

    Args:
        sound: int16 or float32 [b·s], b blocks.
        is_open: bool [b].
        was_open: whether the block before was open.

    Returns:
        The same type and shape.
    """
    blocks = sound.reshape(len(is_open), -1)
    size = blocks.shape[1]
    fade = max(1, size * _FADE_SAMPLES // BLOCK_SAMPLES)
    gain = np.repeat(is_open.astype(np.float32)[:, None], size, axis=1)
    ramp = np.arange(1, fade + 1, dtype=np.float32) / (fade + 1)
    before = np.concatenate([[was_open], is_open[:-1]])
    gain[is_open & ~before, :fade] = ramp
    # A block that shuts fades in its own first samples: whether it shuts is not known before.
    gain[~is_open & before, :fade] = ramp[::-1]
    return (blocks * gain).astype(sound.dtype).reshape(-1)


def pre_roll(is_speech: np.ndarray, blocks: int) -> np.ndarray:
    """Opens `blocks` blocks before each one with speech as well: a gate hears a word only once it has begun."""
    opened = is_speech.copy()
    for shift in range(1, min(blocks, len(is_speech) - 1) + 1):
        opened[:-shift] |= is_speech[shift:]
    return opened


class PcmResampler:
    """16-bit mono PCM of one rate, in pieces of any length, to int16 at 48 kHz.

    Args:
        sample_rate: of what comes in, Hz.
    """

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self._resampler = Resampler(PLAYED_RATE_HZ)

    def push(self, pcm: bytes) -> np.ndarray:
        """What a piece completes, int16 [S]; S may be 0."""
        import av

        samples = np.frombuffer(pcm, "<i2").astype(np.int16, copy=False)[None]
        if self._sample_rate == PLAYED_RATE_HZ:
            return samples[0].copy()
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = self._sample_rate
        return _joined(self._resampler.push(frame))

    def flush(self) -> np.ndarray:
        """What the filter still holds, int16 [S]."""
        return _joined(self._resampler.flush())


def _joined(blocks) -> np.ndarray:  # type: ignore[no-untyped-def]
    parts = [to_int16(block) for block in blocks]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)
