"""Presenters: cut from a picture, kept in a file."""

import numpy as np
import pytest

from models.errors import CheckpointError
from models.presenter import Cut, Presenter, cut_around, cut_out, layout_on
from tests.models.portrait.conftest import laid, painted, presenter_of
from tests.models.portrait.conftest import mesh as mesh  # noqa: F401 (a fixture)


def test_a_presenter_comes_back_from_its_file_as_it_was(tmp_path):
    made = presenter_of()
    made.save(tmp_path / "one.safetensors")
    found = Presenter.load(tmp_path / "one.safetensors")
    for name in ("picture", "landmarks", "irises"):
        assert np.array_equal(getattr(found, name), getattr(made, name))
    assert np.array_equal(found.layout.depth, made.layout.depth) and found.size == (192, 192)
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]


def test_a_broken_or_strange_file_is_one_sentence(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match="presenter file"):
        Presenter.load(broken)
    from safetensors.numpy import save_file

    save_file({"picture": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no presenter"):
        Presenter.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("size", [(512, 512), (1280, 720), (720, 1280)])
@pytest.mark.parametrize("picture", [(900, 900), (300, 1200), (1200, 300), (2000, 3000)])
def test_a_cut_lies_within_the_picture_and_has_the_canvas_shape(mesh, size, picture):
    landmarks = laid(mesh, picture, unit=40.0)
    cut = cut_around(landmarks, picture, size)
    height, width = cut.bottom - cut.top, cut.right - cut.left
    assert 0 <= cut.top < cut.bottom <= picture[0] and 0 <= cut.left < cut.right <= picture[1]
    assert abs(height / width * size[1] / size[0] - 1) < 0.02
    assert min(height, width) <= 5.4 * 40 + 2


def test_a_picture_of_the_right_shape_and_size_is_taken_whole(mesh):
    landmarks = laid(mesh, (512, 512), unit=100.0)
    cut = cut_around(landmarks, (512, 512), (512, 512))
    assert cut == Cut(0, 0, 512, 512)
    picture = painted((512, 512))
    same, moved = cut_out(picture, landmarks, cut, (512, 512))
    assert np.array_equal(same, picture) and np.allclose(moved, landmarks)


def test_landmarks_go_with_the_picture(mesh):
    picture = np.zeros((400, 600, 3), np.uint8)
    picture[150:154, 320:324] = 255
    points = np.array([[322.0, 152.0, 10.0]], np.float32)
    small, moved = cut_out(picture, points, Cut(200, 50, 500, 350), (150, 150))
    y, x = np.argwhere(small[..., 0] > 120).mean(0) + 0.5
    assert (x, y) == pytest.approx(moved[0, :2], abs=0.3) and moved[0, 2] == pytest.approx(5.0)


def test_a_layout_of_the_picture_is_cut_with_it():
    from models.portrait.layout import Layout

    cells = np.tile(np.arange(128, dtype=np.float32), (128, 1))  # of a square of 640 pixels: 5 a cell
    layout = Layout(100.0, 50.0, 640.0, 20.0, 10 * cells, 0 * cells, cells / 128, 0 * cells, cells.T / 128)
    found = layout_on(layout, Cut(200, 150, 500, 450))
    assert found.matte.shape == (60, 60)
    assert found.depth[0, 0] == pytest.approx(10 * 20.0 / 20) and found.depth[0, -1] == pytest.approx(10 * 79.0 / 20)
    assert found.matte[0, 0] == pytest.approx(20 / 128) and found.head[5, 10] == pytest.approx(30 / 128)


def test_a_picture_without_a_face_is_refused_in_words():
    with pytest.raises(ValueError, match="no face was found"):
        Presenter.from_picture(np.full((300, 300, 3), 90, np.uint8), (192, 192))
