from __future__ import annotations

import numpy as np
import pytest

from streamer.media.hearing import Hearing
from streamer.media.sound import BLOCK_SAMPLES, PcmResampler, apply_gate, pre_roll, to_int16
from tests.streamer.session.fakes import FakeGate, FakeMicrophone, tone


def test_gate_silences_shut_blocks_and_has_no_hard_edges() -> None:
    sound = np.full(5 * BLOCK_SAMPLES, 10_000, np.int16)
    gated = apply_gate(sound, np.array([False, True, True, False, False]), was_open=False)
    blocks = gated.reshape(5, BLOCK_SAMPLES)
    assert not blocks[0].any() and not blocks[4].any()
    assert (blocks[2] == 10_000).all() and (blocks[1][240:] == 10_000).all()
    assert np.abs(np.diff(gated.astype(int))).max() < 100
    assert not blocks[3][240:].any()


def test_gate_that_was_open_before_does_not_fade_in_again() -> None:
    sound = np.full(BLOCK_SAMPLES, 10_000, np.int16)
    assert (apply_gate(sound, np.array([True]), was_open=True) == sound).all()


def test_pre_roll_opens_before_speech_and_not_after_it() -> None:
    speech = np.zeros(10, bool)
    speech[[5, 9]] = True
    assert pre_roll(speech, 2).tolist() == [False] * 3 + [True] * 3 + [False] + [True] * 3
    assert pre_roll(np.array([False, True]), 10).tolist() == [True, True]


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_pcm_in_odd_pieces_is_the_same_as_in_one(rate: int) -> None:
    pcm = (np.sin(np.arange(rate) / 20) * 8000).astype("<i2").tobytes()
    whole = PcmResampler(rate)
    expected = np.concatenate([whole.push(pcm), whole.flush()])
    pieces = PcmResampler(rate)
    sizes = [2, 7 * 2, 333 * 2, 4096, len(pcm)]
    parts, place = [], 0
    for size in sizes:
        parts.append(pieces.push(pcm[place : place + size])) if pcm[place : place + size] else None
        place += size
    got = np.concatenate([*parts, pieces.flush()])
    assert abs(len(got) - 48_000) <= 64
    assert len(got) == len(expected) and np.abs(got.astype(int) - expected).max() <= 2


def test_full_scale_is_clipped_and_does_not_wrap() -> None:
    assert to_int16(np.array([2.0, -2.0, 0.0], np.float32)).tolist() == [32767, -32768, 0]


def test_hearing_keeps_the_words_that_interrupted() -> None:
    microphone = FakeMicrophone()
    microphone.sound = lambda at: tone(1.0)[at % 48_000]
    hearing = Hearing(microphone, FakeGate())
    heard = [hearing.listen() for _ in range(5)]
    assert heard == [False, True, True, True, True]
    taken = microphone.taken
    sound, model, is_open = hearing.take(23_040)
    assert microphone.taken == taken  # 500 ms were kept: more than the chunk
    assert is_open.all() and len(sound) == 23_040 and len(model) == 7_680
    assert np.array_equal(sound[240:], tone(1.0)[taken - 23_040 : taken][240:])


def test_hearing_keeps_no_more_than_it_can_use() -> None:
    microphone = FakeMicrophone()
    microphone.sound = lambda at: at % 1000
    hearing = Hearing(microphone, FakeGate())
    for _ in range(100):
        hearing.listen()
    assert sum(len(part[0]) for part in hearing._kept) <= 33_600
