"""A landmark regressor for evaluation alone, fitted on true frames of the presenter that is measured.

The generator has a pose estimator of its own; measuring lips with it would let the model mark its own work. This
one is closed form and shares nothing with it: ridge regression from the whole face, then from crops around mouth
and eyes, fitted on other takes of the same presenter, sharp and softened (a decoder's picture is softer than a
render). Its error on true frames is reported beside every figure it makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from evaluation.lips import aperture_px256, correlation

FACE_POINTS = 70
LIPS, EYES = slice(48, 70), slice(36, 48)
_COARSE_SIZE = 32
_SOFTENED_COPIES = 1
_NOISE = 0.03  # assumed error of a pixel (of 0 … 1): the ridge penalty is its square times the number of frames


@dataclass(frozen=True)
class Region:
    """A crop that follows some points, and the linear map from its pixels to their offsets from its centre.

    Attributes:
        points: slice of the 70 face points.
        extent: (width, height) of the crop in px256.
        grid: (width, height) of the crop in pixels.
        mean: float32 [3 * grid] mean pixels. weights: float32 [3 * grid, 2 * points].
        offsets: float32 [points, 2] mean offsets in px256.
    """

    points: slice
    extent: tuple[float, float]
    grid: tuple[int, int]
    mean: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class LandmarkError:
    """Errors on frames that were not fitted on: mean distances in px256, aperture against the exact one."""

    face_px256: float
    lips_px256: float
    eyes_px256: float
    aperture_r: float
    aperture_px256: float
    frame_count: int


@dataclass(frozen=True)
class LandmarkRegressor:
    """Two-stage linear landmark regressor of one presenter; `predict` is all that is needed of it."""

    mean: np.ndarray  # float32 [3072] of the coarse picture
    weights: np.ndarray  # float32 [3072, 140]
    points: np.ndarray  # float32 [70, 2] mean face, px256
    mouth: Region
    eyes: Region

    def predict(self, frames: np.ndarray) -> np.ndarray:
        """Face points of frames uint8 [T, H, W, 3] → float32 [T, 70, 2] in px256."""
        found = np.empty((len(frames), FACE_POINTS, 2), np.float32)
        for index, frame in enumerate(frames):
            picture = _to_float256(frame)
            pixels = _coarse(picture) - self.mean
            face = self.points + (pixels @ self.weights).reshape(-1, 2)
            for region in (self.eyes, self.mouth):
                for _ in range(2):
                    centre = face[region.points].mean(0)
                    pixels = _crop(picture, centre, region.extent, region.grid) - region.mean
                    offsets = region.offsets + (pixels @ region.weights).reshape(-1, 2)
                    face[region.points] = centre + offsets
            found[index] = face
        return found

    def save(self, path: Path) -> None:
        """Write all arrays to an `.npz`."""
        arrays: dict[str, Any] = {"mean": self.mean, "weights": self.weights, "points": self.points}
        for name, region in (("mouth", self.mouth), ("eyes", self.eyes)):
            arrays |= {
                f"{name}_range": np.array([region.points.start, region.points.stop]),
                f"{name}_extent": np.array(region.extent),
                f"{name}_grid": np.array(region.grid),
                f"{name}_mean": region.mean,
                f"{name}_weights": region.weights,
                f"{name}_offsets": region.offsets,
            }
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> LandmarkRegressor:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(
                arrays["mean"], arrays["weights"], arrays["points"],
                _load_region(arrays, "mouth"), _load_region(arrays, "eyes"),
            )


def fit_landmarks(frames: np.ndarray, keypoints: np.ndarray, seed: int = 0) -> LandmarkRegressor:
    """Fit a regressor on true frames.

    Args:
        frames: uint8 [N, H, W, 3], some hundreds; consecutive frames add little.
        keypoints: float32 [N, ≥70, ≥2], x and y in 0 … 1, the face points first.
        seed: of softening, brightness and crop jitter.

    Raises:
        ValueError: if there are fewer than 16 frames or the numbers differ.
    """
    if len(frames) < 16 or len(frames) != len(keypoints):
        raise ValueError(f"need at least 16 frames with keypoints each, got {len(frames)} and {len(keypoints)}")
    rng = np.random.default_rng(seed)
    exact = to_px256(keypoints, frames.shape[1:3])
    pictures = [_to_float256(frame) for frame in frames]
    pictures += [_soften(picture, rng) for _ in range(_SOFTENED_COPIES) for picture in pictures]
    targets = np.concatenate([exact] * (1 + _SOFTENED_COPIES))
    pixels = np.stack([_coarse(picture) for picture in pictures])
    mean, weights = _ridge(pixels, (targets - exact.mean(0)).reshape(len(targets), -1))
    mouth_width = float(np.median(np.ptp(exact[:, LIPS, 0], axis=1)))
    eyes_width = float(np.median(np.ptp(exact[:, EYES, 0], axis=1)))
    return LandmarkRegressor(
        mean, weights, exact.mean(0),
        _fit_region(pictures, targets, LIPS, (1.7 * mouth_width, 1.25 * mouth_width), (40, 30), rng),
        _fit_region(pictures, targets, EYES, (1.35 * eyes_width, 0.42 * eyes_width), (54, 17), rng),
    )


def landmark_error(found: np.ndarray, exact: np.ndarray) -> LandmarkError:
    """Error of found face points [T, 70, 2] against exact ones, both in px256."""
    distance = np.linalg.norm(found - exact, axis=2)
    true_aperture, aperture = aperture_px256(exact), aperture_px256(found)
    return LandmarkError(
        face_px256=float(distance.mean()),
        lips_px256=float(distance[:, LIPS].mean()),
        eyes_px256=float(distance[:, EYES].mean()),
        aperture_r=correlation(aperture, true_aperture),
        aperture_px256=float(np.abs(aperture - true_aperture).mean()),
        frame_count=len(exact),
    )


def to_px256(keypoints: np.ndarray, picture_size: tuple[int, ...]) -> np.ndarray:
    """Keypoints [T, 143, 3] in 0 … 1 → the 70 face points [T, 70, 2] in px256; picture_size is (rows, columns)."""
    rows, columns = picture_size[:2]
    return (keypoints[:, :FACE_POINTS, :2] * (256 * columns / rows, 256)).astype(np.float32)


def _to_float256(frame: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] → float32 [256, W', 3] in 0 … 1, a little blurred: finer detail tells nothing and misleads."""
    rows, columns = frame.shape[:2]
    if rows != 256:
        smaller = cv2.INTER_AREA if rows > 256 else cv2.INTER_CUBIC
        frame = cv2.resize(frame, (round(columns * 256 / rows), 256), interpolation=smaller)
    return cv2.GaussianBlur(frame.astype(np.float32) / 255, (0, 0), 1.0)


def _soften(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A copy as a decoder might show it: blurred by 0.6 … 2 pixels, a little brighter or darker."""
    blurred = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.6, 2.0))
    gain, offset = rng.uniform(0.95, 1.05), rng.uniform(-0.02, 0.02)
    return blurred * np.float32(gain) + np.float32(offset)


def _coarse(picture: np.ndarray) -> np.ndarray:
    return _without_tint(cv2.resize(picture, (_COARSE_SIZE, _COARSE_SIZE), interpolation=cv2.INTER_AREA))


def _crop(
    picture: np.ndarray, centre: np.ndarray, extent: tuple[float, float], grid: tuple[int, int]
) -> np.ndarray:
    """Sub-pixel crop of `extent` pixels around `centre` (x, y), sampled on a grid → float32 [3 * grid]."""
    scale_x, scale_y = extent[0] / grid[0], extent[1] / grid[1]
    matrix = np.array([
        [scale_x, 0, centre[0] - extent[0] / 2 + scale_x / 2 - 0.5],
        [0, scale_y, centre[1] - extent[1] / 2 + scale_y / 2 - 0.5],
    ])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return _without_tint(cv2.warpAffine(picture, matrix, grid, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _without_tint(picture: np.ndarray) -> np.ndarray:
    """Pixels less the mean of their colour, [3 * pixels]: a drift of colour must not read as a motion of the lips."""
    return (picture - picture.mean((0, 1))).reshape(-1)


def _fit_region(
    pictures: list[np.ndarray], targets: np.ndarray, points: slice, extent: tuple[float, float],
    grid: tuple[int, int], rng: np.random.Generator,
) -> Region:
    """Fit one region on pictures with targets [N, 70, 2] in px256, the centres jittered by the first stage's error."""
    own = targets[:, points]
    centres = own.mean(1) + rng.normal(0, 1.5, (len(own), 2))
    pixels = np.stack([
        _crop(picture, centre, extent, grid) for picture, centre in zip(pictures, centres, strict=True)
    ])
    offsets = own - centres[:, None]
    mean_offsets = offsets.mean(0).astype(np.float32)
    mean, weights = _ridge(pixels, (offsets - mean_offsets).reshape(len(own), -1))
    return Region(points, extent, grid, mean, weights, mean_offsets)


def _ridge(inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of centred targets [N, M] on inputs [N, D] → input mean [D], weights [D, M]."""
    mean = inputs.mean(0)
    centred = inputs - mean
    count, size = centred.shape
    penalty = np.float32(count * _NOISE**2)
    if count < size:
        gram = centred @ centred.T + penalty * np.eye(count, dtype=np.float32)
        weights = centred.T @ np.linalg.solve(gram, targets.astype(np.float32))
    else:
        gram = centred.T @ centred + penalty * np.eye(size, dtype=np.float32)
        weights = np.linalg.solve(gram, centred.T @ targets.astype(np.float32))
    return mean.astype(np.float32), weights.astype(np.float32)


def _load_region(arrays: np.lib.npyio.NpzFile, name: str) -> Region:
    first, last = arrays[f"{name}_range"].tolist()
    width, height = arrays[f"{name}_extent"].tolist()
    columns, rows = arrays[f"{name}_grid"].tolist()
    return Region(
        slice(first, last), (width, height), (columns, rows),
        arrays[f"{name}_mean"], arrays[f"{name}_weights"], arrays[f"{name}_offsets"],
    )
