"""Contact sheets: one picture that shows a whole clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from streamer.errors import OutputError

CAPTION_ROWS = 16


class ContactSheet:
    """Keeps evenly spread frames of a clip whose length is not known beforehand.

    It keeps every `stride`-th frame; when twice the wanted number is held, every other one goes and the
    stride doubles. Memory stays bounded for any length.

    Args:
        columns, rows: of the sheet.
        fps: for the times below the frames.
    """

    def __init__(self, columns: int = 6, rows: int = 3, fps: int = 25):
        self._columns = columns
        self._tiles = columns * rows
        self._fps = fps
        self._stride = 1
        self._seen = 0
        self._kept: list[tuple[int, np.ndarray]] = []

    def add(self, frames: np.ndarray) -> None:
        """Shows it the next frames, uint8 [T, H, W, 3]."""
        for frame in frames:
            if self._seen % self._stride == 0:
                self._kept.append((self._seen, frame.copy()))
                if len(self._kept) >= 2 * self._tiles:
                    self._kept = self._kept[::2]
                    self._stride *= 2
            self._seen += 1

    def draw(self) -> Image.Image:
        """The sheet, with the time in seconds below each frame.

        Raises:
            ValueError: if no frame was added.
        """
        if not self._kept:
            raise ValueError("a contact sheet needs at least one frame")
        count = min(self._tiles, len(self._kept))
        spread = np.linspace(0, len(self._kept) - 1, count).round().astype(int)
        chosen = [self._kept[index] for index in spread]
        height, width = chosen[0][1].shape[:2]
        columns = min(self._columns, count)
        rows = -(-count // columns)
        sheet = Image.new("RGB", (columns * width, rows * (height + CAPTION_ROWS)), (255, 255, 255))
        draw = ImageDraw.Draw(sheet)
        font = ImageFont.load_default(size=12)
        for place, (index, frame) in enumerate(chosen):
            left, top = place % columns * width, place // columns * (height + CAPTION_ROWS)
            sheet.paste(Image.fromarray(frame), (left, top))
            draw.text((left + 4, top + height), f"{index / self._fps:.2f} s", fill=(0, 0, 0), font=font)
        return sheet

    def save(self, path: str | Path) -> None:
        """Writes the sheet as PNG.

        Raises:
            OutputError: if it cannot be written.
        """
        try:
            self.draw().save(path, format="PNG")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
