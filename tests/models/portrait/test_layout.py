"""Layouts: where the square lies, what the network is told of the face, and how maps cover a picture."""

import numpy as np
import pytest
import torch

from models.portrait.face_mesh import load_face_mesh
from models.portrait.landmarks import WEIGHTS_FOLDER, Face, find_faces
from models.portrait.layout import (
    LAYOUT_SIZE,
    LAYOUT_UNITS,
    LayoutNet,
    _continued,
    draw_hints,
    find_layout,
    lay_out,
    layout_crop,
)

HAS_WEIGHTS = (WEIGHTS_FOLDER / "layout.safetensors").is_file()


def face(scale: float = 40.0) -> Face:
    """The canonical face, its eyes at (160, 120)."""
    landmarks = (load_face_mesh().canonical * scale + (160, 120, 0)).astype(np.float32)
    return Face((0, 0, 1, 1), 1.0, landmarks, landmarks[:2], np.eye(3, dtype=np.float32), scale)


def test_the_square_is_nine_face_units_and_the_eyes_lie_above_its_middle():
    crop = layout_crop(face().landmarks, 40)
    assert crop.side == LAYOUT_UNITS * 40 and crop.roll == 0
    assert crop.x == pytest.approx(160, abs=1) and crop.y == pytest.approx(120 + 48, abs=4)


def test_hints_show_the_face_and_its_depth():
    points = load_face_mesh().canonical.copy()
    points[:, :2] /= LAYOUT_UNITS
    cover, depth = draw_hints(torch.from_numpy(points)[None])[0]
    middle = LAYOUT_SIZE // 2
    assert cover.max() == 1 and 0.02 < (cover > 0.5).float().mean() < 0.15
    assert cover[0].max() < 1e-6 and depth[cover < 1e-3].abs().max() < 1e-2
    nose = depth[middle + 10, middle]  # 10 cells are 0.7 face units
    cheek = depth[middle + 10, middle + 10]
    assert nose > cheek + 0.1


def test_a_network_without_hints_and_with_them_gives_maps_of_the_same_form():
    network = LayoutNet().eval()
    crop = torch.rand(1, 3, LAYOUT_SIZE, LAYOUT_SIZE)
    hints = torch.zeros(1, 2, LAYOUT_SIZE, LAYOUT_SIZE)
    plain = network(crop, hints)
    assert plain.shape == (1, 5, LAYOUT_SIZE, LAYOUT_SIZE) and (plain[:, 1] >= 0).all()
    hints[:, 1] = 0.3
    with torch.no_grad():
        assert not torch.allclose(network(crop, hints)[:, 0], plain[:, 0])


def test_the_back_of_a_layout_is_never_in_front_and_shares_are_shares():
    picture = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    layout = lay_out(picture, face(), LayoutNet().eval())
    assert (layout.back <= layout.front).all()
    for share in (layout.head, layout.clavicle, layout.matte):
        assert share.min() >= 0 and share.max() <= 1
    assert layout.scale == pytest.approx(40, rel=1e-3) and layout.side == pytest.approx(360, rel=1e-3)


def test_maps_go_on_where_no_person_is():
    maps = torch.full((2, 64, 64), -999.0)
    known = torch.zeros(1, 64, 64, dtype=torch.bool)
    known[:, 20:40, 20:30], known[:, 20:40, 30:40] = True, True
    maps[:, 20:40, 20:30], maps[:, 20:40, 30:40] = 4, 6
    out = _continued(maps, known)
    assert torch.equal(out[:, 20:40, 20:40], maps[:, 20:40, 20:40])
    assert out.min() >= 4 and out.max() <= 6
    assert out[:, 30, 5].max() < 4.8 < 5.2 < out[:, 30, 55].min()  # like what is nearest


def test_without_a_person_nothing_goes_on():
    maps = torch.rand(2, 64, 64)
    assert torch.equal(_continued(maps, torch.zeros(1, 64, 64, dtype=torch.bool)), maps)


@pytest.mark.skipif(not HAS_WEIGHTS, reason="no layout weights")
def test_a_presenter_of_the_gallery_is_laid_out():
    from models.gallery import list_avatars, load_picture

    picture = (load_picture(list_avatars()[0]).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    (found,) = find_faces(picture)
    layout = find_layout(picture, found)
    flat = (found.landmarks[:, :2] - (layout.left, layout.top)) / layout.side * LAYOUT_SIZE
    x, y = flat.astype(int).clip(0, LAYOUT_SIZE - 1).T
    assert (layout.matte[y, x] > 0.9).mean() > 0.95 and (layout.head[y, x] > 0.8).mean() > 0.9
    assert np.abs(layout.front[y, x] - found.landmarks[:, 2]).mean() < 0.2 * found.scale
    chest = int((picture.shape[0] - 4 - layout.top) / layout.side * LAYOUT_SIZE)
    middle = slice(LAYOUT_SIZE // 2 - 8, LAYOUT_SIZE // 2 + 8)
    assert layout.head[chest, middle].mean() < 0.35 < 0.8 < layout.matte[chest, middle].mean()
    above = int((4 - layout.top) / layout.side * LAYOUT_SIZE)
    assert layout.matte[above, :30].max() < 0.2  # the room
