from __future__ import annotations

import cv2
import numpy as np
import pytest

from evaluation.picture import blockiness, colour_drift, gradient_energy, join_jump, psnr_db, ssim


@pytest.fixture
def frames() -> np.ndarray:
    noise = np.random.default_rng(0).normal(128, 60, (6, 64, 64, 3)).astype(np.float32)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in noise]).clip(0, 255).astype(np.uint8)


def test_psnr_is_that_of_the_definition(frames: np.ndarray) -> None:
    shifted = frames // 2 + 40
    assert psnr_db(shifted + np.uint8(5), shifted) == pytest.approx(20 * np.log10(255 / 5), abs=1e-3)


def test_same_pictures_are_alike_and_blurred_ones_less(frames: np.ndarray) -> None:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in frames])
    assert ssim(frames, frames) == pytest.approx(1)
    assert ssim(blurred, frames) < 0.9
    assert gradient_energy(blurred) < 0.5 * gradient_energy(frames)


def test_block_edges_are_seen_on_their_grid(frames: np.ndarray) -> None:
    blocks = np.stack([
        cv2.resize(frame[::8, ::8], (64, 64), interpolation=cv2.INTER_NEAREST) // 4 + frame // 2 for frame in frames
    ])
    assert blockiness(frames) == pytest.approx(1, abs=0.1)
    assert blockiness(blocks) > 1.5
    assert blockiness(np.roll(blocks, 3, axis=(1, 2))) < 1


def test_jump_at_joins_is_seen() -> None:
    level = np.arange(24) + 20 * (np.arange(24) >= 12)
    frames = np.broadcast_to(level[:, None, None, None], (24, 8, 8, 3)).astype(np.uint8)
    assert join_jump(frames, [12]) == pytest.approx(21)
    assert join_jump(frames, [6, 18]) < 1
    with pytest.raises(ValueError, match="within 1"):
        join_jump(frames, [24])


def test_colour_drift_is_in_steps_the_eye_knows() -> None:
    grey = np.full((375, 16, 16, 3), 128, np.uint8)
    grey[250:] += 8
    drift = colour_drift(grey)
    assert drift.delta_e.tolist() == pytest.approx([0, 0, 3.05], abs=0.1)
    assert drift.background.tolist() == pytest.approx([0, 0, 8], abs=1e-3)
    with pytest.raises(ValueError, match="at least 5 s"):
        colour_drift(grey[:100])
