import numpy as np
import pytest

from training.synthetic.gestures import (
    HAND_SHAPES,
    KEY_POSES,
    gesture_track,
    minimum_jerk,
    number_times,
    stress_times,
)
from training.synthetic.phones import Phone

FIVE = [Phone("AH", 0.5, 0.2), Phone("F", 1.5, 0.1), Phone("AY", 1.6, 0.2), Phone("V", 1.8, 0.1)]


def test_key_poses_name_hand_shapes_and_shares_add_up():
    assert all(pose.shape in HAND_SHAPES for pose in KEY_POSES.values())
    assert sum(pose.share for pose in KEY_POSES.values()) == pytest.approx(1.0)


def test_minimum_jerk_starts_and_ends_at_rest():
    position = minimum_jerk(np.linspace(-0.1, 1.1, 600))
    assert position[0] == 0 and position[-1] == pytest.approx(1)
    assert np.abs(np.diff(position)).max() < 0.005 and (np.diff(position) >= -1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_hands_never_jump(seed):
    track = gesture_track(FIVE, 500, np.random.default_rng(seed))
    assert track.wrist.shape == (500, 2, 3) and track.shape.shape == (500, 2, 7)
    assert np.linalg.norm(np.diff(track.wrist, axis=0), axis=-1).max() < 0.09
    assert (track.wrist[:, 0, 0] > -0.1).all() and (track.wrist[:, 1, 0] < 0.1).all()


def test_numbers_between_pauses_are_counted_on_the_right_hand():
    assert number_times(FIVE) == [(1.5, "five")]
    assert number_times([*FIVE, Phone("T", 1.9, 0.1)]) == []
    track = gesture_track(FIVE, 75, np.random.default_rng(1))
    np.testing.assert_allclose(track.shape[42, 1], HAND_SHAPES["five"], atol=0.05)


def test_beats_fall_on_stressed_vowels():
    assert stress_times([Phone("AA", 0.1, 0.1), Phone("B", 0.2, 0.1), Phone("IY", 0.3, 0.1)]) == [0.1]


def test_hands_rest_where_nobody_speaks():
    track = gesture_track([Phone("SIL", 0.0, 20.0)], 500, np.random.default_rng(0))
    np.testing.assert_allclose(track.shape, np.broadcast_to(HAND_SHAPES["relax"], (500, 2, 7)), atol=1e-5)
