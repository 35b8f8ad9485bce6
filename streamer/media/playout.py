"""What a session will show and play next, by media time, and what becomes of it when it comes too late."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

import numpy as np

from streamer.media import BLOCK_SAMPLES, FPS, FRAME_S, FRAME_SAMPLES, SOUND_RATE_HZ
from streamer.media.clock import MediaClock, happens_before

LATE_S = 0.120  # what is later than this is dropped, sound and picture together
FADE_SAMPLES = SOUND_RATE_HZ // 100  # 10 ms
SETTLE_S = 1e-6  # media times are sums of floats


@dataclass
class PlayoutStats:
    """Counters of one session.

    Attributes:
        frames_put: accepted by `put`.
        frames_played: handed out by `frame`.
        frames_held: asked for and not there; the last one stays on the screen.
        frames_dropped: too late when they were put, or passed over by the player.
        sound_ms_dropped: the same for sound.
    """

    frames_put: int = 0
    frames_played: int = 0
    frames_held: int = 0
    frames_dropped: int = 0
    sound_ms_dropped: float = 0.0


class Playout:
    """Frames and sound of one session by media time, bounded.

    The player asks for every frame and every block once, in order. Something that is up to 120 ms late still plays,
    that much late, with its own timestamp; `wait_for` waits for it that long. Later than that, frame and sound of
    the frame are dropped together, so that they cannot drift apart. Only the first frame of an outage is waited for:
    silence that is 120 ms late for seconds makes browsers hold back the sound, and not the picture, for half a minute.

    Overflow: frames more than `max_frames` ahead of the clock are refused with an error; what the clock has passed
    by more than 120 ms is forgotten.

    Args:
        clock: the session's.
        frame_size: (height, width) of the picture, pixels, both even.
        max_frames: how far ahead of the clock (or of 0, before it starts) frames may be put.
    """

    def __init__(self, clock: MediaClock, frame_size: tuple[int, int], max_frames: int = 36):
        height, width = frame_size
        if height % 2 or width % 2:
            raise ValueError(f"I420 needs even sides, not {width}x{height}")
        if max_frames < 1:
            raise ValueError(f"max_frames is at least 1, not {max_frames}")
        self.clock = clock
        self.frame_shape = (height * 3 // 2, width)
        self.max_frames = max_frames
        self.stats = PlayoutStats()
        self._frames: dict[int, np.ndarray] = {}
        self._tags: dict[int, object] = {}
        self._sound: dict[int, np.ndarray] = {}
        self._next_frame = 0  # what the player asks for next
        self._next_block = 0
        self._arrival = asyncio.Event()
        self._is_dry = False  # a wait was in vain, and nothing has come since

    def put(self, first_frame: int, frames: np.ndarray, sound: np.ndarray, tag: object = None) -> int:
        """Adds a span of frames and the sound of the same span; both are copied.

        Frames before 0 belong to no time of the session and are left out without being counted.

        Args:
            first_frame: index of frames[0].
            frames: uint8 [T, H*3/2, W], I420.
            sound: int16 [T*1920], mono, 48 kHz.
            tag: kept with every frame of the span, see `tag`.

        Returns:
            How many frames were dropped, with their sound, because they are more than 120 ms late or their place
            has been played already.

        Raises:
            ValueError: for shapes that do not belong together, or frames too far ahead; nothing is stored then.
        """
        count = len(frames)
        if frames.dtype != np.uint8 or frames.shape != (count, *self.frame_shape):
            raise ValueError(f"frames are uint8 [T, {self.frame_shape}], not {frames.dtype} {frames.shape}")
        if sound.dtype != np.int16 or sound.shape != (count * FRAME_SAMPLES,):
            raise ValueError(
                f"{count} frames need int16 [{count * FRAME_SAMPLES}] of sound, not {sound.dtype} {sound.shape}"
            )
        now_s = self.clock.media_s()
        ahead = first_frame + count - max(0, math.floor(now_s * FPS + SETTLE_S))
        if ahead > self.max_frames:
            raise ValueError(f"frames up to {ahead} ahead of the clock were put, at most {self.max_frames} are kept")
        self._forget_late(now_s)
        # The first place that is neither too late nor played; the same for sound and picture.
        floor = max(0, self._late_floor(now_s), self._next_frame, (self._next_block + 1) // 2)
        kept_from = min(max(first_frame, floor), first_frame + count)
        dropped = max(0, kept_from - max(first_frame, 0))
        self.stats.frames_dropped += dropped
        self.stats.sound_ms_dropped += dropped * FRAME_S * 1000
        if kept_from < first_frame + count:
            skip = kept_from - first_frame
            frames_kept = frames[skip:].copy()
            sound_kept = sound[skip * FRAME_SAMPLES :].reshape(-1, FRAME_SAMPLES).copy()
            for offset in range(count - skip):
                index = kept_from + offset
                self._frames[index] = frames_kept[offset]
                self._sound[index] = sound_kept[offset]
                self._tags[index] = tag
            self.stats.frames_put += count - skip
            self._is_dry = False
        self._arrival.set()
        self._arrival = asyncio.Event()
        return dropped

    def frame(self, index: int) -> np.ndarray | None:
        """The picture of a frame, uint8 [H*3/2, W], not to be written to; None if there is none: hold the last.

        Frames before it that nobody asked for count as dropped.
        """
        self._next_frame = max(self._next_frame, index + 1)
        for passed in [stored for stored in self._frames if stored < index]:
            del self._frames[passed]
            self._tags.pop(passed, None)
            self.stats.frames_dropped += 1
        picture = self._frames.pop(index, None)
        if picture is None:
            self.stats.frames_held += 1
        else:
            self.stats.frames_played += 1
        return picture

    def tag(self, index: int) -> object:
        """What was put with that frame, once; None if nothing was."""
        return self._tags.pop(index, None)

    def sound(self, block: int) -> np.ndarray:
        """The sound of a block, int16 [960]; silence where there is none. Sound passed over counts as dropped."""
        self._next_block = max(self._next_block, block + 1)
        index, half = divmod(block, 2)
        for passed in [stored for stored in self._sound if stored < index]:
            del self._sound[passed]
            self.stats.sound_ms_dropped += FRAME_S * 1000
        samples = self._sound.get(index) if half == 0 else self._sound.pop(index, None)
        if samples is None:
            return np.zeros(BLOCK_SAMPLES, np.int16)
        return samples[half * BLOCK_SAMPLES : (half + 1) * BLOCK_SAMPLES]

    async def wait_for(self, index: int) -> bool:
        """Waits for a frame and its sound as long as they may still come and would not be too late.

        Returns:
            Whether the frame is there.
        """
        deadline_s = index * FRAME_S + LATE_S
        while index not in self._sound and index not in self._frames:
            if self._is_dry or any(stored > index for stored in self._frames):  # chunks come in order
                return False
            if self.clock.media_s() >= deadline_s - SETTLE_S:
                self._is_dry = True
                return False
            await happens_before(self._arrival, self.clock, deadline_s)
        return True

    def mute_from(self, media_s: float) -> float:
        """Barge-in: silences the sound that is there from a media time on, after a fade of 10 ms. Frames stay.

        Sound of blocks that were handed out already cannot be taken back: the mute starts behind them. Only sound
        that is stored now is silenced; what is put afterwards plays.

        Returns:
            The media time up to which sound was really played: the end of the fade, or the start of the mute where
            there was nothing to fade.
        """
        start = max(round(media_s * SOUND_RATE_HZ), self._next_block * BLOCK_SAMPLES, 0)
        fade = np.linspace(1.0, 0.0, FADE_SAMPLES, endpoint=False, dtype=np.float32)
        end = start
        for index in sorted(self._sound):
            samples = self._sound[index]
            first = start - index * FRAME_SAMPLES  # where the mute starts, counted in this frame's samples
            if first >= FRAME_SAMPLES:
                continue
            low, high = max(first, 0), min(first + FADE_SAMPLES, FRAME_SAMPLES)
            if high > low:
                samples[low:high] = (samples[low:high] * fade[low - first : high - first]).astype(np.int16)
                end = start + FADE_SAMPLES
            samples[max(high, 0) :] = 0
        return end / SOUND_RATE_HZ

    def drop_from(self, frame: int) -> None:
        """Forgets frames and sound from this frame on, for example after a rewind; not counted as dropped."""
        for store in (self._frames, self._sound, self._tags):
            for index in [stored for stored in store if stored >= frame]:
                del store[index]  # type: ignore[attr-defined]

    @property
    def frames_ahead(self) -> int:
        """How many frames are waiting to be shown."""
        return len(self._frames)

    def _late_floor(self, now_s: float) -> int:
        """The first frame that is not more than 120 ms late."""
        return math.ceil((now_s - LATE_S) * FPS - SETTLE_S)

    def _forget_late(self, now_s: float) -> None:
        """Without a player nothing is asked for; what is too late goes all the same."""
        floor = self._late_floor(now_s)
        for index in [stored for stored in self._frames if stored < floor]:
            del self._frames[index]
            self._tags.pop(index, None)
            self.stats.frames_dropped += 1
        for index in [stored for stored in self._sound if stored < floor]:
            del self._sound[index]
            self.stats.sound_ms_dropped += FRAME_S * 1000
