"""Generated video to measure: a take's sound through the pipeline, chunk by chunk, as a session would."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.takes import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, Take
from models.talking import Chunk

_FRAMES_PER_LATENT = 4


class Pipeline(Protocol):
    """The part of `models.pipeline.AvatarPipeline` that is used here; its state is opaque."""

    pose_estimator: Any

    @property
    def delay_frames(self) -> int:
        """Frames by which a step's frames are behind its sound."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames."""

    def start(self, reference: Tensor, prompt: str, seed: int, chunk_latents: int) -> Any:
        """State of a new stream."""

    def step(self, samples: Tensor, state: Any) -> Chunk[Any]:
        """Sound [n·2560] → frames [4n, 3, H, W] in 0 … 1, the next state, milliseconds by stage."""


@dataclass(frozen=True)
class Generated:
    """A generated clip: frames uint8 [T, H, W, 3], the small frames they were made from, first frames of chunks."""

    frames: np.ndarray
    small_frames: np.ndarray
    joins: list[int]
    compute_s: float


@dataclass
class PoseRecorder:
    """Stands in for a pipeline's pose estimator and keeps the small frames that it is shown."""

    estimator: Any
    frames: list[np.ndarray] = field(default_factory=list)

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames [G, 3, H, W] → keypoints, by the real estimator."""
        self.frames.append(to_uint8(frames))
        return self.estimator(frames)


def generate(
    pipeline: Pipeline, reference: np.ndarray, samples: np.ndarray, prompt: str = "", seed: int = 0,
    chunk_latents: int = 3,
) -> Generated:
    """Frames of a whole piece of sound, as many as it has.

    Args:
        pipeline: any of the presets.
        reference: uint8 [H, W, 3], resized to the pipeline's size.
        samples: float32 [N] mono 16 kHz; whole frames, a rest is dropped.
        prompt, seed, chunk_latents: as for `AvatarPipeline.start`.

    Raises:
        ValueError: if there is less than one frame of sound.
    """
    count = len(samples) // SAMPLES_PER_FRAME
    if count < 1:
        raise ValueError(f"need at least {SAMPLES_PER_FRAME} samples, got {len(samples)}")
    recorder = PoseRecorder(pipeline.pose_estimator)
    pipeline.pose_estimator = recorder
    try:
        state = pipeline.start(reference_tensor(reference, pipeline.frame_size), prompt, seed, chunk_latents)
        recorder.frames.clear()
        started = time.perf_counter()
        chunks: list[np.ndarray] = []
        joins: list[int] = []
        for chunk in sound_chunks(samples[: count * SAMPLES_PER_FRAME], pipeline.delay_frames, chunk_latents):
            joins.append(sum(len(made) for made in chunks) - pipeline.delay_frames)
            frames, state, _ = pipeline.step(torch.from_numpy(chunk), state)
            chunks.append(to_uint8(frames))
        compute_s = time.perf_counter() - started
    finally:
        pipeline.pose_estimator = recorder.estimator
    shown = slice(pipeline.delay_frames, pipeline.delay_frames + count)
    small = np.concatenate(recorder.frames)[shown] if recorder.frames else np.concatenate(chunks)[shown]
    return Generated(
        np.concatenate(chunks)[shown], small, [join for join in joins if 1 <= join < count], compute_s
    )


def sound_chunks(samples: np.ndarray, delay_frames: int, chunk_latents: int) -> list[np.ndarray]:
    """Sound cut into chunks, followed by silence for the look-ahead and up to the end of the last chunk."""
    size = chunk_latents * _FRAMES_PER_LATENT * SAMPLES_PER_FRAME
    wanted = len(samples) + delay_frames * SAMPLES_PER_FRAME
    padded = np.zeros(-(-wanted // size) * size, np.float32)
    padded[: len(samples)] = samples
    return list(padded.reshape(-1, size))


def quiet_sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Sound in which nobody speaks, float32 [N]: first half digital silence, then a microphone's hiss at -65 dB."""
    count = int(seconds * FPS) * SAMPLES_PER_FRAME
    samples = np.zeros(count, np.float32)
    hiss = np.random.default_rng(seed).normal(0, 10 ** (-65 / 20), count - count // 2)
    samples[count // 2 :] = hiss
    return samples


def long_sound(takes: list[Take], seconds: float) -> np.ndarray:
    """Sounds of takes one after another, again from the start where they are too short, float32 [N]."""
    count = int(seconds * SAMPLE_RATE)
    joined = np.concatenate([take.samples for take in takes])
    return np.tile(joined, -(-count // len(joined)))[:count]


def reference_tensor(picture: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Picture uint8 [H, W, 3] → float32 [3, *size] in 0 … 1."""
    if picture.shape[:2] != size:
        resized = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS)
        picture = np.asarray(resized)
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def to_uint8(frames: Tensor) -> np.ndarray:
    """Frames [T, 3, H, W] in 0 … 1 → uint8 [T, H, W, 3]."""
    return (frames.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def to_float(frames: np.ndarray) -> Tensor:
    """Frames uint8 [T, H, W, 3] → float32 [T, 3, H, W] in 0 … 1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
