import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from training.synthetic.arms import REFERENCE_ARM_M, Arms, _half, _twist_about
from training.synthetic.body import BodyModel, Phenotype
from training.synthetic.keypoints import finger_tips
from training.synthetic.rig import ArmsPose, FramePose, Skeleton, swing, torso_rotations, turn

from .conftest import pose


@pytest.fixture(scope="module")
def skeleton(body: BodyModel) -> Skeleton:
    return Skeleton(body.bones, body.parents, body.shape(Phenotype(0.2, 0.75), {}).heads)


@pytest.fixture(scope="module")
def arms(body: BodyModel, skeleton: Skeleton) -> Arms:
    vertices = body.shape(Phenotype(0.2, 0.75), {}).vertices
    return Arms(skeleton, {side: vertices[tips] for side, tips in finger_tips(body).items()})


def solve(skeleton: Skeleton, frame: FramePose):
    return skeleton.solve(torso_rotations(frame), {}, range(len(skeleton.names)))


def test_rest_pose_leaves_bones_where_they_are(skeleton: Skeleton):
    rotations, heads = solve(skeleton, FramePose())
    assert np.allclose(rotations, np.eye(3)) and np.allclose(heads, skeleton.heads)


def test_yaw_turns_the_whole_head_to_its_left(skeleton: Skeleton):
    rotations, _ = solve(skeleton, pose(yaw=0.3))
    face = rotations[skeleton.index["head"]] @ [0, -1, 0]
    assert face[0] > 0 and np.arctan2(face[0], -face[1]) == pytest.approx(0.3, abs=1e-6)


def test_eyes_turn_relative_to_the_head(skeleton: Skeleton):
    rotations, _ = solve(skeleton, pose(yaw=0.2, gaze_x=-0.2))
    sight = rotations[skeleton.index["eye.L"]] @ [0, -1, 0]
    assert np.allclose(sight, [0, -1, 0], atol=1e-6)


def test_breath_lifts_the_shoulders_a_little(skeleton: Skeleton):
    shoulder = skeleton.index["upperarm01.L"]
    rise = solve(skeleton, pose(breath=1))[1][shoulder, 2] - solve(skeleton, pose(breath=-1))[1][shoulder, 2]
    assert 0.001 < rise < 0.01


def test_wrists_arrive_and_hands_point_where_asked(skeleton: Skeleton, arms: Arms):
    rng = np.random.default_rng(3)
    for _ in range(5):
        wrist = np.array([[0.16, -0.27, -0.1], [-0.16, -0.27, -0.1]]) + rng.normal(0, 0.02, (2, 3))
        fingers = np.array([[0.1, -0.2, 1.0], [-0.3, -0.6, 0.5]])
        palm = np.array([[-0.2, -1, 0], [0.5, -0.6, 0.5]])
        asked = ArmsPose(wrist, fingers, palm, np.full((2, 7), 0.3))
        chest = skeleton.index["spine01"]
        absolute, relative = arms.reach(asked, np.eye(3), skeleton.heads[chest], {})
        rotations, heads = skeleton.solve(relative, absolute, range(len(skeleton.names)))
        for row, side in enumerate("LR"):
            bone = skeleton.index[f"wrist.{side}"]
            span = np.linalg.norm(skeleton.head(f"wrist.{side}") - skeleton.head(f"upperarm01.{side}"))
            target = skeleton.heads[chest] + wrist[row] * span / REFERENCE_ARM_M
            assert np.linalg.norm(heads[bone] - target) < 0.005
            middle = skeleton.head(f"finger3-1.{side}") - skeleton.head(f"wrist.{side}")
            shown = rotations[bone] @ middle / np.linalg.norm(middle)
            assert shown @ fingers[row] / np.linalg.norm(fingers[row]) > 0.999


def test_hanging_arms_hang(skeleton: Skeleton, arms: Arms):
    _, heads = skeleton.solve(arms.hanging({}), {}, range(len(skeleton.names)))
    for side in "LR":
        arm = heads[skeleton.index[f"lowerarm01.{side}"]] - heads[skeleton.index[f"upperarm01.{side}"]]
        assert arm[2] / np.linalg.norm(arm) < -0.95


def test_curling_brings_finger_tips_to_the_palm(skeleton: Skeleton, arms: Arms):
    def reach(curl: float) -> float:
        shape = np.zeros((2, 7))
        shape[:, :4] = curl
        asked = ArmsPose(np.array([[0.15, -0.26, 0], [-0.15, -0.26, 0]]), np.eye(3)[[2, 2]], -np.eye(3)[[1, 1]], shape)
        absolute, relative = arms.reach(asked, np.eye(3), skeleton.head("spine01"), {})
        _, heads = skeleton.solve(relative, absolute, range(len(skeleton.names)))
        return float(np.linalg.norm(heads[skeleton.index["finger3-3.L"]] - heads[skeleton.index["wrist.L"]]))

    assert reach(0.9) < reach(0.5) < reach(0.0)


def test_half_and_twist_agree_with_scipy():
    for vector in np.random.default_rng(0).normal(size=(6, 3)):
        rotation = Rotation.from_rotvec(vector)
        half = Rotation.from_rotvec(rotation.as_rotvec() / 2)
        assert np.allclose(_half(rotation.as_matrix()), half.as_matrix(), atol=1e-9)
    axis = np.array([0.6, 0.0, 0.8])
    assert _twist_about(turn(axis, 0.7), axis) == pytest.approx(0.7)


def test_swing_takes_one_direction_to_the_other():
    a, b = np.array([1.0, 2, 3]), np.array([-2.0, 0.5, 1])
    assert np.allclose(swing(a, b) @ a / np.linalg.norm(a), b / np.linalg.norm(b))


def test_poses_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"FramePose.face has shape \(51,\), expected \(52,\)"):
        FramePose(face=np.zeros(51, np.float32))
    with pytest.raises(ValueError, match="ArmsPose.shape"):
        ArmsPose(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 4)))
