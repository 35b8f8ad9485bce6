"""What the worker asks of a pipeline, and the real one behind it. Torch is imported only when one is made."""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from streamer.engine.config import EngineConfig
from streamer.engine.ladder import Rung
from streamer.mark import MarkStamp

if TYPE_CHECKING:
    from torch import Tensor

    from models.talking import TalkingModel


log = logging.getLogger(__name__)
Chunk = tuple[np.ndarray, Any, dict[str, float]]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_BATCH = 16  # on a GPU; one core is as busy with one stream as with several


class Backend(Protocol):
    """A talking model in numpy: sound in, I420 planes out, marked. States are opaque but for `frame_index`."""

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
    def rungs(self) -> tuple[Rung, ...]:
        """The ways to make a chunk, FULL first, without HOLD."""
        ...

    def rehearsal(self) -> Any:
        """State of a stream to measure with."""
        ...

    def start(
        self, reference: np.ndarray, prompt: str, seed: int, chunk_latents: int, motion_energy: float, first_frame: int
    ) -> Any: ...

    @property
    def largest_batch(self) -> int:
        """Streams that gain by having their chunks made in one step."""
        ...

    def step_batch(self, samples: Sequence[np.ndarray], states: Sequence[Any], rung: Rung) -> list[Chunk]:
        """Of each stream planes uint8 [4n, H·3/2, W], the next state, and its milliseconds by stage."""
        ...

    def still(self, state: Any) -> np.ndarray:
        """A stream's presenter at rest as a frame, uint8 [H·3/2, W]."""
        ...

    def hold(self, samples: np.ndarray, state: Any) -> Any: ...

    def set_prompt(self, state: Any, prompt: str | None, motion_energy: float | None) -> Any: ...

    def set_reference(self, state: Any, reference: np.ndarray) -> Any: ...


def make_backend(config: EngineConfig) -> Backend:
    """The backend a configuration asks for; loads its weights.

    Raises:
        ValueError, CheckpointError: as `AvatarPipeline.load`.
    """
    if config.pipeline == "test-pattern":
        from streamer.engine.pattern import PatternBackend

        return PatternBackend(config.pattern_size, config.pattern_step_ms, config.mark)
    return AvatarBackend(config)


def load_model(config: EngineConfig) -> TalkingModel[Any, Any]:
    """The models of a configuration: those of a preset, or of a folder of public weights, which are watched.

    Raises:
        ValueError, CheckpointError: as `AvatarPipeline.load` and `load_public`.
    """
    if config.model is not None:
        from models.public.loading import load_public
        from models.watchdog import WatchedModel

        size = (config.model_size, config.model_size)
        return WatchedModel(load_public(config.model, config.device, has_graphs=True, frame_size=size))
    from models import families

    pipeline = families.load_model(config.preset, config.weights, config.device, has_graphs=config.has_graphs)
    if config.has_graphs and pipeline.device.type != "cuda":
        log.warning("CUDA graphs have no effect on %s", pipeline.device)
    if config.has_fp8:
        _use_fp8(pipeline)
    return pipeline


class AvatarBackend:
    """A `models.talking.TalkingModel` behind the worker's calls."""

    def __init__(self, config: EngineConfig) -> None:
        _keep_freed_memory()
        import torch

        if config.threads is not None:
            torch.set_num_threads(config.threads)
            _limit_opencv(config.threads)
        self._torch = torch
        self._pipeline = load_model(config)
        self._stamp = None if config.mark is None else MarkStamp(config.mark, *self._pipeline.frame_size)
        if self._stamp is not None:
            layers = (1 - self._stamp.alpha, self._stamp.colour / 255)
            self._behind, self._colour = (
                torch.from_numpy(layer).permute(2, 0, 1).to(self._pipeline.device) for layer in layers
            )

    @property
    def fps(self) -> int:
        return self._pipeline.fps

    @property
    def sample_rate(self) -> int:
        return self._pipeline.sample_rate

    @property
    def frame_size(self) -> tuple[int, int]:
        return self._pipeline.frame_size

    @property
    def delay_frames(self) -> int:
        return self._pipeline.delay_frames

    @property
    def fixed_latents(self) -> int | None:
        return self._pipeline.fixed_latents

    @property
    def rungs(self) -> tuple[Rung, ...]:
        return self._pipeline.rungs

    def rehearsal(self) -> Any:
        return self._pipeline.rehearsal()

    def start(
        self, reference: np.ndarray, prompt: str, seed: int, chunk_latents: int, motion_energy: float, first_frame: int
    ) -> Any:
        picture = self._torch.tensor(reference)
        return self._pipeline.start(picture, prompt, seed, chunk_latents, motion_energy, first_frame)

    @property
    def largest_batch(self) -> int:
        return LARGEST_BATCH if self._pipeline.device.type == "cuda" else 1

    def step_batch(self, samples: Sequence[np.ndarray], states: Sequence[Any], rung: Rung) -> list[Chunk]:
        sounds = [self._torch.tensor(sound) for sound in samples]
        made = self._pipeline.step_batch(sounds, states, rung)
        return [self._chunk(*chunk) for chunk in made]

    def still(self, state: Any) -> np.ndarray:
        return self._planes(self._pipeline.still(state))[0]

    def _chunk(self, frames: Tensor, state: Any, stage_ms: dict[str, float]) -> Chunk:
        began_s = time.monotonic()
        planes = self._planes(frames)
        return planes, state, stage_ms | {"convert": (time.monotonic() - began_s) * 1e3}

    def _planes(self, frames: Tensor) -> np.ndarray:
        """Frames as in `models.talking.Chunk` → uint8 [T, H·3/2, W]; on the model's device."""
        with self._torch.inference_mode():
            if self._stamp is not None and frames.dtype == self._torch.uint8:
                self._stamp.apply(frames.numpy())
            elif self._stamp is not None:
                area = frames[:, :, self._stamp.rows, self._stamp.columns]
                area.mul_(self._behind).add_(self._colour)
            return self._pipeline.to_i420(frames).cpu().numpy()

    def hold(self, samples: np.ndarray, state: Any) -> Any:
        return self._pipeline.hold(self._torch.tensor(samples), state)

    def set_prompt(self, state: Any, prompt: str | None, motion_energy: float | None) -> Any:
        return self._pipeline.set_prompt(state, prompt, motion_energy)

    def set_reference(self, state: Any, reference: np.ndarray) -> Any:
        return self._pipeline.set_reference(state, self._torch.tensor(reference))


def _use_fp8(pipeline: TalkingModel[Any, Any]) -> None:
    """fp8 in the blocks of both transformers, where there are any and the device multiplies it."""
    from models.fp8 import has_fp8, use_fp8
    from models.pipeline import AvatarPipeline

    if not isinstance(pipeline, AvatarPipeline) or not has_fp8(pipeline.device):
        log.warning("fp8 has no effect on %s", pipeline.device)
        return
    for model in (pipeline.lr_a2v, pipeline.refiner):
        use_fp8(model)


def _limit_opencv(threads: int) -> None:
    """OpenCV, which moves portraits, counts its own threads."""
    import cv2

    cv2.setNumThreads(threads)


def _keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: large blocks go back at once, and the next chunk faults in every page anew.

    That is some 5 % of a chunk. Elsewhere than in glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that it takes
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
