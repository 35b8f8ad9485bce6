"""The planner's stages on drawn speech: what batches hold, what losses want, and that both stages leave weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.portrait.planner import MOODS, ExpressionActor
from tests.training.synthetic.corpus import tone_clip, write_corpus
from training import train_moods, train_planner
from training.speech_bank import PHONES, HearingConfig, SpeechBank, Track, accent_track, listening_track, make_track
from training.synthetic.visemes import FACE_INDEX, lip_gap, viseme_track

CONFIGS = Path("training/configs")
QUIET = HearingConfig(
    noisy_share=0, room_share=0, narrow_share=0, mel_noise=0, colour=0, masked_bands=0, listening_share=0
)
QUICK = ["loop.minutes=0.02", "loop.report_seconds=0.5", "batch=4"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> SpeechBank:
    folder = tmp_path_factory.mktemp("bank")
    clip = tone_clip(folder, "a0", "allison", syllables=120)
    return SpeechBank([make_track(clip, 1.0, np.random.default_rng(0))], QUIET, bins=80)


def test_a_track_has_its_truth_where_its_sound_is(tmp_path):
    track = make_track(tone_clip(tmp_path, "a0", "allison"), 1.0, np.random.default_rng(0))
    loud = np.abs(track.samples.reshape(-1, 640)).max(1) > 1000
    assert track.silence[~loud][:3].min() == 1
    shut = track.closure == 1
    assert shut.any() and not loud[shut].all()
    assert lip_gap(track.face[loud & ~shut].astype(float)).mean() > lip_gap(track.face[shut].astype(float)).mean()
    assert PHONES[track.phones[0, 0]] == "SIL"


def test_mels_of_a_batch_are_ahead_of_its_truth():
    """One loud frame, the 60th, and a face that tells the number of its frame."""
    samples = np.zeros((120, 640), np.int16)
    samples[60] = 20_000 * np.sin(np.arange(640))
    face = np.arange(120, dtype=np.float16)[:, None].repeat(52, axis=1)
    nothing = np.zeros(120, np.float16)
    track = Track("a", samples.ravel(), face, nothing, nothing, np.zeros((120, 2)), np.zeros((120, 2), np.uint8))
    heard = SpeechBank([track], QUIET, bins=80).batch(64, frames=20, context_frames=3, look_ahead_frames=2)
    assert heard.mels.shape == (64, 4 * 23, 80)
    loudness = heard.mels.amax(2).unflatten(1, (23, 4)).mean(2)[:, 3:]
    seen = [(int(loud.argmax()), int(numbers[0])) for loud, numbers in zip(loudness, heard.face[..., 0], strict=True)]
    inside = [(place, first) for place, first in seen if 0 < 58 - first < 18]
    assert len(inside) > 3
    assert all(first + place == 58 for place, first in inside)


def test_nobody_speaks_in_a_segment_of_listening(bank):
    quiet = SpeechBank.__new__(SpeechBank)
    quiet.__dict__ = bank.__dict__ | {"config": HearingConfig(listening_share=1.0)}
    heard = quiet.batch(3, 10, 1, 2)
    assert heard.face.abs().max() == 0
    assert heard.silence.min() == 1


def test_listening_begins_late_and_ends_softly():
    silence = np.concatenate([np.ones(50), np.zeros(20)])
    listening = listening_track(silence)
    assert listening[10] == 0 and listening[45] == 1
    assert 0 < listening[52] < 1 and listening[60] == 0
    assert accent_track(np.full(70, 1.15), silence)[30] == pytest.approx(0, abs=1e-6)


def test_a_wider_mouth_is_a_wider_gap():
    face, _ = viseme_track([("AA", 0.0, 0.4), ("P", 0.4, 0.12), ("IY", 0.52, 0.3)], 20)
    gap = lip_gap(face)
    assert gap[5] > 0.2 > gap[17] > 0.02 > gap[11]
    closed = face.copy()
    closed[:, FACE_INDEX["jawOpen"]] = 0
    assert (lip_gap(closed) <= gap + 1e-6).all()


def test_concordance_asks_for_the_amplitude_too():
    wanted = torch.randn(500)
    assert train_planner.concordance(wanted, wanted) == pytest.approx(1, abs=1e-4)
    assert train_planner.concordance(0.5 * wanted, wanted) < 0.9


def test_prompts_ask_for_their_moods():
    rng = np.random.default_rng(0)
    drawn = [train_moods.draw_prompt(rng, ["some words that say nothing about it"]) for _ in range(400)]
    for prompt, wanted in drawn:
        named = [mood for mood in MOODS if any(word in prompt for word in train_moods.WORDS[mood].split("|"))]
        assert wanted.max() == 0 or MOODS[wanted.argmax()] in named
    assert {MOODS[w.argmax()] for _, w in drawn if w.max() > 0} == set(MOODS)


def test_both_stages_leave_weights_that_load(tmp_path, monkeypatch):
    (tmp_path / "speech").mkdir()
    write_corpus(tmp_path / "speech")
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        sys,
        "argv",
        ["", str(CONFIGS / "planner.yaml"), f"speech={tmp_path}/speech", f"out={tmp_path}/run", *QUICK,
         "segment_frames=20", "encoder.width=16", "planner.audio_width=16", "planner.width=16"],
    )  # fmt: skip
    train_planner.main()
    arguments = [f"weights={tmp_path}/run/weights", f"out={tmp_path}/moods", *QUICK]
    monkeypatch.setattr(sys, "argv", ["", str(CONFIGS / "moods.yaml"), *arguments])
    train_moods.main()
    torch.set_num_threads(threads)
    actor = ExpressionActor.load(tmp_path / "run" / "weights")
    assert actor.ears.config.width == 16
    assert "right" in (tmp_path / "moods" / "log.txt").read_text()
