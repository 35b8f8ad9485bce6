"""The moved canvas: at rest it is the picture; the room stays; frames are their own."""

import numpy as np
import pytest

from models.motion import MOTION_CHANNELS, motion_frames
from models.portrait.bones import head_turns
from models.portrait.face_mesh import FACE_INDEX
from tests.models.portrait.conftest import presenter_of

STILL = np.zeros((1, len(MOTION_CHANNELS)), np.float32)
REST = np.zeros((1, 52), np.float32)


def speaking(frames: int) -> np.ndarray:
    actions = np.zeros((frames, 52), np.float32)
    actions[:, FACE_INDEX["jawOpen"]] = np.linspace(0, 0.8, frames)
    actions[:, FACE_INDEX["eyeBlinkLeft"]] = actions[:, FACE_INDEX["eyeBlinkRight"]] = np.linspace(1, 0, frames)
    return actions


@pytest.mark.parametrize("size", [(192, 192), (320, 180), (180, 320)])
def test_a_still_frame_is_the_picture(size):
    presenter = presenter_of(size)
    frame = presenter.canvas.frames(REST, STILL)[0]
    assert frame.shape == (*size, 3) and frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - presenter.picture).mean() < 1.0


def test_the_room_stands_still_and_the_person_moves(presenter):
    frames = presenter.canvas.frames(speaking(12), motion_frames(4, 0, 12)).astype(int)
    change = np.abs(frames - presenter.picture).mean((0, 3))
    assert change[:100, :16].max() == 0 and change[:100, -16:].max() == 0  # the room beside the head
    assert change[60:120, 70:120].mean() > 1
    assert change[-10:, 80:110].mean() > 0.1  # and so does the torso


def test_the_inside_of_the_mouth_is_dark_when_it_opens(presenter):
    actions = speaking(2)
    shut, opened = presenter.canvas.frames(actions, np.repeat(STILL, 2, 0))
    y, x = presenter.landmarks[:, 1], presenter.landmarks[:, 0]
    inside = np.abs(shut.astype(int) - opened)[int(np.median(y)) :, int(np.median(x)) - 10 : int(np.median(x)) + 10]
    assert inside.max() > 60


def test_frames_do_not_depend_on_each_other(presenter):
    actions, plan = speaking(4), motion_frames(9, 30, 4)
    together = presenter.canvas.frames(actions, plan)
    alone = np.concatenate([presenter.canvas.frames(actions[k : k + 1], plan[k : k + 1]) for k in range(4)])
    assert np.array_equal(together, alone)


def test_a_face_that_is_turned_in_the_picture_moves_too():
    turn = head_turns(np.array([0.5]), np.array([0.0]), np.array([0.1]))[0]
    presenter = presenter_of(turn=turn)
    frames = presenter.canvas.frames(np.concatenate([REST, speaking(1)]), motion_frames(2, 0, 2))
    assert np.abs(frames[1].astype(int) - presenter.picture).max() > 20


def test_a_face_at_the_border_does_not_break_the_drawing(presenter):
    from dataclasses import replace

    shifted = replace(presenter, landmarks=presenter.landmarks + (70, 60, 0), irises=presenter.irises + (70, 60, 0))
    assert shifted.canvas.frames(speaking(3), motion_frames(2, 0, 3)).shape == (3, 192, 192, 3)


def test_stages_are_told(presenter):
    from contextlib import nullcontext

    told = []
    presenter.canvas.frames(REST, STILL, lambda stage: nullcontext(told.append(stage)))
    assert {"pose", "raster", "warp", "eyes", "mouth"} == set(told)


def test_a_layout_without_a_person_is_refused(presenter):
    from dataclasses import replace

    empty = replace(presenter.layout, matte=np.zeros_like(presenter.layout.matte))
    with pytest.raises(ValueError, match="person"):
        _ = replace(presenter, layout=empty).canvas
