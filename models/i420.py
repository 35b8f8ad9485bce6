"""RGB pictures to I420, as the encoders want it."""

from __future__ import annotations

import cv2
import numpy as np

BT601_MAX_LINES = 576
_RED_BLUE = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # weights in luma


class I420Converter:
    """Converts uint8 RGB to I420 in limited range: BT.601 up to 576 lines, BT.709 above.

    A chroma sample is of the mean of its four pixels, where OpenCV's own conversion, which knows BT.601 only, takes one
    of them.

    Args:
        height, width: of the pictures, even.
    """

    def __init__(self, height: int, width: int) -> None:
        if height % 2 or width % 2:
            raise ValueError(f"height and width must be even, got {height} and {width}")
        red, blue = _RED_BLUE["bt601" if height <= BT601_MAX_LINES else "bt709"]
        luma = np.array([red, 1 - red - blue, blue])
        self._luma = np.append(219 / 255 * luma, 16)[None]
        to_blue = (np.array([0, 0, 1]) - luma) * 112 / 255 / (1 - blue)
        to_red = (np.array([1, 0, 0]) - luma) * 112 / 255 / (1 - red)
        self._chroma = np.stack([np.append(to_blue, 128), np.append(to_red, 128)])

    def convert(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [T, H, W, 3] → uint8 [T, H·3/2, W]: the planes Y, U, V of every frame in order."""
        count, height, width = pictures.shape[:3]
        out = np.empty((count, height * 3 // 2, width), np.uint8)
        for picture, planes in zip(pictures, out, strict=True):
            small = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            if height <= BT601_MAX_LINES:
                planes[:height] = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)[:height]
            else:
                planes[:height] = cv2.transform(picture, self._luma)
            planes[height:] = np.concatenate(cv2.split(cv2.transform(small, self._chroma))).reshape(-1, width)
        return out
