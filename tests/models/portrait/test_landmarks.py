"""Faces from landmarks, and the finder with the weights that are shipped."""

import numpy as np
import pytest

from models.gallery import list_avatars, load_picture
from models.portrait.face_mesh import load_face_mesh
from models.portrait.face_networks import CROP_SCALE, part_vertices
from models.portrait.landmarks import WEIGHTS_FOLDER, face_crop, find_faces, fit_head, part_crops

HAS_WEIGHTS = (WEIGHTS_FOLDER / "landmarks.safetensors").is_file()


def turned(
    yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, scale: float = 80.0
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks of the canonical face turned (roll first, then pitch, then yaw), and its rotation."""
    c, s = np.cos, np.sin
    about_y = np.array([[c(yaw), 0, s(yaw)], [0, 1, 0], [-s(yaw), 0, c(yaw)]])
    about_x = np.array([[1, 0, 0], [0, c(pitch), s(pitch)], [0, -s(pitch), c(pitch)]])
    about_z = np.array([[c(roll), -s(roll), 0], [s(roll), c(roll), 0], [0, 0, 1]])
    rotation = about_y @ about_x @ about_z
    return (load_face_mesh().canonical @ rotation.T * scale + (200, 180, 0)).astype(np.float32), rotation


def test_eyes_of_both_sides_are_mirror_images():
    mesh, parts = load_face_mesh(), part_vertices()
    assert np.array_equal(mesh.mirror[parts.left_eye], parts.right_eye)
    assert (mesh.canonical[parts.left_eye, 0] > 0).all()
    assert set(mesh.loops["lid_upper_left"]) <= set(parts.left_eye)
    assert {*mesh.loops["lip_outer_lower"], *mesh.loops["lip_inner_upper"]} <= set(parts.mouth)


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, 0, 0), (0.7, 0.2, -0.3), (-0.5, -0.3, 0.6)])
def test_the_fit_finds_how_a_head_is_turned(yaw, pitch, roll):
    landmarks, rotation = turned(yaw, pitch, roll)
    found, scale = fit_head(landmarks)
    assert np.allclose(found, rotation, atol=1e-4) and scale == pytest.approx(80, rel=1e-4)


def test_an_open_mouth_hardly_turns_the_head():
    mesh = load_face_mesh()
    jaw = mesh.actions[24] * 0.8
    rotation, _ = fit_head((mesh.canonical + jaw) * 80)
    assert np.degrees(np.arccos((np.trace(rotation) - 1) / 2)) < 5


def test_a_crop_stands_upright_on_the_eyes_and_holds_the_face():
    landmarks, _ = turned(roll=0.4)
    crop = face_crop(landmarks)
    assert crop.roll == pytest.approx(0.4, abs=0.01)
    inside = crop.to_crop(landmarks)[:, :2]
    assert np.abs(inside).max() == pytest.approx(0.5 / CROP_SCALE, abs=0.01)
    left, right, mouth = part_crops(landmarks)
    assert right.is_mirrored and not left.is_mirrored and left.side < mouth.side < crop.side


@pytest.mark.skipif(not HAS_WEIGHTS, reason="no portrait weights")
def test_a_presenter_of_the_gallery_is_found():
    for avatar in list_avatars():
        picture = (load_picture(avatar).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        (face,) = find_faces(picture)
        assert face.landmarks.shape == (load_face_mesh().count, 3) and face.landmarks.dtype == np.float32
        left, top, right, bottom = face.box
        assert 0.2 < (right - left) / picture.shape[1] < 0.7 and top < picture.shape[0] / 2 < bottom
        assert max(abs(angle) for angle in face.yaw_pitch_roll) < 0.35
        loops = load_face_mesh().loops
        eye, lip = (face.landmarks[loops[name], 1].mean() for name in ("lid_upper_left", "lip_inner_upper"))
        assert 0.7 < (lip - eye) / face.scale < 1.6


@pytest.mark.skipif(not HAS_WEIGHTS, reason="no portrait weights")
def test_a_face_in_a_very_large_picture_lies_where_it_is():
    small = (load_picture(list_avatars()[0]).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    times = 2560 // len(small)
    large = np.zeros((2560, 4000, 3), np.uint8)
    large[:, 1000:3560] = small.repeat(times, 0).repeat(times, 1)
    (face,), (larger,) = find_faces(small), find_faces(large)
    assert np.abs((larger.landmarks - (1000, 0, 0)) / times - face.landmarks).max() < 0.1 * face.scale
    assert larger.scale / times == pytest.approx(face.scale, rel=0.05)


@pytest.mark.skipif(not HAS_WEIGHTS, reason="no portrait weights")
@pytest.mark.parametrize("shape", [(1, 1), (40, 900), (256, 256), (3, 20_000)])
def test_a_picture_without_a_face_gives_none(shape):
    rng = np.random.default_rng(0)
    for picture in (np.full((*shape, 3), 90), rng.integers(0, 256, (*shape, 3))):
        assert find_faces(picture.astype(np.uint8)) == []


@pytest.mark.skipif(not HAS_WEIGHTS, reason="no portrait weights")
@pytest.mark.parametrize(("shape", "dtype"), [((8, 8), np.uint8), ((8, 8, 3), np.float32), ((8, 0, 3), np.uint8)])
def test_what_is_no_picture_is_said(shape, dtype):
    with pytest.raises(ValueError, match="a picture is uint8"):
        find_faces(np.zeros(shape, dtype))
