from __future__ import annotations

import numpy as np
import pytest

from evaluation.lips import (
    Closed,
    amplitude_ratio,
    aperture_px256,
    closed_limit,
    closure_score,
    correlation,
    face_size_px256,
    lag_frames,
    shuffled_correlations,
    silence_score,
)


def mouth(seed: int, count: int = 400) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=count + 8)
    return 6 + 3 * np.convolve(noise, np.hanning(9) / 2, mode="valid")


def test_aperture_is_the_gap_of_the_three_middle_pairs() -> None:
    face = np.zeros((2, 70, 2), np.float32)
    face[:, [65, 66, 67, 68, 69], 1] = [50, 4, 6, 8, 50]
    assert aperture_px256(face) == pytest.approx([6, 6])


def test_face_size_ignores_the_jaw() -> None:
    face = np.random.default_rng(0).normal(size=(5, 70, 2)) * 30
    moved = face.copy()
    moved[:, :17] += 20
    moved[:, 48:] += 20
    assert face_size_px256(moved) == face_size_px256(face)


def test_mouth_that_does_not_move_correlates_with_nothing() -> None:
    assert correlation(np.full(100, 4.0), mouth(0)[:100]) == 0


@pytest.mark.parametrize("late", [-5, -1, 0, 2, 6])
def test_lag_is_found_and_positive_when_the_picture_is_late(late: int) -> None:
    truth = mouth(1)
    assert lag_frames(truth[10 - late : 300 - late], truth[10:300]) == pytest.approx(late, abs=0.2)


def test_lag_is_found_between_frames() -> None:
    fine = np.interp(np.arange(0, 300, 0.25), np.arange(300), mouth(2)[:300])
    assert lag_frames(fine[6:-2:4], fine[8::4]) == pytest.approx(0.5, abs=0.15)


def test_lag_of_a_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="25 frames"):
        lag_frames(np.zeros(10), np.zeros(10))


def test_half_as_wide_is_half_the_amplitude() -> None:
    assert amplitude_ratio(2 + mouth(3) / 2, mouth(3)) == pytest.approx(0.5)


def test_shut_lies_above_rest_and_below_speech() -> None:
    aperture = np.concatenate([np.full(50, 2.0), np.full(150, 10.0)])
    closed = closed_limit(aperture, np.arange(200) < 50)
    assert closed == Closed(rest_px256=2.0, limit_px256=4.0)
    assert closed_limit(np.full(50, 2.0), np.zeros(50, bool)).limit_px256 == pytest.approx(3.2)


def test_closure_counts_events_and_what_a_shut_mouth_would_get_anyway() -> None:
    closure = np.zeros(100)
    closure[[20, 21, 60]] = 1
    aperture = np.full(100, 8.0)
    aperture[19] = 1.0  # one frame early is still shut
    closed, silent = Closed(1.0, 2.0), np.zeros(100, bool)
    score = closure_score(aperture, closure, closed, silent)
    assert (score.share, score.share_elsewhere, score.events) == (0.5, 0.0, 2)
    assert closure_score(np.ones(100), closure, closed, silent).share_elsewhere == 1
    assert np.isnan(closure_score(aperture, np.zeros(100), closed, silent).share)


def test_silence_is_measured_against_speech() -> None:
    aperture = np.concatenate([np.full(50, 3.0), mouth(4)[:100]])
    silent = np.arange(150) < 50
    score = silence_score(aperture, np.full(150, 2.0), silent, Closed(2.0, 4.0))
    assert score is not None
    assert (score.motion, score.opening_px256, score.share_shut) == (0, 1, 1)
    assert silence_score(aperture, aperture, np.zeros(150, bool), Closed(2.0, 4.0)) is None


def test_lips_that_the_truth_keeps_apart_may_be_apart() -> None:
    silent, closed = np.arange(100) < 50, Closed(0.0, 1.5)
    apart = np.where(silent, 3.0, 8.0)
    for truth, share in ((3.0, 1.0), (0.0, 0.0)):
        score = silence_score(apart, np.full(100, truth), silent, closed)
        assert score is not None and score.share_shut == share


def test_mouth_that_follows_its_own_sound_fails_the_shuffled_control_on_purpose() -> None:
    mouths = [mouth(seed) for seed in range(6)]
    scores = shuffled_correlations(mouths, mouths)
    assert len(scores) == 30
    assert abs(scores.mean()) < 0.1
