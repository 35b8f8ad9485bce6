"""A pipeline without models, to measure the rest with: its frames flash white where the sound they show is loud.

Every frame bears its number twice: as sixteen black or white blocks along the lower edge, which `read_counter` reads
back after any codec, and as a bar that moves above them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.i420 import I420Converter
from streamer.engine.ladder import Rung
from streamer.mark import Mark, MarkStamp

FRAME_SAMPLES = 640
LOUD_RMS = 0.1
COUNTER_BITS = 16
_DARK = 0.25
_BAR_STEP = 4
_COST = {Rung.FULL: 1.0, Rung.HALF_RATE: 0.8, Rung.NO_REFINER: 0.4, Rung.NO_REFINER_HALF_RATE: 0.25}
_STAGES = ("audio", "lr_a2v", "lr_decode", "pose", "low_pass", "refiner", "decode")


@dataclass(frozen=True)
class PatternState:
    """State of one stream: the reference uint8 [H, W, 3], and the sound [delay·640] that is heard but not shown yet."""

    picture: np.ndarray
    waiting: np.ndarray
    frame_index: int


class PatternBackend:
    """Follows `AvatarPipeline`, and shows the sound of a frame exactly `delay_frames` later, as it does.

    Args:
        frame_size: height and width, pixels.
        step_ms: a chunk takes so long on the full rung, and less on the others.
        mark: that every frame of `step_batch` bears.
    """

    fps = 25
    sample_rate = 16_000
    delay_frames = 2
    largest_batch = 1
    fixed_latents: int | None = None
    rungs = tuple(_COST)

    def __init__(
        self, frame_size: tuple[int, int] = (256, 256), step_ms: float = 0.0, mark: Mark | None = None
    ) -> None:
        self.frame_size = frame_size
        self.step_ms = step_ms
        self._stamp = None if mark is None else MarkStamp(mark, *frame_size)
        self._converter = I420Converter(*frame_size)

    def rehearsal(self) -> PatternState:
        """A stream of a grey picture."""
        return self.start(np.full((3, *self.frame_size), 0.5, np.float32))

    def start(
        self,
        reference: np.ndarray,
        prompt: str = "",
        seed: int = 0,
        chunk_latents: int = 3,
        motion_energy: float = 1.0,
        first_frame: int = 0,
    ) -> PatternState:
        """State of a new stream; see `AvatarPipeline.start`."""
        waiting = np.zeros(self.delay_frames * FRAME_SAMPLES, np.float32)
        return PatternState(self._picture(reference), waiting, first_frame - self.delay_frames)

    def step_batch(
        self, samples: Sequence[np.ndarray], states: Sequence[PatternState], rung: Rung
    ) -> list[tuple[np.ndarray, PatternState, dict[str, float]]]:
        """`step` of each stream, one after the other, in planes uint8 [4n, H·3/2, W]."""
        chunks = []
        for sound, state in zip(samples, states, strict=True):
            pictures, after, stage_ms = self.step(sound, state, rung)
            chunks.append((self._planes(pictures), after, stage_ms | {"convert": 0.0}))
        return chunks

    def still(self, state: PatternState) -> np.ndarray:
        """The reference as a frame, uint8 [H·3/2, W]."""
        return self._planes(state.picture[None].copy())[0]

    def _planes(self, pictures: np.ndarray) -> np.ndarray:
        if self._stamp is not None:
            self._stamp.apply(pictures)
        return self._converter.convert(pictures)

    def step(
        self, samples: np.ndarray, state: PatternState, rung: Rung = Rung.FULL
    ) -> tuple[np.ndarray, PatternState, dict[str, float]]:
        """Sound float32 [n·2560] → pictures uint8 [4n, H, W, 3], the next state, milliseconds by stage."""
        began = time.perf_counter()
        sound = np.concatenate([state.waiting, samples])
        by_frame = sound[: len(samples)].reshape(-1, FRAME_SAMPLES)
        is_loud = np.sqrt(np.square(by_frame).mean(axis=1)) > LOUD_RMS
        dark = (state.picture * _DARK + 0.5).astype(np.uint8)
        pictures = np.empty((len(by_frame), *self.frame_size, 3), np.uint8)
        for k, loud in enumerate(is_loud):
            if rung in (Rung.HALF_RATE, Rung.NO_REFINER_HALF_RATE) and k % 2:
                pictures[k] = pictures[k - 1]
            else:
                pictures[k] = 255 if loud else dark
                draw_counter(pictures[k], state.frame_index + k)
        time.sleep(max(0.0, self.step_ms * _COST[rung] / 1e3 - (time.perf_counter() - began)))
        stage_ms = dict.fromkeys(_STAGES, 0.0) | {"decode": (time.perf_counter() - began) * 1e3}
        return pictures, self._after(sound, state, len(by_frame)), stage_ms

    def hold(self, samples: np.ndarray, state: PatternState) -> PatternState:
        """See `AvatarPipeline.hold`."""
        sound = np.concatenate([state.waiting, samples])
        return self._after(sound, state, len(samples) // FRAME_SAMPLES)

    def set_prompt(self, state: PatternState, prompt: str | None, motion_energy: float | None) -> PatternState:
        """Nothing of it is shown."""
        return state

    def set_reference(self, state: PatternState, reference: np.ndarray) -> PatternState:
        """See `AvatarPipeline.set_reference`."""
        return replace(state, picture=self._picture(reference))

    def _after(self, sound: np.ndarray, state: PatternState, frames: int) -> PatternState:
        return replace(state, waiting=sound[frames * FRAME_SAMPLES :], frame_index=state.frame_index + frames)

    def _picture(self, reference: np.ndarray) -> np.ndarray:
        if reference.shape != (3, *self.frame_size):
            raise ValueError(f"reference must be [3, H, W] of {self.frame_size}, got {list(reference.shape)}")
        return (reference.transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def draw_counter(picture: np.ndarray, index: int) -> None:
    """Draw a frame's number, modulo 2¹⁶, into the lower edge of a picture [H, W, 3], and the bar above it."""
    height, width = picture.shape[:2]
    rows, columns = height // 16, width // COUNTER_BITS
    for bit in range(COUNTER_BITS):
        value = 255 * (index >> (COUNTER_BITS - 1 - bit) & 1)
        picture[height - rows :, bit * columns : (bit + 1) * columns] = value
    strip = picture[height - 2 * rows : height - rows]
    strip[:] = 0
    left = index * _BAR_STEP % width
    strip[:, left : left + columns] = 255


def read_counter(luma: np.ndarray) -> int:
    """Number of a frame, modulo 2¹⁶, from its luma [H, W], of any size and range."""
    height, width = luma.shape
    row = luma[height - height // 32]
    columns = width / COUNTER_BITS
    bits = [int(row[round((bit + 0.5) * columns)] > 127) for bit in range(COUNTER_BITS)]
    return int("".join(map(str, bits)), 2)
