from __future__ import annotations

import numpy as np
import pytest

from evaluation.landmarks import to_px256
from evaluation.life import band_deviation, count_blinks, eye_opening, head_pose, life_score, torso_height_px256
from evaluation.measures import planned_blinks
from models.motion import motion_frames
from tests.evaluation import toy


def test_blinks_of_the_plan_are_counted() -> None:
    motion = motion_frames(7, 0, 500)
    _, keypoints = toy.render(toy.LOOKS["ana"], np.full(500, 2.0), motion)
    assert count_blinks(eye_opening(to_px256(keypoints, (128, 128)))) == planned_blinks(motion) > 3


def test_eyes_that_stay_shut_do_not_blink() -> None:
    opening = np.ones(200)
    opening[50:100] = 0.1
    opening[150:154] = 0.1
    assert count_blinks(opening) == 1


def test_breath_is_a_slow_vertical_motion_of_the_torso() -> None:
    motion = np.zeros((200, 11), np.float32)
    motion[:, 10] = np.sin(2 * np.pi * np.arange(200) / 25 / 4)
    frames, _ = toy.render(toy.LOOKS["ana"], np.full(200, 2.0), motion)
    height = torso_height_px256(frames)
    assert np.corrcoef(height, motion[:, 10])[0, 1] > 0.95
    assert band_deviation(height) == pytest.approx(2 / 2**0.5, rel=0.35)


def test_still_picture_has_no_life() -> None:
    frames, keypoints = toy.render(toy.LOOKS["ana"], np.full(75, 2.0), np.zeros((75, 11), np.float32))
    score = life_score(frames, to_px256(keypoints, (128, 128)))
    assert (score.blinks_per_minute, score.head_shift, score.breath_px256) == (0, 0, 0)


def test_turn_and_roll_of_the_head_are_told_apart() -> None:
    face = np.zeros((1, 70, 2))
    face[:, 36:42], face[:, 42:48], face[:, 30:36] = (-10, 0), (10, 0), (4, 12)
    place, roll, turn = head_pose(face)
    assert (place[0].tolist(), float(roll[0]), float(turn[0])) == ([0, 0], 0, pytest.approx(0.2))
    tilted = face[:, :, ::-1] * (-1, 1)
    assert float(head_pose(tilted)[1][0]) == pytest.approx(90)
    assert float(head_pose(tilted)[2][0]) == pytest.approx(0.2)
