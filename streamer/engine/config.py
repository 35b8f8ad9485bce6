"""What an engine and a stream are made from, and what an engine says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamer.engine.ladder import Rung
from streamer.mark import Mark

MAX_CHUNK_LATENTS = 7  # the longest of a model with a fixed one
PIPELINES = ("avatar", "test-pattern")


@dataclass(frozen=True)
class EngineConfig:
    """How to start an engine process.

    Attributes:
        preset, weights, device: as in `AvatarPipeline.load`; weights None are those that come with the package.
        model: a folder of public weights, in the place of preset and weights.
        model_size: height and width of its frames, pixels.
        has_graphs: replay the models from CUDA graphs (`models.graphs`).
        has_fp8: multiply in fp8 in the blocks of both transformers (`models.fp8`).
        threads: of torch; None leaves torch's own choice, which is every core.
        pipeline: "avatar", or "test-pattern" (see `pattern`), which needs neither weights nor torch.
        max_streams: open at once; more are refused.
        mark: the visible mark that every frame bears; None for none.
        start_timeout_s: for the process to load its weights and be ready.
        hang_s: a process that has not answered for so long, although chunks wait, is ended and started again.
        pattern_size: height and width of the test pattern's frames.
        pattern_step_ms: for tests: how long the test pattern takes for a chunk of the full rung.
    """

    preset: str = "portrait-512"
    weights: Path | None = None
    device: str = "cpu"
    model: Path | None = None
    model_size: int = 512
    has_graphs: bool = False
    has_fp8: bool = False
    threads: int | None = None
    pipeline: str = "avatar"
    max_streams: int = 8
    mark: Mark | None = Mark()
    start_timeout_s: float = 120.0
    hang_s: float = 30.0
    pattern_size: tuple[int, int] = (256, 256)
    pattern_step_ms: float = 0.0

    @property
    def name(self) -> str:
        """What is run: the preset, the folder of public weights, or the test pattern."""
        if self.pipeline != "avatar":
            return self.pipeline
        return self.preset if self.model is None else self.model.name

    def __post_init__(self) -> None:
        if self.pipeline not in PIPELINES:
            raise ValueError(f"pipeline must be one of {', '.join(PIPELINES)}, got {self.pipeline!r}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.max_streams < 1:
            raise ValueError(f"max_streams must be at least 1, got {self.max_streams}")
        if any(side < 64 or side % 16 for side in self.pattern_size):
            raise ValueError(f"pattern_size must be multiples of 16, at least 64, got {self.pattern_size}")


@dataclass(frozen=True)
class StreamSpec:
    """What a stream starts with.

    Attributes:
        reference: float32 [3, H, W] in 0 … 1, the presenter at rest, of the engine's frame size.
        prompt: emotion and manner in words.
        seed: of noise and motion plan.
        chunk_latents: largest n of a step, 1 … 7; a step may be shorter, but for a model with one length.
        motion_energy: 0 … 2.
    """

    reference: np.ndarray
    prompt: str = ""
    seed: int = 0
    chunk_latents: int = 3
    motion_energy: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_latents <= MAX_CHUNK_LATENTS:
            raise ValueError(f"chunk_latents must be within 1 … {MAX_CHUNK_LATENTS}, got {self.chunk_latents}")
        check_energy(self.motion_energy)


def check_energy(motion_energy: float) -> None:
    """Raises ValueError if a motion energy is out of range."""
    if not 0 <= motion_energy <= 2:
        raise ValueError(f"motion_energy must be within 0 … 2, got {motion_energy}")


@dataclass(frozen=True)
class EngineFacts:
    """What a running engine says of itself.

    Attributes:
        frame_size: height and width, pixels.
        delay_frames: frames of a chunk end this many frames before its sound does.
        warm_rtf: compute time of a full chunk of three latents (or of its fixed length) divided by its duration,
            measured at the start.
        rung_s: seconds a latent of every rung, measured at the start.
        pid: of the process that runs now.
        fixed_latents: the n that every step must have; None: any.
    """

    fps: int
    sample_rate: int
    frame_size: tuple[int, int]
    delay_frames: int
    preset: str
    device: str
    warm_rtf: float
    rung_s: dict[Rung, float] = field(default_factory=dict)
    pid: int = 0
    fixed_latents: int | None = None
