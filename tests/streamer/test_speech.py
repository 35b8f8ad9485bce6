from __future__ import annotations

import sys

import numpy as np
import pytest

from streamer.errors import MissingExtraError, TextError
from streamer.speech import MAX_TEXT_CHARACTERS, SpokenText


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("…!?", "no letter"),
        ("x" * (MAX_TEXT_CHARACTERS + 1), "characters"),
    ],
)
def test_texts_that_cannot_be_spoken(text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        SpokenText(text)


def test_missing_voice_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hibari", None)
    with pytest.raises(MissingExtraError, match=r"infinity-avatar\[say\]"):
        SpokenText("hello")


def test_speech_comes_sentence_by_sentence_and_ends_in_silence() -> None:
    pytest.importorskip("hibari")
    spoken = SpokenText("Good morning. My name is Ada.", seed=3)
    blocks = list(spoken.blocks(16_000))
    assert len(blocks) >= 3
    samples = np.concatenate(blocks)
    assert samples.dtype == np.float32 and 1.0 < len(samples) / 16_000 < 6.0
    assert np.abs(samples).max() > 0.1
    assert np.abs(samples[-3200:]).max() < 0.01
    assert spoken.name == "good-morning-my-name-is"


def test_same_seed_gives_the_same_speech_at_both_rates() -> None:
    pytest.importorskip("hibari")
    spoken = SpokenText("One two three.", seed=1)
    first, again = np.concatenate(list(spoken.blocks(16_000))), np.concatenate(list(spoken.blocks(16_000)))
    assert np.array_equal(first, again)
    assert sum(map(len, spoken.blocks(48_000))) == pytest.approx(3 * len(first), abs=6)
