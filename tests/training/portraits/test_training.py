"""Batches, losses and both training scripts at toy size."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.portrait.crops import Crop
from models.portrait.face_mesh import load_face_mesh
from models.portrait.face_networks import BOX_STRIDE, part_vertices
from models.portrait.landmarks import FaceFinder
from models.portrait.layout import LAYOUT_SIZE, load_layout_network
from tests.training.synthetic.portraits.toy import toy_portraits
from training.portraits import augment, face_batches, train_landmarks, train_layout
from training.portraits.face_batches import FaceSource, box_batch, cut_example, face_batch, part_batch
from training.portraits.layout_batches import layout_batch
from training.synthetic.portraits.shards import PortraitSet, write_shard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("portraits")
    write_shard(made / "0000000", toy_portraits(4), [0, 1, 2, 3])
    return made


@pytest.fixture
def source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FaceSource:
    plain_backdrop = lambda seed, size: np.full((size, size, 3), seed % 255, np.uint8)  # noqa: E731
    monkeypatch.setattr(face_batches, "paint_backdrop", plain_backdrop)
    return FaceSource(PortraitSet(folder), np.arange(4))


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pictures as they are and nothing out of proportion."""
    monkeypatch.setattr(face_batches, "restyle", lambda picture, rng: picture)
    monkeypatch.setattr(face_batches, "elastic", lambda size, strength, rng: np.zeros((size, size, 2), np.float32))


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_cut_shows_points_where_it_says_they_are(monkeypatch, mirrored):
    plain(monkeypatch)
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[68:72, 38:42] = 255
    crop = Crop(50, 55, 60, roll=0.3, is_mirrored=mirrored)
    point = np.array([[40.0, 70.0, 6.0]])
    image, target = cut_example(picture, crop, 64, point, np.random.default_rng(0))
    weights = image[..., 0].astype(float)
    y, x = (np.mgrid[0:64, 0:64] + 0.5) / 64 - 0.5
    middle = np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()
    assert np.allclose(middle, target[0, :2], atol=0.01)
    assert target[0, 2] == pytest.approx(0.1)


def test_mirrored_faces_keep_left_and_right(source, monkeypatch):
    plain(monkeypatch)
    loops = load_face_mesh().loops
    _, targets, _ = face_batch(source, 16, np.random.default_rng(0))
    left, right = (targets[:, loops[f"lid_upper_{side}"].copy(), 0].mean(1) for side in ("left", "right"))
    assert (left > right).all()


def test_the_eye_batch_sees_left_eyes_only(source):
    crops, points = part_batch(source, "eye", 12, np.random.default_rng(0))
    place = {vertex: k for k, vertex in enumerate(part_vertices().left_eye.tolist())}
    inner, outer = (place[load_face_mesh().loops["lid_upper_left"][end]] for end in (0, -1))
    assert (points[:, outer, 0] > points[:, inner, 0]).all()
    assert crops.shape[2:] == (64, 64) and points.shape[1] == len(place) + 1


def test_box_targets_say_where_a_face_is():
    heat, values = face_batches._box_targets([Crop(37, 70, 40, roll=0.2)])
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    dx, dy, log_side, cosine, sine = values[:, row, column]
    assert heat[row, column] == 1 and (heat == 1).sum() == 1
    assert ((column + 0.5 + dx) * BOX_STRIDE, (row + 0.5 + dy) * BOX_STRIDE) == (pytest.approx(37), pytest.approx(70))
    assert np.exp(log_side) * BOX_STRIDE == pytest.approx(40) and np.arctan2(sine, cosine) == pytest.approx(0.2)


def test_box_batches_hold_none_one_and_several_faces(source):
    _, heat, _ = box_batch(source, 60, np.random.default_rng(0))
    counts = (heat == 1).flatten(1).sum(1)
    assert {0, 1, 2} <= set(counts.tolist())


def test_restyled_pictures_stay_pictures():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 48, 3)).astype(np.uint8)
    changed = [augment.restyle(picture, rng) for _ in range(60)]
    assert all(image.shape == picture.shape and image.dtype == np.uint8 for image in changed)
    assert not any(np.array_equal(image, picture) for image in changed)
    for style in augment._STYLES:
        assert style(picture, rng).shape == picture.shape


def test_layout_targets_lie_where_the_picture_does(folder):
    portraits = PortraitSet(folder)
    crops, hints, target, inside = layout_batch(portraits, np.arange(4), np.random.default_rng(0), is_varied=False)
    assert crops.shape == (4, 3, LAYOUT_SIZE, LAYOUT_SIZE) and target.shape == (4, 5, LAYOUT_SIZE, LAYOUT_SIZE)
    assert 0.1 < inside.mean() < 0.6  # a toy's picture is smaller than the square
    assert target[:, 4][inside[:, 0] == 0].mean() < 0.01  # but for half cells at the border
    assert hints[:, 0].amax((1, 2)).min() == 1  # there is a face in every square
    face = hints[:, 0] > 0.9
    assert (inside[:, 0][face] > 0).all()


def run(module, monkeypatch, config: str, folder: Path, out: Path, *more: str) -> None:
    keys = (f"portraits={folder}", f"out={out}", "held_out=1", "loop.minutes=0.003", "loop.bf16=false")
    monkeypatch.setattr(sys, "argv", ["train", config, *keys, *more])
    module.main()


def test_landmark_training_leaves_weights_that_a_finder_reads(folder, source, monkeypatch, tmp_path):
    sizes = ("faces=2", "eyes=2", "mouths=2", "boxes=2")
    run(train_landmarks, monkeypatch, "training/configs/landmarks.yaml", folder, tmp_path, *sizes)
    finder = FaceFinder.load(tmp_path)
    assert finder.find(np.zeros((50, 60, 3), np.uint8)) == [] or finder.threshold < 1
    assert finder.networks.face.mean.abs().sum() > 0


def test_layout_training_leaves_weights_that_are_read(folder, monkeypatch, tmp_path):
    run(train_layout, monkeypatch, "training/configs/layout.yaml", folder, tmp_path, "batch=2")
    network = load_layout_network(tmp_path)
    out = network(torch.zeros(1, 3, LAYOUT_SIZE, LAYOUT_SIZE), torch.zeros(1, 2, LAYOUT_SIZE, LAYOUT_SIZE))
    assert out.shape == (1, 5, LAYOUT_SIZE, LAYOUT_SIZE) and torch.isfinite(out).all()


def test_a_perfect_layout_has_no_error():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand((2, 5, 16, 16), generator=generator)
    target[:, 1] = target[:, 0] - 1
    target[:, 4] = (target[:, 4] > 0.5).float()
    out = torch.cat([target[:, :1], torch.ones(2, 1, 16, 16), torch.logit(target[:, 2:], eps=1e-6)], dim=1)
    inside = torch.ones(2, 1, 16, 16)
    loss, _ = train_layout.layout_loss(out, target, inside)
    figures = train_layout.measure_layout(out, target, inside)
    assert loss < 1e-3 and figures["matte_iou"].min() == 1
    assert max(float(figures[name].max()) for name in ("head", "clavicle", "front", "back")) < 1e-3
    worse, _ = train_layout.layout_loss(out + 0.5, target, inside)
    assert worse > loss + 0.3
