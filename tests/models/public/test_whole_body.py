import numpy as np
import pytest
import torch

from models.errors import CheckpointError
from models.pose import BACKGROUND, BODY, HANDS, INNER_LIPS, OUTER_LIPS
from models.public.whole_body import WholeBodyPose

# Each of the 133 points at a place of its own, in pixels of a frame of 40×80.
POINTS = np.stack([np.arange(133) * 0.5, np.arange(133) * 0.25], axis=1)[None]


def estimator(scores=None, points=POINTS):
    seen = []

    def read(picture):
        seen.append(picture)
        return points, np.ones(points.shape[:2]) if scores is None else scores

    return WholeBodyPose(read), seen


def column(keypoints):
    """Which of the 133 points each of ours is, halves between two."""
    return (keypoints[..., 0] * 80 / 0.5).round(decimals=3)


def test_points_are_taken_from_their_places():
    keypoints = estimator()[0](torch.zeros(1, 3, 40, 80))[0]
    where = column(keypoints)
    assert where[:60].tolist() == list(range(23, 83))
    assert where[OUTER_LIPS].tolist() == list(range(71, 83))
    assert where[INNER_LIPS].tolist() == [84, 84.5, 85, 85.5, 86, 88, 88.5, 89, 89.5, 90]
    assert where[BODY].tolist() == [3.5, 5.5, 5, 7, 9, 6, 8, 10, 8.5, 1, 2]
    assert where[HANDS].tolist() == list(range(91, 133))
    assert (keypoints[:, 1] * 40 / 0.25).round(decimals=3).equal(where)
    assert keypoints[:123, 2].all() and not keypoints[BACKGROUND].any()


def test_a_point_is_seen_if_all_that_it_is_made_of_are():
    scores = np.ones((1, 133))
    scores[0, 5] = 0.1  # the left shoulder: neck, shoulder, chest
    keypoints = estimator(scores)[0](torch.zeros(1, 3, 40, 80))[0]
    assert keypoints[BODY, 2].tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 0, 1, 1]


def test_the_surest_person_counts():
    two = np.concatenate([POINTS + 30, POINTS])
    scores = np.stack([np.full(133, 0.4), np.full(133, 0.9)])
    keypoints = estimator(scores, two)[0](torch.zeros(1, 3, 40, 80))[0]
    assert column(keypoints)[0] == 23


def test_pictures_come_as_bgr_bytes():
    frames = torch.zeros(2, 3, 40, 80)
    frames[1, 0] = 1.0
    pose, seen = estimator()
    assert pose(frames).shape == (2, 143, 3)
    assert seen[1].dtype == np.uint8 and seen[1].shape == (40, 80, 3)
    assert seen[1][0, 0].tolist() == [0, 0, 255] and not seen[0].any()


def test_networks_of_other_points_and_missing_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="17 points, 133 are wanted"):
        estimator(points=POINTS[:, :17])[0](torch.zeros(1, 3, 40, 80))
    with pytest.raises(CheckpointError, match="does not exist"):
        WholeBodyPose.load(tmp_path / "rtmw.onnx")


def test_what_is_no_network_is_one_clear_error(tmp_path):
    (tmp_path / "rtmw.onnx").write_text("no network")
    with pytest.raises(CheckpointError, match="is no network for keypoints|need rtmlib|need onnxruntime"):
        WholeBodyPose.load(tmp_path / "rtmw.onnx")
