"""A pipeline without models: the brightness of a frame is the loudness of the sound it shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from models.talking import Chunk

FRAME_SAMPLES = 640


@dataclass
class FakeState:
    reference: torch.Tensor
    waiting: torch.Tensor  # sound that came in but is not shown yet
    frame_index: int


class FakePipeline:
    """Follows the contract of AvatarPipeline; counts what it is asked."""

    fps = 25
    sample_rate = 16_000
    device = torch.device("cpu")
    fixed_latents: int | None = None

    def __init__(self, frame_size: tuple[int, int] = (64, 64), delay_frames: int = 2):
        self.frame_size = frame_size
        self.delay_frames = delay_frames
        self.starts: list[dict] = []
        self.steps: list[int] = []

    def start(self, reference, prompt="", seed=0, chunk_latents=3) -> FakeState:
        assert reference.shape == (3, *self.frame_size) and reference.dtype == torch.float32
        self.starts.append({"prompt": prompt, "seed": seed, "chunk_latents": chunk_latents})
        waiting = torch.zeros(self.delay_frames * FRAME_SAMPLES)
        return FakeState(reference, waiting, -self.delay_frames)

    def step(self, samples, state):
        assert samples.dtype == torch.float32 and samples.ndim == 1
        latents, rest = divmod(len(samples), 4 * FRAME_SAMPLES)
        assert not rest and 1 <= latents <= 6
        self.steps.append(latents)
        sound = torch.cat([state.waiting, samples])
        shown = sound[: len(samples)].view(4 * latents, FRAME_SAMPLES)
        loudness = shown.square().mean(dim=1).sqrt().clamp(0, 1)
        frames = loudness.view(-1, 1, 1, 1).expand(-1, 3, *self.frame_size)
        after = FakeState(state.reference, sound[len(samples) :], state.frame_index + len(frames))
        return Chunk(frames, after, {"decode": 2.0 * len(frames)})


class Tone:
    """A sound source from a function of time; `name` and `duration_s` as the renderer wants them."""

    name = "tone"

    def __init__(self, duration_s: float, is_loud=lambda t: np.ones_like(t), block_s: float = 0.1):
        self.duration_s: float | None = duration_s
        self._is_loud = is_loud
        self._block_s = block_s

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        total = round(self.duration_s * sample_rate)
        size = round(self._block_s * sample_rate)
        for first in range(0, total, size):
            t = np.arange(first, min(first + size, total)) / sample_rate
            yield (np.sin(2 * np.pi * 400 * t) * self._is_loud(t)).astype(np.float32)
