"""PortraitPipeline: anyone's picture talks. Sound → face actions, plan → head and torso, both → moved canvas."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.conditions import SAMPLE_RATE, SAMPLES_PER_FRAME
from models.i420 import I420Converter
from models.motion import FPS, PlanPlace
from models.portrait.planner import ExpressionActor
from models.presenter import Presenter, stand_in
from models.talking import FRAMES_PER_LATENT, Chunk, Rung, check_stream, new_latents

_MOST_KNOWN = 16  # presenters whose canvas is kept: some 20 MB each


class Ears(Protocol):
    """Sound → one token a frame, carried from chunk to chunk: `models.conditions.AudioEncoder` and its like."""

    def start(self, device: torch.device | str = "cpu") -> Any:
        """State at the start of a stream."""

    def step(self, samples: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Whole frames of sound [640·F] → tokens [F, D] of the frames `delay_frames` earlier, and the next state."""


class Actor(Protocol):
    """What turns sound and a prompt into a face."""

    @property
    def delay_frames(self) -> int:
        """Frames that a token is behind the sound: the look-ahead."""

    @property
    def ears(self) -> Ears: ...

    def encode_text(self, prompt: str) -> Tensor:
        """Prompt tokens [1, Lt, W]."""

    def act(self, tokens: Tensor, text: Tensor, plan: Tensor, listening: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, F, D], prompt tokens [B, Lt, W], motion plan [B, F, 11] and what a listener does [B, F, 2]
        (`models.motion.listening_frames`) → face actions [B, F, 52] in 0 … 1, and the plan that is carried out."""


class PresenterMaker(Protocol):
    """A picture uint8 [H, W, 3] and the wanted height and width → a presenter; ValueError where no face is found."""

    def __call__(self, picture: np.ndarray, size: tuple[int, int]) -> Presenter: ...


@dataclass(frozen=True)
class PortraitState:
    """State of one stream; see `models.talking.TalkingModel`."""

    presenter: Presenter
    frame_index: int  # media time of the next frame to come out, in frames; negative during the look-ahead
    text: Tensor  # [1, Lt, W]
    audio: Any  # what the ears carry
    plan: PlanPlace


class PortraitPipeline:
    """A `TalkingModel` that moves the picture itself; on the CPU.

    Args:
        actor: from sound to face.
        make_presenter: from picture to presenter.
        size: height and width of the frames.
    """

    fps = FPS
    sample_rate = SAMPLE_RATE
    device = torch.device("cpu")
    rungs = (Rung.FULL, Rung.HALF_RATE)
    fixed_latents: int | None = None

    def __init__(self, actor: Actor, make_presenter: PresenterMaker, size: tuple[int, int] = (512, 512)) -> None:
        self._actor, self._make_presenter = actor, make_presenter
        self.frame_size = size
        self._known: OrderedDict[bytes, Presenter] = OrderedDict()  # by picture, the last used one last

    @classmethod
    def load(cls, size: tuple[int, int], weights: Path | None = None) -> PortraitPipeline:
        """With weights: those that come with the package, or those of a folder.

        Raises:
            CheckpointError: if they are missing or broken.
        """
        return cls(ExpressionActor.load(weights), Presenter.from_picture, size)

    @property
    def delay_frames(self) -> int:
        """Frames of a step show the sound this many frames before its end."""
        return self._actor.delay_frames

    def prepare(self, picture: Tensor) -> Presenter:
        """The presenter of a picture, uint8 [H, W, 3] or float [3, H, W] in 0 … 1, of any size; its canvas is ready.

        Raises:
            ValueError: if the picture has another type, or no face is found in it.
        """
        if picture.ndim == 3 and picture.shape[0] == 3 and picture.is_floating_point():
            picture = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"a picture must be uint8 [H, W, 3] or float [3, H, W], got {picture.dtype} {list(picture.shape)}"
            )
        pixels = np.ascontiguousarray(picture.cpu().numpy())
        key = hashlib.sha256(pixels.data).digest() + repr(pixels.shape).encode()
        if key not in self._known:
            presenter = self._make_presenter(pixels, self.frame_size)
            _ = presenter.canvas
            self._known[key] = presenter
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def rehearsal(self) -> PortraitState:
        """A stream of a face without a picture."""
        return self.start(stand_in(self.frame_size))

    def still(self, state: PortraitState) -> Tensor:
        """The presenter's picture as a frame, uint8 [1, H, W, 3]."""
        return torch.from_numpy(state.presenter.picture[None].copy())

    @torch.inference_mode()
    def start(
        self,
        reference: Tensor | Presenter,
        prompt: str = "",
        seed: int = 0,
        chunk_latents: int | None = None,
        motion_energy: float = 1.0,
        first_frame: int = 0,
    ) -> PortraitState:
        """State of a new stream; see `TalkingModel.start`."""
        check_stream(chunk_latents, first_frame)
        plan = PlanPlace(seed, first_frame - self.delay_frames, motion_energy)
        ears = self._actor.ears
        _, audio = ears.step(torch.zeros(max(1, self.delay_frames) * SAMPLES_PER_FRAME), ears.start())
        return PortraitState(
            self._presenter(reference), first_frame - self.delay_frames, self._actor.encode_text(prompt), audio, plan
        )

    def step(self, samples: Tensor, state: PortraitState, rung: Rung = Rung.FULL) -> Chunk[PortraitState]:
        """The next chunk, frames uint8 [4n, H, W, 3]; see `TalkingModel.step`."""
        return self.step_batch([samples], [state], rung)[0]

    def step_batch(
        self, samples: Sequence[Tensor], states: Sequence[PortraitState], rung: Rung = Rung.FULL
    ) -> list[Chunk[PortraitState]]:
        """The next chunk of several streams, one after the other: on a CPU nothing is gained together."""
        if len(samples) != len(states):
            raise ValueError(f"every stream must have samples, got {len(samples)} for {len(states)} streams")
        return [self._step(sound, state, rung) for sound, state in zip(samples, states, strict=True)]

    def _step(self, samples: Tensor, state: PortraitState, rung: Rung) -> Chunk[PortraitState]:
        frames = FRAMES_PER_LATENT * new_latents(samples)
        stage_ms: dict[str, float] = {}

        @contextmanager
        def timed(stage: str) -> Iterator[None]:
            began_s = time.perf_counter()
            yield
            stage_ms[stage] = stage_ms.get(stage, 0.0) + (time.perf_counter() - began_s) * 1e3

        with timed("audio"), torch.inference_mode():
            tokens, audio = self._actor.ears.step(samples.to(torch.float32), state.audio)
            planned, listening = state.plan.frames(frames), state.plan.listening(frames)
            acted = self._actor.act(
                tokens[None], state.text, torch.from_numpy(planned)[None], torch.from_numpy(listening)[None]
            )
            actions, plan = (rows[0].numpy() for rows in acted)
        shown = slice(None, None, 2 if rung.is_half_rate else 1)
        drawn = state.presenter.canvas.frames(actions[shown], plan[shown], timed)
        if rung.is_half_rate:
            drawn = drawn.repeat(2, axis=0)
        after = replace(state, frame_index=state.frame_index + frames, audio=audio, plan=state.plan.after(frames))
        return Chunk(torch.from_numpy(drawn), after, stage_ms)

    @torch.inference_mode()
    def hold(self, samples: Tensor, state: PortraitState) -> PortraitState:
        """Past a chunk without frames; see `TalkingModel.hold`."""
        frames = FRAMES_PER_LATENT * new_latents(samples)
        _, audio = self._actor.ears.step(samples.to(torch.float32), state.audio)
        return replace(state, frame_index=state.frame_index + frames, audio=audio)

    @torch.inference_mode()
    def set_prompt(
        self, state: PortraitState, prompt: str | None = None, motion_energy: float | None = None
    ) -> PortraitState:
        """The same stream with another prompt or motion energy; see `TalkingModel.set_prompt`."""
        text = state.text if prompt is None else self._actor.encode_text(prompt)
        plan = state.plan if motion_energy is None else state.plan.with_energy(motion_energy)
        return replace(state, text=text, plan=plan)

    def set_reference(self, state: PortraitState, reference: Tensor | Presenter) -> PortraitState:
        """The same stream with another presenter: sound, plan and prompt go on."""
        return replace(state, presenter=self._presenter(reference))

    @staticmethod
    def to_i420(frames: Tensor) -> Tensor:
        """Frames uint8 [T, H, W, 3] → planes uint8 [T, H·3/2, W]."""
        return torch.from_numpy(I420Converter(*frames.shape[1:3]).convert(frames.numpy()))

    def _presenter(self, reference: Tensor | Presenter) -> Presenter:
        presenter = self.prepare(reference) if isinstance(reference, Tensor) else reference
        if presenter.size != self.frame_size:
            raise ValueError(f"the presenter is {presenter.size} pixels, the frames are {self.frame_size}")
        return presenter
