import numpy as np
import pytest

from training.synthetic.identity import GALLERY
from training.synthetic.keypoints import (
    BODY,
    FACE,
    HAND_L,
    INNER_LOWER,
    INNER_UPPER,
    KEYPOINT_COUNT,
    ROOM,
    lip_aperture,
)
from training.synthetic.presenter import Presenter
from training.synthetic.renderer import Renderer, project
from training.synthetic.rig import ArmsPose, FramePose

from .conftest import pose

P_CLOSED = {"jawOpen": 0.06, "mouthClose": 0.06, "mouthPress": 0.35, "mouthRollLower": 0.25, "mouthRollUpper": 0.18}


def test_frame_and_keypoints_have_the_stated_form(presenter: Presenter):
    frame, keypoints = presenter.render(FramePose())
    assert frame.shape == (128, 128, 3) and frame.dtype == np.uint8
    assert keypoints.shape == (KEYPOINT_COUNT, 3) and keypoints.dtype == np.float32
    assert set(np.unique(keypoints[:, 2])) <= {0.0, 1.0}
    assert keypoints[FACE, 2].mean() > 0.9
    assert np.isfinite(keypoints).all()


def test_same_pose_gives_the_same_picture(presenter: Presenter):
    first, points = presenter.render(pose({"jawOpen": 0.3}, yaw=0.1))
    presenter.render(pose(yaw=-0.2))
    again, points_again = presenter.render(pose({"jawOpen": 0.3}, yaw=0.1))
    assert np.array_equal(first, again) and np.array_equal(points, points_again)


def test_face_is_large_and_in_the_middle(presenter: Presenter):
    keypoints = presenter.render(FramePose())[1][FACE]
    brows, chin = keypoints[17:27, 1].mean(), keypoints[8, 1]
    assert chin - brows > 0.33  # the forehead adds about a third
    assert abs(keypoints[27:31, 0].mean() - 0.5) < 0.02
    assert keypoints[0, 0] < keypoints[16, 0]  # left to right as seen


def test_lips_touch_at_rest_and_when_pressed(presenter: Presenter):
    for face in ({}, P_CLOSED):
        keypoints = presenter.render(pose(face))[1]
        assert lip_aperture(keypoints, 256) < 0.3


def test_jaw_opens_the_lips_clearly(presenter: Presenter):
    apertures = [lip_aperture(presenter.render(pose({"jawOpen": jaw}))[1], 256) for jaw in (0.1, 0.3, 0.5)]
    assert apertures[0] < apertures[1] < apertures[2]
    assert apertures[2] >= 9


def test_inner_lip_lies_between_the_corners_and_in_order(presenter: Presenter):
    keypoints = presenter.render(pose({"jawOpen": 0.4}))[1]
    upper, lower = keypoints[INNER_UPPER], keypoints[INNER_LOWER][::-1]
    assert (np.diff(upper[:, 0]) > 0).all() and (np.diff(lower[:, 0]) > 0).all()
    assert (upper[:, 1] < lower[:, 1]).all()
    assert keypoints[48, 0] < upper[0, 0] and upper[-1, 0] < keypoints[54, 0]


def test_blink_shuts_the_eyes(presenter: Presenter):
    def opening(frame_pose: FramePose) -> float:
        eye = presenter.render(frame_pose)[1][36:42, 1]
        return float(eye[[4, 5]].mean() - eye[[1, 2]].mean())

    assert opening(FramePose()) > 0.02 and opening(pose(blink=1)) < 0.15 * opening(FramePose())
    frames = [presenter.render(p)[0].astype(int) for p in (FramePose(), pose(blink=1))]
    assert np.abs(frames[0] - frames[1]).max() > 30


def test_head_moves_and_the_room_stays(presenter: Presenter):
    still, left = presenter.render(FramePose()), presenter.render(pose(yaw=0.25))
    assert left[1][30, 0] - still[1][30, 0] > 0.02  # the nose goes to the person's left, the picture's right
    assert np.array_equal(still[1][ROOM, :2], left[1][ROOM, :2])
    assert np.abs(still[0][:8, :8].astype(int) - left[0][:8, :8]).max() <= 1


def test_far_side_of_a_turned_face_is_hidden(presenter: Presenter):
    keypoints = presenter.render(pose(yaw=0.6))[1]
    assert keypoints[0, 2] == 1 and keypoints[16, 2] == 0


def test_room_points_behind_the_person_are_hidden(presenter: Presenter):
    shot = presenter._shots.get("head") or presenter._set_up("head")
    shot.keypoints._room[0] = (0.5, 0.5)
    try:
        assert presenter.render(FramePose())[1][ROOM][0, 2] == 0
    finally:
        shot.keypoints._room[0] = (0.02, 0.02)
    assert presenter.render(FramePose())[1][ROOM][0, 2] == 1


def test_upper_framing_shows_hands_that_are_raised(presenter: Presenter):
    wrist = np.array([[0.15, -0.26, -0.02], [-0.15, -0.26, -0.02]])
    arms = ArmsPose(wrist, np.array([[0.05, -0.2, 1]] * 2), np.array([[0, -1.0, 0]] * 2), np.zeros((2, 7)))
    raised = presenter.render(FramePose(arms=arms), framing="upper")[1]
    hanging = presenter.render(FramePose(), framing="upper")[1]
    assert raised[HAND_L, 2].mean() > 0.8 and hanging[HAND_L, 2].mean() < 0.2
    tips, joints = raised[HAND_L][[8, 12, 16], 1], raised[HAND_L][[5, 9, 13], 1]
    assert (tips < joints).all()
    assert raised[BODY][2, 0] > raised[BODY][5, 0]  # the person's left shoulder is on the right


def test_head_framing_shows_no_hands(presenter: Presenter):
    assert presenter.render(FramePose())[1][81:123, 2].max() == 0


def test_keypoints_are_the_same_without_drawing(presenter: Presenter):
    turned = pose({"jawOpen": 0.4}, yaw=0.5)
    drawn, alone = presenter.render(turned)[1], presenter.keypoints(turned)
    np.testing.assert_array_equal(alone[:, :2], drawn[:, :2])
    assert (alone[:, 2] >= drawn[:, 2]).all()


def test_unknown_framing_is_refused(presenter: Presenter):
    with pytest.raises(ValueError, match="framing is 'feet'"):
        presenter.render(FramePose(), framing="feet")  # type: ignore[arg-type]


def test_released_presenter_renders_the_same_again(renderer: Renderer):
    presenter = Presenter(renderer, GALLERY["kofi"])
    before = presenter.render(FramePose())[0]
    presenter.release()
    assert np.array_equal(presenter.render(FramePose())[0], before)
    presenter.release()


def test_projection_puts_the_aim_in_the_middle(presenter: Presenter):
    camera = presenter.camera("head")
    ahead = project(camera.matrix, np.array([camera.eye + np.array([0, 1.0, 0])]))
    assert ahead[0, 0] == pytest.approx(0.5, abs=1e-6)
