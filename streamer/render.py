"""Offline rendering: sound from a source through the pipeline, chunk by chunk, into a file.

The loop is the one a live session runs, without the clock: the pipeline is only ever asked for `step`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from models.flops import count_flops
from models.presenter import Presenter
from models.talking import Chunk
from models.timing import FRAMES_PER_LATENT
from streamer.audio_in import SampleReader, SoundSource
from streamer.errors import InputError, PictureError
from streamer.mark import MarkStamp
from streamer.video_out import SOUND_RATE_HZ, VideoWriter

MAX_CHUNK_LATENTS = 6


class Pipeline(Protocol):
    """What the renderer asks of `models.pipeline.AvatarPipeline`.

    Attributes:
        fps, sample_rate: frames a second; samples a second of the sound it hears.
        frame_size: height and width of its frames, pixels.
        delay_frames: frames of one step show the sound this many frames earlier (its look-ahead).
        fixed_latents: new latents of every step, where the model leaves no choice.
    """

    @property
    def fps(self) -> int: ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def frame_size(self) -> tuple[int, int]: ...

    @property
    def delay_frames(self) -> int: ...

    @property
    def fixed_latents(self) -> int | None: ...

    @property
    def device(self) -> Any: ...

    def start(self, reference: Any, prompt: str = "", seed: int = 0, chunk_latents: int | None = 3) -> Any: ...

    def step(self, samples: torch.Tensor, state: Any) -> Chunk[Any]: ...


@dataclass(frozen=True)
class RenderOptions:
    """How to render.

    Attributes:
        prompt: text condition, may be empty.
        seed: of everything random.
        chunk_latents: new latents a step, 1 to 6; each is 4 frames. Without effect on a model that has one length.
        is_flop_counted: run one more chunk after the last to count its operations.
    """

    prompt: str = ""
    seed: int = 0
    chunk_latents: int = 3
    is_flop_counted: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_latents <= MAX_CHUNK_LATENTS:
            raise InputError(f"a chunk has 1 to {MAX_CHUNK_LATENTS} latents, not {self.chunk_latents}")


@dataclass
class RenderTimes:
    """What a rendering took; seconds and milliseconds of wall time.

    Attributes:
        frames: written.
        chunk_s, chunk_frames: of every step, in order; frames before the delay is dropped.
        stage_ms: of all steps together.
        first_stage_ms: of the first step, which is cold.
        gflop_per_frame: of one warm chunk; None if it was not asked for.
        setup_s: from the reference picture to the first step.
    """

    frames: int = 0
    chunk_s: list[float] = field(default_factory=list)
    chunk_frames: list[int] = field(default_factory=list)
    stage_ms: dict[str, float] = field(default_factory=dict)
    first_stage_ms: dict[str, float] = field(default_factory=dict)
    gflop_per_frame: float | None = None
    setup_s: float = 0.0

    def add_stages(self, stage_ms: dict[str, float]) -> None:
        """Count a step's milliseconds by stage."""
        self.first_stage_ms = self.first_stage_ms or dict(stage_ms)
        for stage, ms in stage_ms.items():
            self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + ms


class SoundFeed:
    """Cuts a stream of sound into chunks for the pipeline and flushes its look-ahead with silence.

    Args:
        blocks: float32 blocks of any length.
        frame_samples: samples of a frame.
        chunk_frames: frames of a chunk, a multiple of 4; the last chunk may be shorter, a multiple of 4 too.
        flush_frames: frames of silence that must follow the last sound.
        is_fixed: the last chunk is as long as the others, with silence at its end.
    """

    def __init__(
        self,
        blocks: Iterator[np.ndarray],
        frame_samples: int,
        chunk_frames: int,
        flush_frames: int,
        is_fixed: bool = False,
    ) -> None:
        self._reader = SampleReader(blocks)
        self._frame_samples = frame_samples
        self._chunk_frames = chunk_frames
        self._flush_frames = flush_frames
        self._step_frames = chunk_frames if is_fixed else FRAMES_PER_LATENT
        self.frames_total: int | None = None
        """Frames that show the sound; known once the last chunk of sound has been cut."""

    def __iter__(self) -> Iterator[np.ndarray]:
        """Chunks float32 [k * 4 * frame_samples], k ≥ 1."""
        fed = 0
        while self.frames_total is None or fed < self.frames_total + self._flush_frames:
            chunk = self._reader.take(self._chunk_frames * self._frame_samples)
            if self._reader.is_exhausted and self.frames_total is None:
                self.frames_total = math.ceil(self._reader.samples_read / self._frame_samples)
            frames = self._chunk_frames
            if self.frames_total is not None:
                missing = self.frames_total + self._flush_frames - fed
                frames = min(frames, math.ceil(missing / self._step_frames) * self._step_frames)
            if frames <= 0:
                break
            fed += frames
            yield chunk[: frames * self._frame_samples]

    def close(self) -> None:
        self._reader.close()


def render(
    pipeline: Pipeline,
    source: SoundSource,
    reference: np.ndarray | Presenter,
    writer: VideoWriter,
    options: RenderOptions,
    stamp: MarkStamp | None = None,
    on_frames: Callable[[np.ndarray], None] | None = None,
) -> RenderTimes:
    """Renders a whole source into an open writer.

    Args:
        reference: float32 [3, H, W] in [0, 1], of the pipeline's `frame_size`, or, for a model that takes any size,
            uint8 [H, W, 3], or, for one that moves presenters, such a one.
        stamp: the visible mark; None leaves the picture bare.
        on_frames: is shown every batch of finished frames, uint8 [T, H, W, 3].

    Raises:
        AvatarError: of the source, or of the writer.
    """
    times = RenderTimes()
    frame_samples = pipeline.sample_rate // pipeline.fps
    fixed = pipeline.fixed_latents
    latents = fixed or options.chunk_latents
    blocks, chunk_frames = source.blocks(pipeline.sample_rate), FRAMES_PER_LATENT * latents
    feed = SoundFeed(blocks, frame_samples, chunk_frames, pipeline.delay_frames, is_fixed=fixed is not None)
    soundtrack = SampleReader(source.blocks(SOUND_RATE_HZ))
    to_drop = pipeline.delay_frames
    state: Any = None
    try:
        for samples in feed:
            # Started only now: sound that cannot be read is found before anything costly is done.
            if state is None:
                began = time.perf_counter()
                try:
                    shown = torch.tensor(reference) if isinstance(reference, np.ndarray) else reference
                    state = pipeline.start(shown, options.prompt, options.seed, latents)
                except ValueError as error:  # no face is found in it, or the presenter has another size
                    raise PictureError(str(error)) from error
                times.setup_s = time.perf_counter() - began
            began = time.perf_counter()
            frames, state, stage_ms = pipeline.step(torch.from_numpy(samples), state)
            pictures = to_pictures(frames)
            times.chunk_s.append(time.perf_counter() - began)
            times.chunk_frames.append(len(pictures))
            times.add_stages(stage_ms)
            pictures, to_drop = pictures[to_drop:], max(0, to_drop - len(pictures))
            if feed.frames_total is not None:
                pictures = pictures[: feed.frames_total - times.frames]
            if not len(pictures):
                continue
            if stamp is not None:
                stamp.apply(pictures)
            writer.write(pictures, soundtrack.take(len(pictures) * writer.samples_per_frame))
            times.frames += len(pictures)
            if on_frames is not None:
                on_frames(pictures)
    finally:
        feed.close()
        soundtrack.close()
    if options.is_flop_counted:
        times.gflop_per_frame = count_gflop_per_frame(pipeline, state, chunk_frames, frame_samples)
    return times


def to_pictures(frames: torch.Tensor) -> np.ndarray:
    """Frames as in `models.talking.Chunk` to uint8 [T, H, W, 3] in main memory, writable."""
    if frames.dtype == torch.uint8:
        return frames.numpy()
    scaled = frames.detach().to(torch.float32).clamp(0.0, 1.0).mul(255.0).add_(0.5)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def count_gflop_per_frame(pipeline: Pipeline, state: Any, chunk_frames: int, frame_samples: int) -> float:
    """Operations of one more chunk of silence, 10⁹ a frame."""
    silence = torch.zeros(chunk_frames * frame_samples)
    return count_flops(lambda: pipeline.step(silence, state)) / chunk_frames / 1e9
