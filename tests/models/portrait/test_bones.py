"""Bones of a portrait: as those of the synthetic presenters, and still where the plan is."""

import numpy as np

from models.motion import MOTION_CHANNELS, motion_frames
from models.portrait.bones import bone_maps, head_angles, head_turns
from training.synthetic.rig import yaw_pitch_roll

TO_PICTURE = np.array([[1.0, 0, 0], [0, 0, -1], [0, -1, 0]])


def plan_of(**channels: float) -> np.ndarray:
    plan = np.zeros((1, len(MOTION_CHANNELS)), np.float32)
    for name, value in channels.items():
        plan[0, MOTION_CHANNELS.index(name)] = value
    return plan


def test_turns_are_those_of_the_synthetic_presenters():
    angles = (0.3, -0.1, 0.2)
    expected = TO_PICTURE @ yaw_pitch_roll(*angles) @ TO_PICTURE.T
    found = head_turns(*(np.array([angle]) for angle in angles))[0]
    assert np.allclose(found, expected) and np.allclose(head_angles(found), angles)


def test_nothing_moves_where_the_plan_is_still():
    for angles in ((0, 0, 0), (0.4, 0.1, -0.2)):
        assert np.allclose(bone_maps(plan_of(), np.array(angles)), np.eye(4)[:3], atol=1e-6)


def test_the_head_turns_by_the_plan_about_the_neck_and_the_chest_stays():
    head, chest, *_ = bone_maps(plan_of(yaw=0.2), np.zeros(3))[0]
    assert np.allclose(head[:, :3], head_turns(*(np.array([v]) for v in (0.2, 0, 0)))[0], atol=1e-6)
    eyes = head[:, 3]
    assert eyes[0] > 0.1 and abs(eyes[1]) < 0.05  # to the presenter's left, which is the picture's right
    assert np.allclose(chest, np.eye(4)[:3], atol=1e-6)


def test_breath_lifts_shoulders_and_chest_and_leaves_the_head_nearly_alone():
    head, chest, left, right = bone_maps(plan_of(breath=1.0), np.zeros(3))[0]
    for shoulder, side in ((left, -1), (right, 1)):
        at = np.array([side * 2.5, 3.8, -1.6, 1])
        assert (shoulder @ at)[1] < (chest @ at)[1] - 0.01
    assert np.abs(head[:, 3]).max() < 0.05


def test_lean_moves_head_and_chest_together():
    head, chest, *_ = bone_maps(plan_of(lean_z=0.02), np.zeros(3))[0]
    assert abs(head[0, 3]) > abs((chest @ [0, 3, -1.5, 1])[0]) > 0.05


def test_maps_of_a_row_do_not_depend_on_the_others():
    plan = motion_frames(3, 0, 6)
    together = bone_maps(plan, np.array([0.1, 0, 0]))
    alone = np.concatenate([bone_maps(row[None], np.array([0.1, 0, 0])) for row in plan])
    assert np.allclose(together, alone, atol=1e-6)
