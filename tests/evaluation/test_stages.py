"""VAE and refiner alone, on the untrained tiny preset with toy frames of its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.stages import mouth_box, picture_score, pose_score, refine_true, refiner_score, resize, through_vae
from evaluation.takes import Take
from models.pipeline import AvatarPipeline
from models.presets import preset


@pytest.fixture(scope="module")
def pipeline() -> AvatarPipeline:
    torch.manual_seed(0)
    return AvatarPipeline(preset("tiny"))


@pytest.fixture(scope="module")
def small(pipeline: AvatarPipeline, takes: list[Take]) -> np.ndarray:
    return resize(takes[0].frames()[:40], pipeline.frame_size)


def test_score_of_the_truth_is_perfect(small: np.ndarray, takes: list[Take]) -> None:
    score = picture_score(small, small, takes[0].keypoints)
    assert (score.sharpness, score.blockiness) == (1, 1)
    assert score.ssim == pytest.approx(1)
    assert score.psnr_db > 100


def test_vae_is_scored_over_one_and_four_k_frames(
    pipeline: AvatarPipeline, small: np.ndarray, takes: list[Take]
) -> None:
    decoded = through_vae(pipeline, small)
    score = picture_score(decoded, small[:37], takes[0].keypoints)
    true = torch.from_numpy(small[:37]).permute(0, 3, 1, 2).float()[None] / 255
    with torch.inference_mode():
        whole = pipeline.vae.decode(pipeline.vae.encode(true)).clamp(0, 1)
    assert score.psnr_db == pytest.approx(-10 * torch.log10(((whole - true) ** 2).mean()).item(), abs=0.05)


def test_refiner_gets_true_latents_and_the_models_are_put_back(
    pipeline: AvatarPipeline, small: np.ndarray, takes: list[Take]
) -> None:
    own = pipeline.lr_a2v, pipeline.pose_estimator
    refined, decoded_lr = refine_true(pipeline, takes[0], small)
    assert refined.shape == (36, *pipeline.frame_size, 3)
    assert decoded_lr.shape == (36, *pipeline.preset.lr_size, 3)
    assert (pipeline.lr_a2v, pipeline.pose_estimator) == own
    score = refiner_score(refined, decoded_lr, small, takes[0].keypoints)
    half = resize(small[:36], pipeline.preset.lr_size)
    with torch.inference_mode():
        groups = torch.from_numpy(half).permute(0, 3, 1, 2).float()[None] / 255
        cache = pipeline.vae.decode_chunk(pipeline.vae.encode(groups[:, :1]), None)[1]
        decoded = pipeline.vae.decode_chunk(pipeline.vae.encode_groups(groups), cache)[0]
    shown = (decoded[0].clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.abs(decoded_lr[4:].astype(int) - shown[4:]).mean() < 3  # the references differ, the latents do not
    assert score.enlarged.psnr_db > 0
    assert pose_score(pipeline, decoded_lr, takes[0].keypoints).frame_count == 36


def test_mouth_box_stays_within_the_picture() -> None:
    points = np.zeros((143, 3), np.float32)
    points[48:60, 0] = np.linspace(0.9, 1.1, 12)
    points[48:60, 1] = 0.99
    rows, columns = mouth_box(points, (64, 64))
    assert 0 <= rows.start < rows.stop <= 64
    assert 0 <= columns.start < columns.stop <= 64
