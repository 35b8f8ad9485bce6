"""Pictures to packets: H.264 by NVENC where it opens, else x264; VP8 for peers without H.264.

Measured on one core at 256 x 256: x264 0.5 ms a frame, VP8 0.9 ms. Everything here runs in the caller's thread,
which is never the event loop's.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from streamer.media import FPS, VIDEO_CLOCK_HZ
from streamer.media.bitrate import max_bitrate_bps

logger = logging.getLogger(__name__)

CODECS = ("H264", "VP8")
BT_709, SMPTE_170M = 1, 6  # the numbers of H.273 for matrix, primaries and transfer alike
SD_LINES = 576
TICKS_PER_FRAME = VIDEO_CLOCK_HZ // FPS
NEVER = 1_000_000  # frames between keyframes that nobody asked for
VBV_S = 0.1  # of the ceiling; bounds a keyframe to some 10 kB at 256 x 256
VP8_INTRA_PERCENT = 500  # a keyframe may be this many average frames large
VP8_REOPEN_SHARE = 0.15  # libvpx cannot be steered while it runs: a change this large opens it anew …
VP8_REOPEN_FRAMES = 3 * FPS  # … at most this often, with a keyframe each time


class VideoEncoder(Protocol):
    """One stream of packets out of one stream of pictures."""

    def encode(self, picture: np.ndarray, index: int, keyframe: bool = False) -> av.Packet:
        """Encodes one frame.

        Args:
            picture: uint8 [H*3/2, W], I420; not kept.
            index: of the frame; rises from call to call, gaps are allowed.
            keyframe: whether this frame must stand for itself.

        Returns:
            One packet of the whole frame; pts is its media time in units of 1/90000 s.
        """

    def set_bitrate(self, bitrate_bps: int) -> None:
        """Aims for another bitrate from the next frame on."""

    @property
    def name(self) -> str:
        """Which encoder it is."""


def open_video_encoder(codec: str, frame_size: tuple[int, int], bitrate_bps: int) -> VideoEncoder:
    """Opens the best encoder there is for a codec.

    Args:
        codec: one of `CODECS`.
        frame_size: (height, width), pixels, both even.
        bitrate_bps: to start with.

    Raises:
        ValueError: for another codec.
    """
    if codec == "H264":
        if has_nvenc():
            with contextlib.suppress(av.error.FFmpegError):  # cards for players open only a few at a time
                return H264Encoder("h264_nvenc", frame_size, bitrate_bps)
        return H264Encoder("libx264", frame_size, bitrate_bps)
    if codec == "VP8":
        return Vp8Encoder(frame_size, bitrate_bps)
    raise ValueError(f"there is no encoder for {codec!r}; there are {', '.join(CODECS)}")


@functools.cache
def has_nvenc() -> bool:
    """Whether this machine encodes H.264 in hardware. Only opening it tells: an H100 has a driver and no NVENC."""
    try:
        _open_h264("h264_nvenc", (256, 256), 500_000)
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    logger.info("H.264 is encoded in hardware (NVENC)")
    return True


class H264Encoder:
    """Constrained Baseline 3.1, no B-frames, one slice, infinite GOP: what every browser takes.

    x264 changes its bitrate while it runs only if it was opened as constant bitrate, and never above the rate it
    was opened with. So it is opened at the ceiling and turned down before the first frame.
    """

    def __init__(self, name: str, frame_size: tuple[int, int], bitrate_bps: int):
        self._name = name
        self._max_bps = max_bitrate_bps(frame_size)
        self._context = _open_h264(name, frame_size, self._max_bps)
        self.set_bitrate(bitrate_bps)

    @property
    def name(self) -> str:
        return self._name

    def set_bitrate(self, bitrate_bps: int) -> None:
        self._context.bit_rate = min(bitrate_bps, self._max_bps)

    def encode(self, picture: np.ndarray, index: int, keyframe: bool = False) -> av.Packet:
        return _encode_one(self._context, picture, index, keyframe)


class Vp8Encoder:
    """libvpx in real-time mode. Its bitrate cannot change while it runs: it is opened again, which costs a keyframe."""

    def __init__(self, frame_size: tuple[int, int], bitrate_bps: int):
        self._frame_size = frame_size
        self._max_bps = max_bitrate_bps(frame_size)
        self._open(bitrate_bps)

    @property
    def name(self) -> str:
        return "libvpx"

    def set_bitrate(self, bitrate_bps: int) -> None:
        self._wanted_bps = min(bitrate_bps, self._max_bps)

    def encode(self, picture: np.ndarray, index: int, keyframe: bool = False) -> av.Packet:
        change = abs(self._wanted_bps - self._bitrate_bps)
        if change > VP8_REOPEN_SHARE * self._bitrate_bps and self._frames >= VP8_REOPEN_FRAMES:
            self._open(self._wanted_bps)
        self._frames += 1
        return _encode_one(self._context, picture, index, keyframe)

    def _open(self, bitrate_bps: int) -> None:
        self._bitrate_bps = self._wanted_bps = min(bitrate_bps, self._max_bps)
        self._frames = 0
        context = _context("libvpx", self._frame_size, self._bitrate_bps)
        rate = str(self._bitrate_bps)
        context.options = {
            "deadline": "realtime",
            "cpu-used": "-6",
            "lag-in-frames": "0",
            "minrate": rate,  # minrate = maxrate = bit_rate is constant bitrate
            "maxrate": rate,
            "bufsize": rate,
            "undershoot-pct": "100",
            "overshoot-pct": "15",
            "static-thresh": "1",
            "max-intra-rate": str(VP8_INTRA_PERCENT),
            "error-resilient": "0",
        }
        context.open()
        self._context = context


def _open_h264(name: str, frame_size: tuple[int, int], max_bps: int) -> Any:
    context = _context(name, frame_size, max_bps)
    limits = {"maxrate": str(max_bps), "bufsize": str(round(VBV_S * max_bps)), "forced-idr": "1"}
    if name == "libx264":
        context.options = {
            **limits,
            "preset": "superfast",
            "tune": "zerolatency",
            "level": "3.1",
            "x264-params": "scenecut=0:keyint=infinite",
        }
    else:
        context.options = {**limits, "preset": "p3", "tune": "ull", "rc": "cbr", "zerolatency": "1", "delay": "0"}
    context.profile = "Baseline"
    context.open()
    return context


def _context(name: str, frame_size: tuple[int, int], bitrate_bps: int) -> Any:
    height, width = frame_size
    context: Any = av.CodecContext.create(name, "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.framerate, context.time_base = Fraction(FPS), Fraction(1, FPS)
    context.bit_rate = bitrate_bps
    context.gop_size = NEVER
    context.max_b_frames = 0
    context.thread_count = 1
    standard = SMPTE_170M if height <= SD_LINES else BT_709
    context.colorspace = context.color_primaries = context.color_trc = standard
    context.color_range = int(ColorRange.MPEG)
    return context


def _encode_one(context: Any, picture: np.ndarray, index: int, keyframe: bool) -> av.Packet:
    frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), format="yuv420p")
    frame.pts = index
    frame.time_base = Fraction(1, FPS)
    frame.pict_type = PictureType.I if keyframe else PictureType.NONE
    packets = context.encode(frame)
    if len(packets) != 1:
        raise RuntimeError(f"{context.codec.name} gave {len(packets)} packets for one frame")
    packet = packets[0]
    packet.time_base = Fraction(1, VIDEO_CLOCK_HZ)
    packet.pts = packet.dts = index * TICKS_PER_FRAME
    return packet
