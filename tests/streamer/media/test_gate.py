from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from streamer.media.gate import SpeechGate

RATE = 16_000
BLOCK = 320


@cache
def speech() -> np.ndarray:
    """float [n]: a few spoken sentences, 16 kHz, peak about 0.4."""
    av = pytest.importorskip("av")
    hibari = pytest.importorskip("hibari")
    voice = hibari.Hibari(threads=1)
    text = "Hello there. The quick brown fox jumps over the lazy dog. Twenty people were watching, all of them silent."
    spoken = np.concatenate(list(voice.stream(text, seed=0)))
    frame = av.AudioFrame.from_ndarray((spoken * 32767).astype(np.int16)[None], format="s16", layout="mono")
    frame.sample_rate = voice.sample_rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    sound = np.concatenate([part.to_ndarray().reshape(-1) for part in resampler.resample(frame)]) / 32768
    return sound[: len(sound) // BLOCK * BLOCK]


def syllables(seconds: float) -> np.ndarray:
    """float [n]: a buzz with the harmonics and the rhythm of speech, four syllables a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 15))
    return 0.12 * buzz * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)) ** 2


def noise(seconds: float, level: float, smooth: int = 1) -> np.ndarray:
    """float [n]: noise of that RMS; `smooth` > 1 makes it dull, like a fan."""
    raw = np.random.default_rng(0).normal(0, 1, round(seconds * RATE))
    raw = np.convolve(raw, np.ones(smooth) / smooth, "same")
    return level * raw / raw.std()


def tone(seconds: float, frequency_hz: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * RATE)) / RATE)


def decide(*parts: np.ndarray, gate: SpeechGate | None = None) -> np.ndarray:
    sound = np.clip(np.concatenate(parts), -1, 1)
    sound = sound[: len(sound) // BLOCK * BLOCK]
    return (gate or SpeechGate()).process((sound * 32767).astype(np.int16))


QUIET = np.zeros(RATE)


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_speech_opens_soon_and_stays_open_through_words(gain: float) -> None:
    is_loud = np.sqrt(np.mean((speech().reshape(-1, BLOCK)) ** 2, axis=1)) > 0.03
    decided = decide(gain * speech())
    start = int(np.argmax(is_loud))
    assert decided[start + 8]  # within 160 ms of the first loud block
    assert decided[is_loud].mean() > 0.85
    assert np.abs(np.diff(decided.astype(int))).sum() <= 10


def test_speech_over_room_noise_is_heard() -> None:
    sound = np.concatenate([QUIET, speech()])
    decided = decide(sound + noise(len(sound) / RATE, 0.005))
    assert decided[50:].mean() > 0.5


def test_syllables_that_go_on_stay_speech() -> None:
    decided = decide(QUIET, syllables(10.0))
    assert decided[60:].mean() > 0.9


@pytest.mark.parametrize(
    "sound",
    [
        noise(10, 0.003),
        noise(10, 0.05),
        noise(10, 0.3),
        noise(10, 0.15, smooth=12),
        noise(10, 0.15, smooth=100),
        tone(10, 100),
        tone(10, 440),
        tone(10, 1000),
        tone(10, 3000),
    ],
    ids=["hiss", "white", "loud white", "fan", "rumble", "hum", "440 Hz", "1 kHz", "3 kHz"],
)
def test_loud_noise_that_goes_on_is_speech_for_3_s_at_most(sound: np.ndarray) -> None:
    decided = decide(QUIET, sound)
    assert not decided[50 + 150 :].any()


def test_silence_and_clicks_are_never_speech() -> None:
    assert not decide(np.zeros(10 * RATE)).any()
    assert not decide(noise(10, 0.0006)).any()
    clicks = np.zeros(10 * RATE)
    clicks[:: RATE // 2] = 0.9
    assert not decide(clicks).any()


def test_speech_is_found_again_after_noise() -> None:
    gate = SpeechGate()
    decide(noise(5, 0.1), gate=gate)
    assert not gate.is_open and gate.floor_dbfs > -30
    decide(QUIET, gate=gate)
    assert decide(syllables(2.0), gate=gate)[20:].mean() > 0.9


def test_gate_stays_open_300_ms_after_the_last_word() -> None:
    decided = decide(QUIET, syllables(2.08), QUIET)  # ends in the middle of a syllable
    assert 13 <= int(np.flatnonzero(decided)[-1]) - (50 + 104) <= 19


def test_blocks_decide_the_same_in_any_grouping() -> None:
    sound = (np.concatenate([QUIET, syllables(2.0), QUIET]) * 32767).astype(np.int16)
    together = SpeechGate().process(sound)
    gate = SpeechGate()
    one_by_one = np.concatenate([gate.process(block) for block in sound.reshape(-1, BLOCK)])
    assert together.dtype == bool and np.array_equal(together, one_by_one)


@pytest.mark.parametrize(
    "sound",
    [
        b"\0" * 640,
        np.zeros(320, np.float32),
        np.zeros((1, 320), np.int16),
        np.zeros(321, np.int16),
        np.zeros(640, np.uint8),
        [0] * 320,
        None,
    ],
    ids=["bytes", "float", "two-dimensional", "odd length", "uint8", "list", "nothing"],
)
def test_other_sound_is_refused(sound: object) -> None:
    with pytest.raises(ValueError):
        SpeechGate().process(sound)  # type: ignore[arg-type]


def test_no_sound_is_no_decision() -> None:
    assert SpeechGate().process(np.zeros(0, np.int16)).shape == (0,)
