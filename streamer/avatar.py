"""The avatar in your own process: sound goes in, pictures and sound come out, aligned to the frame; no network.

    async with Avatar(avatar="maya") as avatar:
        await avatar.push(pcm, sample_rate=24_000)
        await avatar.end()
        async for item in avatar:
            ...  # Picture, Sound, UtteranceEnd

Pictures come at 25 a second, in real time, also while nothing is said; then they come without sound. The models work
in a process of their own. Whoever reads slowly slows the avatar down: nothing is dropped, and nothing piles up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from models.timing import FPS, FRAME_SAMPLES, FRAMES_PER_LATENT
from streamer.engine import Engine, EngineChunk, EngineConfig, EngineStream, StepCancelled, StreamSpec
from streamer.errors import EngineLost
from streamer.media.microphone import Resampler16k
from streamer.media.sound import PLAYED_RATE_HZ, PcmResampler, to_int16, to_model
from streamer.picture import load_picture

MAX_WAITING_S = 30.0  # sound that `push` takes ahead of what has been made
PATIENCE_S = 30.0  # for a step; whoever embeds the avatar waits rather than sees it skip
_FRAME_S = 1 / FPS


@dataclass(frozen=True)
class Picture:
    """A frame. pixels: uint8 [H, W, 3], RGB; media_ms: since the first one."""

    pixels: np.ndarray
    media_ms: int


@dataclass(frozen=True)
class Sound:
    """The sound of the picture before it. samples: int16 [up to 1920], mono."""

    samples: np.ndarray
    media_ms: int
    sample_rate: int = PLAYED_RATE_HZ


@dataclass(frozen=True)
class UtteranceEnd:
    """An utterance has ended. played_ms: of its sound that was given out."""

    utterance: int
    played_ms: int
    is_interrupted: bool


Item = Picture | Sound | UtteranceEnd


@dataclass(eq=False)
class _Utterance:
    """What is said between one `end` and the next. waiting: int16 at 48 kHz that no chunk has taken yet."""

    number: int
    sample_rate: int
    resampler: PcmResampler
    waiting: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int16))
    is_ended: bool = False
    is_over: bool = False  # its end has been given out
    was_waiting: int = 0  # samples that waited when the last chunk was made without them
    played: int = 0  # samples given out

    @property
    def played_ms(self) -> int:
        return round(1000 * self.played / PLAYED_RATE_HZ)


@dataclass(frozen=True)
class _FrameSound:
    """The sound of one frame, and whose it is; None for silence."""

    samples: np.ndarray
    utterance: _Utterance | None
    is_last: bool


_SILENCE = _FrameSound(np.zeros(0, np.int16), None, False)


class Avatar:
    """One presenter who talks. `async with` starts and ends it; iterate it once, from one task.

    Args:
        avatar: name in the gallery; None for the first. reference: a picture file instead.
        prompt: emotion and manner in words.
        seed: of the motion.
        config: of the engine that it starts; engine: one that runs already, which is then not closed with it.
        chunk_latents: of a chunk, 1 … 6: fewer answer sooner, more cost less a frame.
        is_realtime: False gives out items as soon as they are made, and nothing while nothing is said: for files.

    Raises:
        AvatarError: on entering, if there is no such presenter, the picture cannot be read or the engine not start.
        EngineLost: while iterating, if the engine died. It is started again by itself: iterate on, or leave.
    """

    def __init__(
        self,
        avatar: str | None = None,
        *,
        reference: str | None = None,
        prompt: str = "",
        seed: int = 0,
        config: EngineConfig | None = None,
        engine: Engine | None = None,
        chunk_latents: int = 2,
        is_realtime: bool = True,
    ) -> None:
        self.is_realtime = is_realtime
        self._chosen = (avatar, reference)
        self._look = (prompt, seed, chunk_latents)
        self._config, self._engine = config or EngineConfig(max_streams=1), engine
        self._samples = chunk_latents * FRAMES_PER_LATENT * FRAME_SAMPLES  # of a chunk, if the model leaves a choice
        self._exits = contextlib.AsyncExitStack()
        self._said: deque[_Utterance] = deque()  # with sound that no chunk has taken, in order; the last may grow
        self._spoken = 0
        self._to_16k = Resampler16k()
        self._heard: deque[_FrameSound] = deque()  # of frames that are not made yet
        self._made: deque[tuple[EngineChunk, list[_FrameSound]]] = deque()  # the one that comes next
        self._items: deque[Item | tuple[Picture, _FrameSound]] = deque()
        self._changed = asyncio.Event()  # sound came or went, a chunk was made or taken
        self._frames = 0  # given out
        self._due_s = 0.0  # monotonic seconds of the next frame
        self._failure: Exception | None = None
        self._is_stepping = False

    async def __aenter__(self) -> Avatar:
        try:
            self._stream = await self._open()
        except BaseException:
            await self._exits.aclose()
            raise
        self._maker = asyncio.create_task(self._make(), name="avatar-maker")
        self._exits.push_async_callback(_ended, self._maker)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the pictures, pixels. Known once entered."""
        assert self._engine is not None, "the avatar has not been entered"
        return self._engine.facts.frame_size

    @property
    def fps(self) -> int:
        return FPS

    async def push(self, pcm: bytes | np.ndarray, sample_rate: int) -> None:
        """Say this next: mono sound, bytes of int16 (little-endian), int16 [S], or float [S] in -1 … 1.

        Waits while more than `MAX_WAITING_S` of sound has not been made yet; an interruption ends the wait, and what
        was to be said is forgotten.

        Raises:
            ValueError: if the sound has another form or rate than what the utterance began with.
        """
        sound = _as_int16(pcm)
        utterance = self._open_utterance(sample_rate)
        while sum(len(said.waiting) for said in self._said) > MAX_WAITING_S * PLAYED_RATE_HZ:
            await self._change()
            if utterance.is_over:
                return
        utterance.waiting = np.concatenate([utterance.waiting, utterance.resampler.push(sound.tobytes())])
        self._changed.set()

    async def end(self) -> int | None:
        """What was pushed since the last `end` is one utterance, and complete: its number, None if there is none."""
        if not self._said or self._said[-1].is_ended:
            return None
        last = self._said[-1]
        last.waiting = np.concatenate([last.waiting, last.resampler.flush()])
        last.is_ended = True
        self._changed.set()
        return last.number

    async def interrupt(self) -> int | None:
        """Stop talking: sound ends with the item given out last, the mouth within a chunk.

        Returns:
            Milliseconds given out of what is being said; None if nothing is.
        """
        stopped = self._current_utterances()
        self._said.clear()
        self._items = deque((item[0], _SILENCE) if isinstance(item, tuple) else item for item in self._items)
        if self._made or self._is_stepping:  # a whole chunk that nobody has seen
            for chunk, _ in self._made:
                chunk.release()
            self._made.clear()
            await self._stream.rewind()
        self._heard = deque([_SILENCE] * self._unshown_frames)
        ends = next((i for i, item in enumerate(self._items) if isinstance(item, tuple)), len(self._items))
        for said in reversed(stopped):
            said.is_over = True
            self._items.insert(ends, UtteranceEnd(said.number, said.played_ms, True))
        self._changed.set()
        return stopped[0].played_ms if stopped else None

    async def set_prompt(self, prompt: str) -> None:
        """Another emotion and manner from the next chunk on."""
        await self._stream.update(prompt=prompt)

    def __aiter__(self) -> Avatar:
        return self

    async def __anext__(self) -> Item:
        while True:
            if self._items:
                item = self._items.popleft()
                if isinstance(item, tuple):
                    return await self._give(*item)
                return item
            if self._failure is not None:
                failure = self._failure
                if not self._maker.done():
                    self._failure = None
                raise failure
            if self._made:
                self._unpack(*self._made.popleft())
                self._changed.set()
            else:
                await self._change()

    # What comes in

    def _open_utterance(self, sample_rate: int) -> _Utterance:
        """The utterance that sound is added to."""
        if not 8_000 <= sample_rate <= 192_000:
            raise ValueError(f"the sample rate must be within 8,000 … 192,000 Hz, got {sample_rate}")
        if not self._said or self._said[-1].is_ended:
            self._spoken += 1
            self._said.append(_Utterance(self._spoken, sample_rate, PcmResampler(sample_rate)))
        if self._said[-1].sample_rate != sample_rate:
            raise ValueError(f"the utterance began with {self._said[-1].sample_rate} Hz, this has {sample_rate}")
        return self._said[-1]

    def _current_utterances(self) -> list[_Utterance]:
        """All that are being said or wait to be, in order."""
        heard = [sound for _, sound in (item for item in self._items if isinstance(item, tuple))]
        heard += [sound for _, sounds in self._made for sound in sounds] + list(self._heard)
        found = dict.fromkeys(sound.utterance for sound in heard if sound.utterance is not None)
        return [said for said in (found | dict.fromkeys(self._said)) if not said.is_over]

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    # What goes out

    def _unpack(self, chunk: EngineChunk, sounds: list[_FrameSound]) -> None:
        """A chunk's frames as items; its memory goes back to the engine."""
        first = max(0, -chunk.first_frame)  # frames before the start are nobody's
        for planes, sound in zip(chunk.frames[first:], sounds, strict=True):
            pixels = av.VideoFrame.from_ndarray(planes, format="yuv420p").to_ndarray(format="rgb24")
            self._items.append((Picture(pixels, round(1000 * self._frames * _FRAME_S)), sound))
            self._frames += 1
        chunk.release()

    async def _give(self, picture: Picture, sound: _FrameSound) -> Picture:
        """A picture when its time has come, with its sound and what ends with it as the next items."""
        if self.is_realtime:
            now = time.monotonic()
            due_s = max(self._due_s + _FRAME_S, now)  # who is late does not catch up
            try:
                await asyncio.sleep(due_s - now)
            except asyncio.CancelledError:
                self._items.appendleft((picture, sound))
                raise
            self._due_s = due_s
        self._changed.set()  # the next chunk may be due
        said = sound.utterance
        if said is not None and not said.is_over:
            said.played += len(sound.samples)
            ending: list[Item] = [Sound(sound.samples, picture.media_ms)] if len(sound.samples) else []
            if sound.is_last:
                said.is_over = True
                ending.append(UtteranceEnd(said.number, said.played_ms, False))
            self._items.extendleft(reversed(ending))
        return picture

    # What is between

    async def _open(self) -> EngineStream:
        from models.gallery import list_avatars
        from streamer.presenters import find_avatar

        name, reference = self._chosen
        if self._engine is None:
            self._engine = await Engine.launch(self._config)
            self._exits.push_async_callback(self._engine.close)
        prompt, seed, latents = self._look
        latents = self._engine.facts.fixed_latents or latents
        self._samples = latents * FRAMES_PER_LATENT * FRAME_SAMPLES
        height, width = self._engine.facts.frame_size
        if reference is not None:
            source, part = Path(reference), None
        else:
            chosen = find_avatar(name, list_avatars())
            source, part = chosen.picture, chosen.square if height == width else None
        picture = await asyncio.to_thread(load_picture, source, height, width, part)
        stream = await self._engine.open(StreamSpec(picture, prompt, seed, latents))
        self._exits.push_async_callback(stream.close)
        chunk_s = self._samples / PLAYED_RATE_HZ
        self._chunk_s, self._compute_s = chunk_s, min(1.5 * self._engine.facts.warm_rtf, 0.9) * chunk_s + _FRAME_S
        return stream

    @property
    def _unshown_frames(self) -> int:
        """Frames whose sound the engine has heard, and which the next chunk shows first: the look-ahead."""
        delay_frames = self._engine.facts.delay_frames if self._engine is not None else 0
        return delay_frames + min(0, self._stream.frame_index)

    async def _make(self) -> None:
        """One chunk ahead of the one that is given out, for as long as the avatar lives."""
        try:
            while True:
                while self._made or not self._is_time():
                    await self._change()
                await self._make_one()
        except Exception as error:  # nobody else hears of it
            self._failure = error
            self._changed.set()

    async def _make_one(self) -> None:
        sound, frames = self._cut()
        self._heard.extend(frames)
        self._is_stepping = True
        try:
            chunk = await self._stream.step(sound, time.monotonic() + PATIENCE_S)
        except StepCancelled:
            return
        except EngineLost as error:  # it comes back, and goes on with the frame it had
            self._heard = deque([_SILENCE] * self._unshown_frames)
            self._failure = error
            self._changed.set()
            await asyncio.sleep(self._chunk_s)
            return
        finally:
            self._is_stepping = False
        shown = len(chunk.frames) - max(0, -chunk.first_frame)
        self._made.append((chunk, [self._heard.popleft() for _ in range(shown)]))
        self._changed.set()

    def _is_time(self) -> bool:
        """Whether a chunk should be made now."""
        if self._said and self._is_ready(self._said[0]):
            return True
        if self.is_realtime:
            return sum(isinstance(item, tuple) for item in self._items) * _FRAME_S <= self._compute_s
        return not self._said and any(sound.utterance is not None for sound in self._heard)

    def _is_ready(self, said: _Utterance) -> bool:
        """Sound goes out in whole chunks, so that sound which trickles in is not torn; what no longer grows follows."""
        return said.is_ended or len(said.waiting) >= self._samples

    def _cut(self) -> tuple[np.ndarray, list[_FrameSound]]:
        """The sound of the next chunk: for the models, float32 [n·2560], and by frame."""
        played = np.zeros(self._samples, np.int16)
        frames = [_SILENCE] * (self._samples // FRAME_SAMPLES)
        said = self._said[0] if self._said else None
        if said is not None and (self._is_ready(said) or 0 < len(said.waiting) == said.was_waiting):
            taken, said.waiting = said.waiting[: self._samples], said.waiting[self._samples :]
            is_last = said.is_ended and not len(said.waiting)
            if is_last:
                self._said.popleft()
            played[: len(taken)] = taken
            last = max(0, len(taken) - 1) // FRAME_SAMPLES
            for index in range(last + 1):
                part = taken[index * FRAME_SAMPLES : (index + 1) * FRAME_SAMPLES]
                frames[index] = _FrameSound(part, said, is_last and index == last)
        elif said is not None:
            said.was_waiting = len(said.waiting)
        return to_model(self._to_16k.push(played)), frames


def _as_int16(pcm: bytes | np.ndarray) -> np.ndarray:
    """Mono sound as int16 [S]."""
    if isinstance(pcm, bytes | bytearray | memoryview):
        if len(pcm) % 2:
            raise ValueError(f"sound as bytes is 16 bits a sample, got {len(pcm)} bytes")
        return np.frombuffer(pcm, "<i2")
    if pcm.ndim == 1 and pcm.dtype == np.int16:
        return pcm
    if pcm.ndim == 1 and pcm.dtype.kind == "f":
        return to_int16(np.nan_to_num(pcm))
    raise ValueError(f"sound must be bytes, int16 [S] or float [S], got {pcm.dtype} {list(pcm.shape)}")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
