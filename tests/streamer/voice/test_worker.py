from __future__ import annotations

import re

import numpy as np
import pytest

from streamer.voice.worker import MAX_CHARACTERS, MAX_PHONEMES, sentences, without_lead_in


def split(text: str) -> list[str]:
    return [sentence for sentence in re.split(r"(?<=\.)\s|\n", text) if sentence.strip()]


def phonemes(sentence: str) -> str:
    """Every w is five long."""
    return sentence.replace("w", "wwwww")


TEXTS = ["word " * 1000, "x" * 5000, "short.", "a, b. " * 300, "one\n" + "two " * 100, "w.w." * 1250, "." * 4999 + "a"]


@pytest.mark.parametrize("text", TEXTS)
def test_long_sentences_are_parted_and_no_letter_is_lost(text: str) -> None:
    parted = list(sentences(text, split, phonemes))
    assert "".join("".join(parted).split()) == "".join(text.split())
    assert all(sentence and len(sentence) <= MAX_CHARACTERS for sentence in parted)
    assert all(len(phonemes(sentence)) <= MAX_PHONEMES for sentence in parted)


def test_sentences_are_parted_where_a_clause_ends_or_else_a_word() -> None:
    clause, rest = "so this is one thing " * 8 + "and it ends here,", "and this is another " * 8 + "and it too"
    assert list(sentences(f"{clause} {rest}", split, phonemes)) == [clause, rest]
    assert all(re.fullmatch("(word ?)+", part) for part in sentences("word " * 200, split, phonemes))


def test_short_sentences_stay_as_they_are() -> None:
    text = "Good morning. It is the 3rd of March 2024, and 1,250,000 people listen."
    assert list(sentences(text, split, phonemes)) == split(text)


def test_numbers_beyond_counting_are_read_digit_by_digit() -> None:
    assert list(sentences("Call 1234567890123 or 123456789012.", split, phonemes)) == [
        "Call 1 2 3 4 5 6 7 8 9 0 1 2 3 or 123456789012."
    ]


def test_silence_before_the_first_word_is_cut_and_nothing_else() -> None:
    sound = np.concatenate([np.zeros(10_000), 0.1 * np.ones(5_000), np.zeros(10_000)]).astype(np.float32)
    assert np.array_equal(without_lead_in(sound, 24_000), sound[10_000 - 960 :])
    assert np.array_equal(without_lead_in(sound[10_000:], 24_000), sound[10_000:])
    assert np.array_equal(without_lead_in(np.zeros(100), 24_000), np.zeros(100))
