"""Finished files: H.264 + AAC in MP4, sound and picture of exactly the same length.

The file grows under a temporary name beside its place and is renamed when it is whole, so that a run which
ends early leaves nothing that looks finished. Every file says in its metadata that it is generated; there is
no switch for that.
"""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from models.timing import SOUND_RATE_HZ
from streamer.errors import OutputError

SOUND_BIT_RATE = 96_000
ENCODER_THREADS = 1
AAC_FRAME_SAMPLES = 1024
HD_ROWS = 720
BT_709, SMPTE_170M = 1, 6  # the numbers of H.273 for matrix, primaries and transfer alike
STATEMENT = "AI-generated media: no camera recorded what this video shows; made with infinity-avatar"


class VideoWriter:
    """Writes frames and their sound to one MP4 file; a context manager.

    Leaving the `with` block finishes the file and puts it in its place; leaving it by an exception removes
    what was written.

    Args:
        path: where the file goes, ending in .mp4; missing folders are made.
        height, width: of the frames, pixels, both even.
        fps: frames a second, a divisor of 48000.
        made_by: what made the pictures (program, version, preset), for the metadata.

    Raises:
        OutputError: if nothing can be written there, now or later (full disk).
        ValueError: for sizes that H.264 cannot hold.
    """

    def __init__(self, path: str | Path, height: int, width: int, fps: int = 25, made_by: str = ""):
        if height % 2 or width % 2:
            raise ValueError(f"H.264 needs even sides, not {width}x{height}")
        if SOUND_RATE_HZ % fps:
            raise ValueError(f"{fps} frames a second do not divide {SOUND_RATE_HZ} samples a second")
        self.path = Path(path)
        self.frames_written = 0
        self.samples_per_frame = SOUND_RATE_HZ // fps
        self._part = check_writable(self.path, ".mp4").with_name(f".{self.path.name}.{os.getpid()}.part")
        self._size = (height, width)
        self._sound = np.zeros(0, np.float32)
        self._sound_position = 0
        with self._errors():
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
            for key in ("comment", "description"):
                self._container.metadata[key] = f"{STATEMENT} ({made_by})" if made_by else STATEMENT
            self._video = self._add_video(fps)
            self._audio = self._add_audio()

    def write(self, frames: np.ndarray, samples: np.ndarray) -> None:
        """Appends frames and the sound that is heard with them.

        Args:
            frames: uint8 [T, H, W, 3], RGB.
            samples: float32 [T * samples_per_frame] in [-1, 1], mono, 48 kHz.

        Raises:
            OutputError: if the disk does not take it.
            ValueError: if the shapes do not belong together.
        """
        expected = (len(frames), *self._size, 3)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise ValueError(f"frames are uint8 {expected}, not {frames.dtype} {frames.shape}")
        count = len(frames) * self.samples_per_frame
        if samples.shape != (count,):
            raise ValueError(f"{len(frames)} frames need {count} samples, not {samples.shape}")
        with self._errors():
            for frame in frames:
                self._container.mux(self._video.encode(self._picture(frame)))
                self.frames_written += 1
            self._sound = np.concatenate([self._sound, samples.astype(np.float32, copy=False)])
            self._write_sound(AAC_FRAME_SAMPLES)

    def close(self) -> None:
        """Finishes the file and moves it to its place."""
        with self._errors():
            self._write_sound(1)
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
            self._container.close()
            os.replace(self._part, self.path)

    def discard(self) -> None:
        """Ends without a file: what was written so far is removed."""
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            self._container.close()
        self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _add_video(self, fps: int) -> Any:
        height, width = self._size
        stream: Any = self._container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # No B-frames: the first picture starts at time 0 and the last ends with the sound.
        stream.options = {"preset": "veryfast", "crf": "17", "bf": "0", "g": str(2 * fps)}
        stream.codec_context.thread_count = ENCODER_THREADS
        stream.codec_context.time_base = Fraction(1, fps)
        # What a player assumes for a picture of this size if it does not read the tags; tagged all the same.
        is_hd = height >= HD_ROWS
        self._matrix = Colorspace.ITU709 if is_hd else Colorspace.ITU601
        standard = BT_709 if is_hd else SMPTE_170M
        stream.codec_context.colorspace = standard
        stream.codec_context.color_primaries = standard
        stream.codec_context.color_trc = standard
        stream.codec_context.color_range = int(ColorRange.MPEG)
        return stream

    def _add_audio(self) -> Any:
        stream: Any = self._container.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono")
        stream.bit_rate = SOUND_BIT_RATE
        stream.codec_context.time_base = Fraction(1, SOUND_RATE_HZ)
        return stream

    def _picture(self, frame: np.ndarray) -> av.VideoFrame:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=self._matrix, dst_color_range=ColorRange.MPEG)
        picture.pts = self.frames_written
        picture.time_base = self._video.codec_context.time_base
        return picture

    def _write_sound(self, at_least: int) -> None:
        while len(self._sound) >= at_least:
            block, self._sound = np.split(self._sound, [min(AAC_FRAME_SAMPLES, len(self._sound))])
            frame = av.AudioFrame.from_ndarray(block[None], format="fltp", layout="mono")
            frame.sample_rate = SOUND_RATE_HZ
            frame.pts = self._sound_position
            frame.time_base = Fraction(1, SOUND_RATE_HZ)
            self._sound_position += len(block)
            self._container.mux(self._audio.encode(frame))

    @contextlib.contextmanager
    def _errors(self) -> Any:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "the encoder refused"
            raise OutputError(f"cannot write {self.path}: {reason}") from error


def check_writable(path: str | Path, suffix: str) -> Path:
    """Makes sure, before any work is done, that a file can be put there.

    Args:
        path: of a file, with its suffix; missing folders are made.
        suffix: that the name must end in, for example ".mp4".

    Raises:
        OutputError: if it cannot, with the reason.
    """
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise OutputError(f"cannot write {path}: the name must end in {suffix}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path
