"""FlashHead and LeapTalk as talking models: a picture and sound in, chunks of frames out.

A chunk has one length, the one that the weights were trained with: 28 new frames (Pro, LeapTalk) or 24 (Lite). All
that a stream carries is its state; a picture's `Still` is shared by the streams that show it.

These models only talk: fed silence, they idle. An interruption is silence too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from kernels.low_pass import standard_normal
from kernels.rgb_to_i420 import rgb_to_i420
from models.graphs import CudaGraphs
from models.public.chunk_loop import AutoEncoder, ChunkShape, Still, make_chunk, stacked, still_of
from models.public.cover import cover_resize
from models.public.flashhead import FlashHead
from models.public.sampling import bridge, few_steps, few_timesteps
from models.public.wav2vec2 import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, AudioFrontEnd, Ring
from models.talking import Chunk, Rung

FRAMES_PER_LATENT = 4  # as sound is counted everywhere else, whatever the stride of the auto-encoder
_DRAWS = 8  # of noise a chunk, at most
P = ParamSpec("P")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FlashHeadState:
    """State of one stream. The ring is in main memory's fp32 or the device's, the rest in the dtype of the models."""

    frame_index: int  # media time of the next frame to come out, in frames
    seed: int
    still: Still
    ring: Ring
    prefix: Tensor  # [1, C, 1 or 2, h, w], of the frames before


class FlashHeadPipeline:
    """The models of one published folder on one device. Holds no stream's state; one serves many streams.

    Args:
        coder: with `encode` and `decode` of whole videos in -1 … 1, fitting the denoiser's latents.
        is_bridge: sample as LeapTalk does, from the reference in one step, and not from noise in four.
        strength: of the colour match, 0 … 1.
        graphs: replay the models from CUDA graphs.
    """

    fps = FPS
    sample_rate = SAMPLE_RATE
    delay_frames = 0

    def __init__(
        self,
        denoiser: FlashHead,
        coder: AutoEncoder,
        front_end: AudioFrontEnd,
        frame_size: tuple[int, int] = (512, 512),
        is_bridge: bool = False,
        strength: float = 1.0,
        graphs: CudaGraphs | None = None,
    ) -> None:
        config = denoiser.config
        sides = [stride * patch for stride, patch in zip(config.vae_stride[1:], config.patch_size[1:], strict=True)]
        if any(size % side for size, side in zip(frame_size, sides, strict=True)):
            raise ValueError(f"frame_size must be multiples of {sides}, got {frame_size}")
        self.denoiser, self.coder, self.front_end = denoiser, coder, front_end
        self.frame_size, self.is_bridge, self.strength, self.graphs = frame_size, is_bridge, strength, graphs
        self.shape = ChunkShape(motion_frames=1 + config.frame_stride)
        weight = denoiser.patch_embedding.weight
        self.device, self.dtype = weight.device, weight.dtype
        # LeapTalk has one step and nothing to leave out.
        self._steps = {Rung.FULL: 1} if is_bridge else {Rung.FULL: 4, Rung.NO_REFINER: 2}

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """FULL, and where there is more than one step a rung with half of them."""
        return tuple(self._steps)

    @property
    def fixed_latents(self) -> int:
        """The n that every step has."""
        return self.shape.new_frames // FRAMES_PER_LATENT

    @torch.inference_mode()
    def prepare(self, picture: Tensor) -> Still:
        """Of a picture of any size, uint8 [H, W, 3] or float [3, H, W] in 0 … 1; the middle is cut out.

        Raises:
            ValueError: if it is neither.
        """
        if picture.ndim != 3 or picture.shape[2 if picture.dtype == torch.uint8 else 0] != 3:
            raise ValueError(
                f"a picture must be uint8 [H, W, 3] or float [3, H, W], got {picture.dtype} {list(picture.shape)}"
            )
        if picture.dtype != torch.uint8 and tuple(picture.shape[1:]) != self.frame_size:
            picture = (picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0)
        if picture.dtype == torch.uint8:
            fitted = cover_resize(np.ascontiguousarray(picture.cpu().numpy()), *self.frame_size)
            picture = torch.from_numpy(fitted.copy()).permute(2, 0, 1) / 255
        signed = ((picture.to(self.device, self.dtype) - 0.5) * 2)[None, :, None]
        return still_of(signed, self.coder.encode, self.shape)

    def still(self, state: FlashHeadState) -> Tensor:
        """The picture itself, [1, 3, H, W] in 0 … 1."""
        return ((state.still.picture[:, :, 0].float() + 1) / 2).clamp(0, 1)

    def start(
        self,
        reference: Tensor | Still,
        prompt: str = "",
        seed: int = 0,
        chunk_latents: int | None = None,
        motion_energy: float = 1.0,
        first_frame: int = 0,
    ) -> FlashHeadState:
        """State of a new stream. These models have no prompt and no motion energy: both are taken and not heeded.

        Raises:
            ValueError: as `prepare`, or if `chunk_latents` is not the model's.
        """
        if chunk_latents not in (None, self.fixed_latents):
            raise ValueError(f"chunk_latents must be {self.fixed_latents} for this model, got {chunk_latents}")
        still = reference if isinstance(reference, Still) else self.prepare(reference)
        return FlashHeadState(first_frame, seed, still, Ring.silent(self.device), still.prefix)

    def rehearsal(self) -> FlashHeadState:
        """State of a stream to measure with: of a grey picture."""
        return self.start(torch.full((3, *self.frame_size), 0.5))

    def step(self, samples: Tensor, state: FlashHeadState, rung: Rung = Rung.FULL) -> Chunk[FlashHeadState]:
        """The next chunk: samples float [n·2560] with n = `fixed_latents` → frames float [4n, 3, H, W] in 0 … 1.

        Raises:
            ValueError: for another number of samples.
        """
        return self.step_batch([samples], [state], rung)[0]

    @torch.inference_mode()
    def step_batch(
        self, samples: Sequence[Tensor], states: Sequence[FlashHeadState], rung: Rung = Rung.FULL
    ) -> list[Chunk[FlashHeadState]]:
        """The next chunk of several streams; those at their start go together, and those past it.

        Raises:
            ValueError: as `step`, or if there are not as many samples as states.
        """
        if len(samples) != len(states):
            raise ValueError(f"every stream must have samples, got {len(samples)} for {len(states)} streams")
        after = [self.hold(sound, state) for sound, state in zip(samples, states, strict=True)]
        made: dict[int, Chunk[FlashHeadState]] = {}
        for length in sorted({state.prefix.shape[2] for state in states}):
            members = [index for index, state in enumerate(states) if state.prefix.shape[2] == length]
            chunks = self._make([states[i] for i in members], [after[i] for i in members], rung)
            made.update(zip(members, chunks, strict=True))
        return [made[index] for index in range(len(states))]

    def hold(self, samples: Tensor, state: FlashHeadState) -> FlashHeadState:
        """Past a chunk without frames: the sound is heard, the motion stays where it was.

        Raises:
            ValueError: as `step`.
        """
        wanted = self.shape.new_frames * SAMPLES_PER_FRAME
        if tuple(samples.shape) != (wanted,):
            raise ValueError(f"samples must be [{wanted}] for this model, got {list(samples.shape)}")
        return replace(
            state, frame_index=state.frame_index + self.shape.new_frames, ring=state.ring.with_sound(samples)
        )

    def set_prompt(
        self, state: FlashHeadState, prompt: str | None = None, motion_energy: float | None = None
    ) -> FlashHeadState:
        """The state as it is: these models have neither."""
        return state

    def set_reference(self, state: FlashHeadState, reference: Tensor | Still) -> FlashHeadState:
        """The same stream with another picture from the next chunk on.

        Raises:
            ValueError: as `prepare`.
        """
        still = reference if isinstance(reference, Still) else self.prepare(reference)
        return replace(state, still=still, prefix=still.prefix)

    @staticmethod
    def to_i420(frames: Tensor) -> Tensor:
        """Frames [T, 3, H, W] in 0 … 1 → uint8 [T, H·3/2, W]; see `kernels.rgb_to_i420`."""
        return rgb_to_i420(frames)

    def _make(
        self, before: list[FlashHeadState], after: list[FlashHeadState], rung: Rung
    ) -> list[Chunk[FlashHeadState]]:
        """Chunks of streams with prefixes of one length; `after` has heard their sound."""
        stage_ms: dict[str, float] = {}
        timed = partial(self._timed, stage_ms, len(before))
        still, prefix = stacked([state.still for state in before]), torch.cat([state.prefix for state in before])
        rings = torch.stack([state.ring.samples for state in after])
        windows = timed("audio", self.front_end.hear)(rings, self.shape.frames).to(self.dtype)
        heard = timed("audio", self.denoiser.hear)(windows)
        velocity = partial(self._velocity, still.latents, heard)
        draw = partial(self._noise, before, still.latents.shape[1:])
        frames, next_prefix = make_chunk(
            timed("denoise", partial(self._sample, velocity, draw, still.latents, self._steps[rung]), is_call=True),
            prefix,
            still.colours,
            timed("encode", self.coder.encode),
            timed("decode", self.coder.decode),
            self.shape.motion_frames,
            self.strength,
        )
        shown = ((frames[:, :, self.shape.motion_frames :].float() + 1) / 2).clamp_(0, 1).transpose(1, 2)
        return [
            Chunk(shown[row], replace(state, prefix=next_prefix[row : row + 1]), dict(stage_ms))
            for row, state in enumerate(after)
        ]

    def _sample(
        self,
        velocity: Callable[..., Tensor],
        draw: Callable[..., Tensor],
        reference: Tensor,
        steps: int,
        prefix: Tensor,
    ) -> Tensor:
        times = few_timesteps(steps).to(self.device)
        if self.is_bridge:
            return bridge(velocity, draw, prefix, times[:-1], reference)
        return few_steps(velocity, draw, prefix, times)

    def _velocity(self, reference: Tensor, heard: Any, latents: Tensor, timesteps: Tensor) -> Tensor:
        return self._call(self.denoiser.forward, latents, timesteps, reference, heard)

    def _noise(self, states: list[FlashHeadState], shape: torch.Size, draw: int) -> Tensor:
        """Noise [B, …] that depends on a stream's seed and place, and not on the streams beside it."""
        places = [(state.seed * 1_000_003 + state.frame_index) * _DRAWS + draw for state in states]
        seeds = torch.tensor(places, device=self.device)
        return standard_normal((len(states), *shape), seeds, device=self.device).to(self.dtype)

    def _call(self, function: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
        return function(*arguments, **named) if self.graphs is None else self.graphs(function, *arguments, **named)

    def _timed(
        self,
        stage_ms: dict[str, float],
        streams: int,
        stage: str,
        function: Callable[..., Any],
        is_call: bool = False,
    ) -> Callable[..., Any]:
        """The function, through the graphs unless it goes through them itself, its time shared among the streams."""

        def run(*arguments: Any) -> Any:
            began_s = time.perf_counter()
            result = function(*arguments) if is_call else self._call(function, *arguments)
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()
            stage_ms[stage] = stage_ms.get(stage, 0.0) + (time.perf_counter() - began_s) * 1e3 / streams
            return result

        return run
