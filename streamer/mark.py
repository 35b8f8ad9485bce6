"""The small visible mark that says a picture is generated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
MAX_MARK_CHARACTERS = 40


@dataclass(frozen=True)
class Mark:
    """How the mark looks.

    Attributes:
        text: what it says, 1 to 40 characters.
        corner: one of `CORNERS`.
        opacity: 0 (not seen) to 1.
        size: height of the badge as a part of the picture's height.
    """

    text: str = "AI"
    corner: str = "bottom-right"
    opacity: float = 0.6
    size: float = 0.07

    def __post_init__(self) -> None:
        length = len(self.text.strip())
        if not 1 <= length <= MAX_MARK_CHARACTERS:
            raise ValueError(f"a mark has 1 to {MAX_MARK_CHARACTERS} characters, not {length}")
        if self.corner not in CORNERS:
            raise ValueError(f"there is no corner {self.corner!r}; there are {', '.join(CORNERS)}")
        if not 0.0 <= self.opacity <= 1.0:
            raise ValueError(f"the opacity of a mark is 0 to 1, not {self.opacity}")
        if not 0.02 <= self.size <= 0.5:
            raise ValueError(f"the size of a mark is 0.02 to 0.5 of the height, not {self.size}")


class MarkStamp:
    """A mark drawn once for a picture size and blended into every frame.

    Args:
        mark: how it looks.
        height, width: of the frames, pixels.

    Attributes:
        rows, columns: of a frame that it covers, h and w of them.
        alpha: float32 [h, w, 1] in 0 … 1, how much of it is seen.
        colour: float32 [h, w, 3] in 0 … 255, already multiplied by alpha.
    """

    def __init__(self, mark: Mark, height: int, width: int):
        badge = _draw_badge(mark, height, width)
        rows, columns = badge.shape[:2]
        margin = max(2, round(0.02 * height))
        vertical, horizontal = mark.corner.split("-")
        top = margin if vertical == "top" else max(0, height - rows - margin)
        left = margin if horizontal == "left" else max(0, width - columns - margin)
        rows, columns = min(rows, height - top), min(columns, width - left)
        self.rows, self.columns = slice(top, top + rows), slice(left, left + columns)
        self.alpha = badge[:rows, :columns, 3:].astype(np.float32) / 255.0 * mark.opacity
        self.colour = badge[:rows, :columns, :3].astype(np.float32) * self.alpha

    def apply(self, frames: np.ndarray) -> None:
        """Blends the mark into uint8 frames [T, H, W, 3], in place."""
        area = frames[:, self.rows, self.columns]
        area[:] = (area * (1.0 - self.alpha) + self.colour + 0.5).astype(np.uint8)


def _draw_badge(mark: Mark, height: int, width: int) -> np.ndarray:
    """A rounded dark badge with light text, uint8 [h, w, 4]; shrunk where it would not fit the width."""
    scale = 4  # drawn large, then reduced: smooth edges at any size
    text = mark.text.strip()
    font = ImageFont.load_default(size=max(8.0, 0.62 * mark.size * height * scale))
    left, top, right, bottom = font.getbbox(text)
    rows = max(round(mark.size * height * scale), round(bottom - top) + 2 * scale)
    pad = 0.3 * rows
    columns = round(right - left + 2 * pad)
    badge = Image.new("RGBA", (columns, rows), (16, 16, 16, 0))
    draw = ImageDraw.Draw(badge)
    draw.rounded_rectangle((0, 0, columns - 1, rows - 1), radius=0.3 * rows, fill=(16, 16, 16, 200))
    draw.text((pad - left, (rows - (bottom - top)) / 2 - top), text, font=font, fill=(255, 255, 255, 255))
    factor = min(1.0 / scale, 0.9 * width / columns)
    size = (max(1, round(columns * factor)), max(1, round(rows * factor)))
    return np.asarray(badge.resize(size, Image.Resampling.BOX))
