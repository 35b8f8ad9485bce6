"""Crops of a picture and the way back."""

import numpy as np
import pytest
import torch

from models.portrait.crops import Crop, cut


@pytest.mark.parametrize(
    "crop", [Crop(30, 20, 50), Crop(5, 60, 12, roll=0.4), Crop(30, 20, 50, -0.7, is_mirrored=True)]
)
def test_points_come_back_from_a_crop(crop):
    points = np.random.default_rng(0).uniform(-20, 90, (7, 3)).astype(np.float32)
    assert np.allclose(crop.to_picture(crop.to_crop(points)), points, atol=1e-3)


def test_the_centre_of_a_crop_is_its_origin_and_depth_scales_with_it():
    crop = Crop(30, 20, 50, roll=0.3)
    assert np.allclose(crop.to_crop(np.array([[30.0, 20.0, 25.0]])), [[0, 0, 0.5]])


def test_a_mirrored_crop_runs_the_other_way():
    point = np.array([[40.0, 20.0]])
    assert Crop(30, 20, 50).to_crop(point)[0, 0] == pytest.approx(0.2)
    assert Crop(30, 20, 50, is_mirrored=True).to_crop(point)[0, 0] == pytest.approx(-0.2)


@pytest.mark.parametrize("side", [16, 64, 300])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_cut_shows_what_lies_at_the_crops_points(side, mirrored):
    y, x = np.mgrid[0:200, 0:240].astype(np.float32) + 0.5
    picture = torch.from_numpy(np.stack([x, y]))  # every pixel says where it is
    crop = Crop(118, 97, side, roll=0.25, is_mirrored=mirrored)
    seen = cut(picture, crop, 32).numpy()
    cell = (np.arange(32) + 0.5) / 32 - 0.5
    at = crop.to_picture(np.stack(np.meshgrid(cell, cell), axis=-1).reshape(-1, 2)).reshape(32, 32, 2)
    inside = (at > 8).all(-1) & (at < (232, 192)).all(-1)
    assert inside.sum() > 200
    assert np.abs(seen.transpose(1, 2, 0) - at)[inside].max() < max(0.2, 0.02 * side)


def test_beyond_the_picture_its_border_goes_on():
    picture = torch.zeros(3, 20, 20)
    picture[:, :, 0] = 1
    assert cut(picture, Crop(-15, 10, 10), 8).min() == 1
