import gzip
from collections import Counter

import numpy as np
import pytest

from tests.training.synthetic.corpus import tone_clip, write_corpus
from training.synthetic import festival
from training.synthetic.alignment import words_of
from training.synthetic.phones import Phone
from training.synthetic.recordings import PROMPT_SETS, prompts
from training.synthetic.sentences import WRITTEN, sentences
from training.synthetic.speech import load_corpus, measure_quality, split_of
from training.synthetic.voices import (
    _earlier,
    _hibari_phones,
    _protobuf_field,
    read_wav,
    resample,
    write_wav,
)


def test_manifest_gives_back_the_clips(tmp_path):
    written = write_corpus(tmp_path)
    assert load_corpus(tmp_path) == written
    assert [c.name for c in load_corpus(tmp_path, split="heldout")] == ["w0"]
    samples = load_corpus(tmp_path, voice="slt")[0].samples()
    assert samples.dtype == np.float32 and len(samples) == round(written[2].duration_s * 16000)


def test_missing_corpus_and_missing_voice_say_so(tmp_path):
    with pytest.raises(ValueError, match="no manifest.json"):
        load_corpus(tmp_path)
    write_corpus(tmp_path)
    with pytest.raises(ValueError, match="voice nobody"):
        load_corpus(tmp_path, voice="nobody")


def test_a_text_is_held_out_whoever_says_it():
    texts = sentences(600)
    splits = Counter(split_of(text, "slt") for text in texts)
    assert 0.08 < splits["heldout"] / len(texts) < 0.16
    assert all(split_of(text, "slt") == split_of(text.upper(), "hibari") for text in texts)
    assert {split_of(text, "awb") for text in texts} == {"heldout"}


def test_quality_falls_when_the_times_are_off(tmp_path):
    clip = tone_clip(tmp_path, "a", "allison", syllables=24)
    good = measure_quality(clip.samples(), list(clip.phones))
    shifted = [Phone(p.name, p.start_s + 0.1, p.duration_s) for p in clip.phones]
    bad = measure_quality(clip.samples(), shifted)
    assert good.is_good and not bad.is_good
    assert good.closure_drop_db > 20 > bad.closure_drop_db


def test_sentences_are_distinct_and_the_same_every_time():
    texts = sentences(500)
    assert len(set(texts)) == 500 and texts[: len(WRITTEN)] == WRITTEN and texts == sentences(500)
    with pytest.raises(ValueError, match="2001"):
        sentences(2001)


def test_words_of_a_transcript():
    assert words_of("Please press 1 [beep], don't wait…") == ["please", "press", "1", "don't", "wait"]


def test_prompts_pair_files_with_transcripts(tmp_path):
    prompt_set = PROMPT_SETS[0]
    root = tmp_path / "asterisk" / "sounds" / prompt_set.folder
    (root / "digits").mkdir(parents=True)
    (root / "digits" / "1.g722").write_bytes(b"")
    doc = tmp_path / "doc" / "asterisk-core-sounds-en"
    doc.mkdir(parents=True)
    lines = "; a comment\n\ndigits/1: one\nmissing: not there\n"
    (doc / "core-sounds-en.txt.gz").write_bytes(gzip.compress(lines.encode()))
    assert list(prompts(prompt_set, tmp_path)) == [(root / "digits" / "1.g722", "one")]
    assert list(prompts(PROMPT_SETS[1], tmp_path)) == []


def test_wave_files_keep_the_sound(tmp_path):
    samples = np.linspace(-1, 1, 1600, dtype=np.float32)
    write_wav(tmp_path / "a.wav", samples)
    again, rate = read_wav(tmp_path / "a.wav")
    assert rate == 16000
    np.testing.assert_allclose(again, samples, atol=1e-4)
    assert len(resample(samples, 24000)) == 1067


def test_moving_phones_earlier_keeps_the_ends():
    moved = _earlier([Phone("SIL", 0.0, 0.3), Phone("B", 0.3, 0.1), Phone("SIL", 0.4, 0.2)], 0.05, 0.6)
    assert [(p.name, round(p.start_s, 3), round(p.end_s, 3)) for p in moved] == [
        ("SIL", 0.0, 0.25), ("B", 0.25, 0.35), ("SIL", 0.35, 0.6),
    ]  # fmt: skip


def test_hibari_letters_share_out_the_time():
    letters = list("mˈæp, ˈA.")
    phones = _hibari_phones(letters, np.array([4, 2, 1, 4, 3, 3, 1, 1, 4, 4, 3]) * 0.025, 0.0)
    assert [p.name for p in phones] == ["SIL", "M", "AE", "P", "SIL", "EY", "SIL", "SIL"]
    assert phones[2].duration_s == pytest.approx(0.125)  # with its stress mark
    for before, after in zip(phones, phones[1:], strict=False):
        assert before.end_s == pytest.approx(after.start_s)


def test_protobuf_field_of_more_than_127_bytes():
    assert _protobuf_field(7, b"ab") == bytes([58, 2]) + b"ab"
    assert _protobuf_field(12, b"x" * 300)[:3] == bytes([98, 172, 2])


def test_festivals_phones_lose_length_and_stress():
    spoken = {"a:": "AA", "i1": "IY", "pau": "SIL", "##": "SIL", "tS": "CH", "b": "B", "ch": "HH", "E1": "EH"}
    assert {phone: festival._name_of(phone) for phone in spoken} == spoken
    with pytest.raises(ValueError, match="unknown phone"):
        festival._name_of("%%")
