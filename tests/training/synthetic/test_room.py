import numpy as np
import pytest

from training.synthetic.room import BACKGROUND_POINTS, KINDS, background_points, paint_room, room_lights


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_rooms_are_bright_soft_and_repeatable(kind: str):
    room = paint_room(kind, 3, 128)
    assert room.shape == (128, 128, 3) and room.dtype == np.uint8
    assert room.mean() > 90
    steps = np.abs(np.diff(room.astype(int), axis=1)).max()
    assert steps < 80  # out of focus: no hard edges
    assert np.array_equal(room, paint_room(kind, 3, 128))
    assert not np.array_equal(room, paint_room(kind, 4, 128))


def test_background_points_lie_in_the_picture():
    points = background_points(paint_room("studio", 1, 128))
    assert points.shape == (BACKGROUND_POINTS, 2) and points.dtype == np.float32
    assert (points >= 0).all() and (points < 1).all()
    assert len(np.unique(points, axis=0)) == BACKGROUND_POINTS


def test_unknown_room_is_refused():
    with pytest.raises(ValueError, match="no room 'cellar'"):
        paint_room("cellar", 0, 64)


def test_lights_follow_the_seed():
    assert room_lights(4) == room_lights(4) != room_lights(5)
