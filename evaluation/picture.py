"""Picture quality against a truth, and what betrays a chunked generator: joins, block edges, drift of colour."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from evaluation.takes import FPS


@dataclass(frozen=True)
class ColourDrift:
    """Colour over time, in windows of 5 s.

    Attributes:
        mean_rgb: [windows, 3] mean colour in 0 … 255.
        delta_e: [windows] CIE76 distance of the mean Lab colour from that of the first window.
        background: [windows] mean absolute difference of the picture's upper corners from the first window's.
        sharpness: [windows] gradient energy over that of the first window.
    """

    mean_rgb: np.ndarray
    delta_e: np.ndarray
    background: np.ndarray
    sharpness: np.ndarray


def psnr_db(frames: np.ndarray, true: np.ndarray) -> float:
    """Peak signal-to-noise ratio over all frames uint8 [T, H, W, 3], in dB."""
    total = sum(float(((a.astype(np.float32) - b) ** 2).mean()) for a, b in zip(frames, true, strict=True))
    return float(10 * np.log10(255**2 / max(total / len(true), 1e-6)))


def ssim(frames: np.ndarray, true: np.ndarray) -> float:
    """Structural similarity of the luma, 11×11 Gaussian window of 1.5 pixels, mean over frames."""
    return float(np.mean([_ssim_frame(_luma(a), _luma(b)) for a, b in zip(frames, true, strict=True)]))


def _ssim_frame(first: np.ndarray, second: np.ndarray) -> float:
    def smooth(picture: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(picture, (11, 11), 1.5)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = smooth(first), smooth(second)
    var_a, var_b = smooth(first * first) - mean_a**2, smooth(second * second) - mean_b**2
    covariance = smooth(first * second) - mean_a * mean_b
    score = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(score.mean())


def gradient_energy(frames: np.ndarray) -> float:
    """Mean squared difference of neighbouring luma pixels: sharpness, in squared grey levels."""
    return float(np.mean([
        (np.diff(luma, axis=0) ** 2).mean() + (np.diff(luma, axis=1) ** 2).mean() for luma in map(_luma, frames)
    ]))


def blockiness(frames: np.ndarray, grid: int = 8) -> float:
    """Differences across the lines of an 8-pixel grid over those across all other lines; 1 = no block edges."""
    on_grid = np.zeros(2)
    elsewhere = np.zeros(2)
    for luma in map(_luma, frames):
        for axis in (0, 1):
            steps = np.abs(np.diff(luma, axis=axis)).mean(1 - axis)
            is_grid = (np.arange(len(steps)) + 1) % grid == 0
            on_grid[axis] += steps[is_grid].mean()
            elsewhere[axis] += steps[~is_grid].mean()
    return float(on_grid.sum() / max(float(elsewhere.sum()), 1e-9))


def join_jump(frames: np.ndarray, joins: list[int]) -> float:
    """Mean frame-to-frame difference at the first frames of chunks over that of all other frames; 1 = no jump.

    Raises:
        ValueError: if a join is not within 1 … T - 1 or there is none.
    """
    if not joins or min(joins) < 1 or max(joins) >= len(frames):
        raise ValueError(f"joins must lie within 1 … {len(frames) - 1}, got {joins[:8]}")
    steps = np.array([cv2.absdiff(a, b).mean() for a, b in zip(frames[1:], frames[:-1], strict=True)])
    at_join = np.zeros(len(steps), bool)
    at_join[np.array(joins) - 1] = True
    return float(steps[at_join].mean() / max(float(steps[~at_join].mean()), 1e-6))


def colour_drift(frames: np.ndarray, window_s: float = 5.0) -> ColourDrift:
    """Colour, background and sharpness of frames uint8 [T, H, W, 3] over time; a last part window is dropped."""
    size = int(window_s * FPS)
    windows = [frames[start : start + size] for start in range(0, len(frames) - size + 1, size)]
    if not windows:
        raise ValueError(f"drift needs at least {window_s:g} s, got {len(frames) / FPS:g} s")
    mean_rgb = np.stack([window.mean((0, 1, 2)) for window in windows])
    lab = np.stack([_lab(window.mean(0)).mean((0, 1)) for window in windows])
    corners = np.stack([_corners(window.mean(0)) for window in windows])
    sharpness = np.array([gradient_energy(window[::5]) for window in windows])
    return ColourDrift(
        mean_rgb=mean_rgb,
        delta_e=np.linalg.norm(lab - lab[0], axis=1),
        background=np.abs(corners - corners[0]).mean((1, 2, 3)),
        sharpness=sharpness / max(float(sharpness[0]), 1e-9),
    )


def _corners(picture: np.ndarray) -> np.ndarray:
    """Upper left and right corners side by side: background in every head-and-shoulders framing."""
    height, width = picture.shape[:2]
    return np.concatenate([picture[: height // 5, : width // 6], picture[: height // 5, -(width // 6) :]], axis=1)


def _lab(picture: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((picture / 255).astype(np.float32), cv2.COLOR_RGB2LAB)


def _luma(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
