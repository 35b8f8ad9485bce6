"""Pictures of any size to the frame size of a model, as the published families cut theirs."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def cover_resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale a picture until it covers the frame, bilinear, and cut the middle: uint8 [h, w, 3] → [height, width, 3]."""
    rows, columns = picture.shape[:2]
    scale = max(height / rows, width / columns)
    size = math.ceil(columns * scale), math.ceil(rows * scale)
    scaled = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - height) / 2), round((size[0] - width) / 2)
    return scaled[top : top + height, left : left + width]
