from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.landmarks import LandmarkError, LandmarkRegressor, fit_landmarks, landmark_error, to_px256
from evaluation.takes import Take


@pytest.fixture(scope="module")
def regressor(takes: list[Take]) -> LandmarkRegressor:
    return fit_landmarks(takes[0].frames(), takes[0].keypoints)


def error_of(regressor: LandmarkRegressor, frames: np.ndarray, take: Take) -> LandmarkError:
    return landmark_error(regressor.predict(frames), to_px256(take.keypoints, frames.shape[1:3]))


def test_regressor_reads_a_take_it_never_saw(regressor: LandmarkRegressor, takes: list[Take]) -> None:
    error = error_of(regressor, takes[1].frames(), takes[1])
    assert error.aperture_r > 0.98
    assert error.lips_px256 < 1.5
    assert error.frame_count == 150


def test_regressor_still_reads_a_softened_picture(regressor: LandmarkRegressor, takes: list[Take]) -> None:
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in takes[1].frames()])
    assert error_of(regressor, soft, takes[1]).aperture_r > 0.97


def test_regressor_does_not_depend_on_the_size_of_the_picture(
    regressor: LandmarkRegressor, takes: list[Take]
) -> None:
    frames = takes[0].frames()[:3]
    larger = np.stack([cv2.resize(frame, (256, 256), interpolation=cv2.INTER_CUBIC) for frame in frames])
    assert np.abs(regressor.predict(larger) - regressor.predict(frames)).max() < 0.2


def test_saved_regressor_is_the_same(regressor: LandmarkRegressor, takes: list[Take], tmp_path: Path) -> None:
    regressor.save(tmp_path / "landmarks.npz")
    frames = takes[0].frames()[:2]
    loaded = LandmarkRegressor.load(tmp_path / "landmarks.npz")
    assert np.array_equal(loaded.predict(frames), regressor.predict(frames))


def test_a_few_frames_are_not_enough(takes: list[Take]) -> None:
    with pytest.raises(ValueError, match="at least 16 frames"):
        fit_landmarks(takes[0].frames()[:4], takes[0].keypoints[:4])
