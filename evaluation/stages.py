"""Stages of the pipeline alone: what the VAE keeps of true frames, what the refiner makes of true small latents."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from evaluation.generate import PoseRecorder, reference_tensor, to_float, to_uint8
from evaluation.landmarks import LandmarkError, landmark_error, to_px256
from evaluation.picture import blockiness, gradient_energy, psnr_db, ssim
from evaluation.takes import SAMPLES_PER_FRAME, Take, read_picture
from models.pipeline import AvatarPipeline

_FRAMES_PER_LATENT = 4
_MOUTH_POINTS = slice(48, 60)


@dataclass(frozen=True)
class PictureScore:
    """Frames against the truth: dB, similarity, gradient energy and blockiness over the truth's own."""

    psnr_db: float
    mouth_psnr_db: float
    ssim: float
    sharpness: float
    blockiness: float


@dataclass(frozen=True)
class RefinerScore:
    """Refined frames from true LR latents and keypoints, and the decoded LR frames enlarged, both to the truth."""

    refined: PictureScore
    enlarged: PictureScore


def picture_score(frames: np.ndarray, true: np.ndarray, keypoints: np.ndarray) -> PictureScore:
    """Score of frames uint8 [T, H, W, 3] against true ones of the same shape, keypoints [T, 143, 3]."""
    mouths = [mouth_box(points, true.shape[1:3]) for points in keypoints[: len(true)]]
    return PictureScore(
        psnr_db=psnr_db(frames, true),
        mouth_psnr_db=_pooled_psnr_db([frame[box] for frame, box in zip(frames, mouths, strict=True)],
                                      [frame[box] for frame, box in zip(true, mouths, strict=True)]),
        ssim=ssim(frames[::4], true[::4]),
        sharpness=gradient_energy(frames[::4]) / max(gradient_energy(true[::4]), 1e-9),
        blockiness=blockiness(frames[::4]) / max(blockiness(true[::4]), 1e-9),
    )


def mouth_box(points: np.ndarray, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of the mouth with a margin of a third of its width; keypoints of one frame [143, 3]."""
    lips = points[_MOUTH_POINTS, :2] * (size[1], size[0])
    (left, top), (right, bottom) = lips.min(0), lips.max(0)
    margin = (right - left) / 3
    rows = np.clip([top - margin, bottom + margin], 0, size[0]).astype(int)
    columns = np.clip([left - margin, right + margin], 0, size[1]).astype(int)
    return slice(rows[0], max(rows[1], rows[0] + 1)), slice(columns[0], max(columns[1], columns[0] + 1))


def _pooled_psnr_db(patches: list[np.ndarray], true: list[np.ndarray]) -> float:
    errors = [(a.astype(np.float32) - b) ** 2 for a, b in zip(patches, true, strict=True)]
    mean = sum(float(error.sum()) for error in errors) / max(sum(error.size for error in errors), 1)
    return float(10 * np.log10(255**2 / max(mean, 1e-6)))


@torch.inference_mode()
def through_vae(pipeline: AvatarPipeline, frames: np.ndarray) -> np.ndarray:
    """What encoding and decoding leaves of frames uint8 [T, H, W, 3]: [T', H, W, 3], T' ≤ T the largest 1 + 4k."""
    true = frames[: (len(frames) - 1) // _FRAMES_PER_LATENT * _FRAMES_PER_LATENT + 1]
    step = 6 * _FRAMES_PER_LATENT
    pieces = [true[:1]] + [true[first : first + step] for first in range(1, len(true), step)]
    decoded, cache = [], None
    for index, piece in enumerate(pieces):
        encode = pipeline.vae.encode_groups if index else pipeline.vae.encode
        latents = encode(to_float(piece).to(pipeline.device)[None])
        chunk, cache = pipeline.vae.decode_chunk(latents, cache)
        decoded.append(to_uint8(chunk[0]))
    return np.concatenate(decoded)


@dataclass
class TrueLatents:
    """Stands in for LR-A2V: its answer is the true LR latents [1, C, T, h, w] from `position` on."""

    latents: Tensor
    position: int = 0

    def __call__(
        self, window: Tensor, timesteps: Tensor, new: int, *conditions: Tensor | None, **more: object
    ) -> Tensor:
        """Same arguments as `LRA2V.forward`; returns [1, C, new, h, w] whatever they are."""
        return self.latents[:, :, self.position : self.position + new]


@dataclass
class TrueKeypoints:
    """Stands in for the pose estimator: the reference's keypoints come from the real one, then true ones."""

    keypoints: Tensor
    position: int = 0

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames [G, 3, H, W] → the next G true keypoints [G, 143, 3]."""
        return self.keypoints[self.position : self.position + len(frames)].clone()


@dataclass
class TruePlan:
    """Stands in for the animator's planner: what it plans are the keypoints that `TrueKeypoints` shows."""

    keypoints: TrueKeypoints

    def __call__(self, tokens: Tensor, motion: Tensor, text: Tensor, reference: Tensor) -> Tensor:
        """Same arguments as `models.animator.PointPlanner.forward`; returns [1, G, 143, 3]."""
        first = self.keypoints.position
        return self.keypoints.keypoints[None, first : first + motion.shape[1]].clone()


@torch.inference_mode()
def refine_true(pipeline: AvatarPipeline, take: Take, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pipeline from LR latents on, with true latents and keypoints in the place of generated ones.

    Degradation, refiner, motion latents of its own making and the chunked decoder are those of a session.

    Args:
        pipeline: its LR-A2V and pose estimator are set aside for the length of the call.
        take: sound is not used, keypoints and reference are.
        frames: true frames uint8 [T, H, W, 3] of the pipeline's size.

    Returns:
        refined frames uint8 [T', H, W, 3] and the decoded LR frames uint8 [T', h, w, 3] that they were made from,
        T' ≤ T a whole number of chunks.
    """
    n = pipeline.preset.chunk_latents
    chunk_frames = n * _FRAMES_PER_LATENT
    count = min(len(frames), take.frame_count) // chunk_frames * chunk_frames
    height, width = pipeline.frame_size
    small = resize(frames[:count], pipeline.preset.lr_size)
    latents = TrueLatents(pipeline.vae.encode_groups(to_float(small).to(pipeline.device)[None]))
    state = pipeline.start(reference_tensor(read_picture(take.reference), (height, width)), take.prompt)
    keypoints = TrueKeypoints(torch.from_numpy(take.keypoints).to(pipeline.device))
    recorder = PoseRecorder(keypoints)
    own = pipeline.lr_a2v, pipeline.pose_estimator, pipeline.point_planner
    pipeline.lr_a2v, pipeline.pose_estimator = latents, recorder  # type: ignore[assignment]
    pipeline.point_planner = TruePlan(keypoints)
    refined = []
    try:
        for first in range(0, count, chunk_frames):
            latents.position, keypoints.position = first // _FRAMES_PER_LATENT, first
            chunk, state, _ = pipeline.step(torch.zeros(chunk_frames * SAMPLES_PER_FRAME), state)
            refined.append(to_uint8(chunk))
    finally:
        pipeline.lr_a2v, pipeline.pose_estimator, pipeline.point_planner = own
    return np.concatenate(refined), np.concatenate(recorder.frames)


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames uint8 [T, h, w, 3] → [T, *size, 3]; bicubic where they grow, averaged where they shrink."""
    if frames.shape[1:3] == size:
        return frames
    how = cv2.INTER_CUBIC if size[0] > frames.shape[1] else cv2.INTER_AREA
    return np.stack([cv2.resize(frame, size[::-1], interpolation=how) for frame in frames])


def refiner_score(refined: np.ndarray, small: np.ndarray, true: np.ndarray, keypoints: np.ndarray) -> RefinerScore:
    """Score what `refine_true` returns against the true frames."""
    true = true[: len(refined)]
    enlarged = resize(small, (refined.shape[1], refined.shape[2]))
    return RefinerScore(picture_score(refined, true, keypoints), picture_score(enlarged, true, keypoints))


@torch.inference_mode()
def pose_score(pipeline: AvatarPipeline, small: np.ndarray, keypoints: np.ndarray) -> LandmarkError:
    """The pipeline's own pose estimator on decoded LR frames uint8 [T, h, w, 3] against exact keypoints."""
    found = pipeline.pose_estimator(to_float(small).to(pipeline.device)).cpu().numpy()
    size = small.shape[1:3]
    return landmark_error(to_px256(found, size), to_px256(keypoints[: len(small)], size))
