"""RGB pictures to I420, as the encoders want it."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

BT601_MAX_LINES = 576


class I420Converter:
    """Converts uint8 RGB to I420 in limited range: BT.601 up to 576 lines, BT.709 above.

    Args:
        height, width: of the pictures, even.
    """

    def __init__(self, height: int, width: int) -> None:
        if height % 2 or width % 2:
            raise ValueError(f"height and width must be even, got {height} and {width}")
        self._reformatter = VideoReformatter()
        self._colorspace = Colorspace.ITU601 if height <= BT601_MAX_LINES else Colorspace.ITU709

    def convert(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [T, H, W, 3] → uint8 [T, H·3/2, W]: the planes Y, U, V of every frame in order."""
        count, height, width = pictures.shape[:3]
        out = np.empty((count, height * 3 // 2, width), np.uint8)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(picture), "rgb24")
            planes = self._reformatter.reformat(
                frame,
                format="yuv420p",
                src_colorspace=self._colorspace,
                dst_colorspace=self._colorspace,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            out[index] = planes.to_ndarray()
        return out
