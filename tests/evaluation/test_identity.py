from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from evaluation.identity import FaceRecogniser, IdentityScore, similarity, similarity_drop


def score_of(similarities: np.ndarray, times_s: np.ndarray) -> IdentityScore:
    return IdentityScore(float(similarities.mean()), times_s, similarities, 1.0)


def test_drop_compares_second_ten_with_the_last_ten_seconds() -> None:
    times_s = np.arange(0, 60, 0.5)
    steady = score_of(np.where(times_s < 5, 0.2, 0.8), times_s)
    sinking = score_of(np.where(times_s < 50, 0.8, 0.76), times_s)
    assert similarity_drop(steady) == pytest.approx(0)
    assert similarity_drop(sinking) == pytest.approx(0.05)


def test_no_face_in_a_window_is_not_a_number() -> None:
    assert np.isnan(score_of(np.ones(3), np.arange(3.0)).within(10, 20))


def test_similarity_is_one_for_the_same_face() -> None:
    assert similarity(np.ones(128), np.ones(128)) == 1


def test_folder_without_models_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("dlib")
    with pytest.raises(ValueError, match="not found in"):
        FaceRecogniser(tmp_path)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("dlib", "face_recognition_models"))), reason="face models not installed"
)
def test_noise_shows_no_face() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    recogniser = FaceRecogniser()
    assert recogniser.describe(noise) is None
    with pytest.raises(ValueError, match="no face"):
        recogniser.compare(noise[None], noise)
