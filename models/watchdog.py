"""Keeps a talking model at its picture: likeness, colour and sharpness of every chunk, against the picture at rest.

A model that mimics its own last frames takes a fault for the truth and goes on from it: colours wander, then faces
melt, and no correction of colour brings them back. So colour is corrected while it is only colour, and a stream whose
picture is going is started anew from the reference before there is nothing left to go on from.

The likeness is that of thumbnails, which falls when a picture dissolves or turns into something else, and knows no
faces; whoever has a recognition network gives its embedding in `describe`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic

import torch
import torch.nn.functional as F
from torch import Tensor

from models.colour import lab_statistics, match_colours, to_lab
from models.talking import Chunk, P, Rung, S, TalkingModel

THUMBNAIL = 16  # pixels a side
Describe = Callable[[Tensor], Tensor]  # frames [T, 3, H, W] in 0 … 1 → descriptors [T, D]


class Action(Enum):
    """What a chunk calls for."""

    NONE = "none"
    COLOUR = "colour"  # correct the colours of the frames
    RESTART = "restart"  # and start again from the reference


@dataclass(frozen=True)
class Limits:
    """From when on something is done.

    Attributes:
        delta_e: distance of the mean Lab colour from the picture's that is corrected.
        likeness: -1 … 1, sharpness: of the picture's; below either for `patience` chunks, a stream is started anew.
    """

    delta_e: float = 4.0
    likeness: float = 0.5
    sharpness: float = 0.5
    patience: int = 2

    def __post_init__(self) -> None:
        if self.delta_e <= 0 or self.sharpness < 0 or not -1 <= self.likeness <= 1 or self.patience < 1:
            raise ValueError(
                f"delta_e and patience must be above 0, sharpness at least 0, likeness in -1 … 1, got {self}"
            )


@dataclass(frozen=True)
class Health:
    """A chunk beside the picture, and what that calls for; the figures of its last frame.

    Attributes:
        likeness: cosine of the descriptors, 1 for the picture itself.
        delta_e: CIE76 distance of the mean colours.
        sharpness: gradient energy over the picture's.
    """

    likeness: float
    delta_e: float
    sharpness: float
    action: Action


@dataclass(frozen=True)
class WatchState:
    """Of one stream: the picture, and how many chunks in a row were bad."""

    picture: Tensor  # [1, 3, H, W] in 0 … 1
    bad_chunks: int = 0


class Watchdog:
    """Judges chunks; holds no stream's state.

    Args:
        describe: None for thumbnails.
    """

    def __init__(self, limits: Limits | None = None, describe: Describe | None = None) -> None:
        self.limits = limits or Limits()
        self._describe = describe or thumbnails

    @torch.inference_mode()
    def watch(self, frames: Tensor, state: WatchState) -> tuple[Tensor, WatchState, Health]:
        """Judge a chunk, and correct its colours where they have wandered.

        Args:
            frames: as in `models.talking.Chunk`, uint8 [T, H, W, 3] or float [T, 3, H, W] in 0 … 1.

        Returns:
            the frames, of the same kind; the next state; and the health, whose action RESTART asks the caller for
            `set_reference` with the stream's own picture.
        """
        floats = as_floats(frames)
        last, picture = floats[-1:], state.picture.to(floats.device)
        likeness = F.cosine_similarity(self._describe(last), self._describe(picture)).item()
        distance = (_mean_lab(last) - _mean_lab(picture)).norm().item()
        sharpness = gradient_energy(last) / max(gradient_energy(picture), 1e-9)
        limits = self.limits
        is_bad = not (likeness >= limits.likeness and sharpness >= limits.sharpness)  # NaN is bad
        bad_chunks = state.bad_chunks + 1 if is_bad else 0
        if bad_chunks >= limits.patience:
            action, bad_chunks = Action.RESTART, 0
        else:
            action = Action.COLOUR if distance > limits.delta_e else Action.NONE
        if action is Action.COLOUR:
            frames = _like(frames, matched(floats, picture))
        return frames, WatchState(state.picture, bad_chunks), Health(likeness, distance, sharpness, action)


@dataclass(frozen=True)
class WatchedState(Generic[S]):
    """State of a watched stream, and the health of its last chunk."""

    inner: S
    watch: WatchState
    health: Health | None = None

    @property
    def frame_index(self) -> int:
        return self.inner.frame_index


class WatchedModel(Generic[P, S]):
    """A `TalkingModel` whose chunks are watched: it corrects and starts anew by itself."""

    def __init__(self, model: TalkingModel[P, S], watchdog: Watchdog | None = None) -> None:
        self._model, self._watchdog = model, watchdog or Watchdog()
        self.fps, self.sample_rate, self.frame_size = model.fps, model.sample_rate, model.frame_size
        self.delay_frames, self.fixed_latents = model.delay_frames, model.fixed_latents
        self.device, self.rungs = model.device, model.rungs
        self.prepare, self.to_i420 = model.prepare, model.to_i420

    def still(self, state: WatchedState[S], /) -> Tensor:
        return self._model.still(state.inner)

    def start(self, reference: Tensor | P, /, *arguments: Any, **named: Any) -> WatchedState[S]:
        """As the model's."""
        return self._watched(self._model.start(reference, *arguments, **named))

    def rehearsal(self) -> WatchedState[S]:
        """State of a stream to measure with: of a grey picture."""
        return self.start(torch.full((3, *self.frame_size), 0.5))

    def step(self, samples: Tensor, state: WatchedState[S], rung: Rung = Rung.FULL, /) -> Chunk[WatchedState[S]]:
        """As the model's, with the chunk's health in the state."""
        return self.step_batch([samples], [state], rung)[0]

    def step_batch(
        self, samples: Sequence[Tensor], states: Sequence[WatchedState[S]], rung: Rung = Rung.FULL, /
    ) -> list[Chunk[WatchedState[S]]]:
        """As the model's, with the chunks' health in the states."""
        made = self._model.step_batch(samples, [state.inner for state in states], rung)
        return [self._judged(chunk, state.watch) for chunk, state in zip(made, states, strict=True)]

    def hold(self, samples: Tensor, state: WatchedState[S], /) -> WatchedState[S]:
        return replace(state, inner=self._model.hold(samples, state.inner))

    def set_prompt(
        self, state: WatchedState[S], prompt: str | None = None, motion_energy: float | None = None
    ) -> WatchedState[S]:
        return replace(state, inner=self._model.set_prompt(state.inner, prompt, motion_energy))

    def set_reference(self, state: WatchedState[S], reference: Tensor | P, /) -> WatchedState[S]:
        return self._watched(self._model.set_reference(state.inner, reference))

    def _watched(self, inner: S) -> WatchedState[S]:
        return WatchedState(inner, WatchState(as_floats(self._model.still(inner))))

    def _judged(self, chunk: Chunk[S], watch: WatchState) -> Chunk[WatchedState[S]]:
        began_s = time.perf_counter()
        frames, watch, health = self._watchdog.watch(chunk.frames, watch)
        inner = chunk.state
        if health.action is Action.RESTART:
            inner = self._model.set_reference(inner, watch.picture[0])
        stage_ms = chunk.stage_ms | {"watchdog": (time.perf_counter() - began_s) * 1e3}
        return Chunk(frames, WatchedState(inner, watch, health), stage_ms)


def as_floats(frames: Tensor) -> Tensor:
    """Frames of either kind → float [T, 3, H, W] in 0 … 1."""
    return frames.permute(0, 3, 1, 2).float() / 255 if frames.dtype == torch.uint8 else frames.float()


def thumbnails(frames: Tensor) -> Tensor:
    """Frames [T, 3, H, W] → what is left of their luma in small, without mean: [T, D]."""
    luma = (frames * frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
    small = F.adaptive_avg_pool2d(luma, THUMBNAIL).flatten(1)
    return small - small.mean(dim=1, keepdim=True)


def gradient_energy(frames: Tensor) -> float:
    """Mean squared difference of neighbouring pixels of frames [T, 3, H, W]."""
    rows, columns = frames.diff(dim=2).square().mean(), frames.diff(dim=3).square().mean()
    return (rows + columns).item()


def matched(frames: Tensor, picture: Tensor) -> Tensor:
    """Frames [T, 3, H, W] in 0 … 1 with the colours of a picture [1, 3, H, W]."""
    signed = frames.transpose(0, 1)[None] * 2 - 1
    reference = lab_statistics(picture[:, :, None] * 2 - 1)
    return ((match_colours(signed, reference)[0].transpose(0, 1) + 1) / 2).clamp(0, 1)


def _mean_lab(frames: Tensor) -> Tensor:
    return to_lab(frames[:, :, None] * 2 - 1).mean(dim=(0, 1, 2, 3))


def _like(frames: Tensor, floats: Tensor) -> Tensor:
    """Floats [T, 3, H, W] as the kind that `frames` are."""
    if frames.dtype == torch.uint8:
        return (floats * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return floats.to(frames.dtype)
