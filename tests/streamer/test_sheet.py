from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamer.errors import OutputError
from streamer.sheet import CAPTION_ROWS, ContactSheet


def frames(first: int, count: int) -> np.ndarray:
    """Grey frames whose value is their number modulo 256."""
    values = (np.arange(first, first + count) % 256).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, 8, 8, 3))


@pytest.mark.parametrize("count", [1, 3, 17, 18, 36, 250])
def test_tiles_are_spread_from_first_to_last(count: int) -> None:
    sheet = ContactSheet(columns=6, rows=3)
    for first in range(0, count, 7):
        sheet.add(frames(first, min(7, count - first)))
    picture = np.asarray(sheet.draw())
    tiles = min(count, 18)
    columns = min(6, tiles)
    assert picture.shape == (-(-tiles // columns) * (8 + CAPTION_ROWS), columns * 8, 3)
    shown = [picture[n // columns * (8 + CAPTION_ROWS), n % columns * 8, 0] for n in range(tiles)]
    assert shown == sorted(shown) and shown[0] == 0
    assert shown[-1] >= count - 1 - count / 18


def test_few_frames_are_held_of_a_long_clip() -> None:
    sheet = ContactSheet(columns=4, rows=2)
    for first in range(0, 20_000, 1000):
        sheet.add(frames(first, 1000))
    assert len(sheet._kept) < 16


def test_no_frames_and_no_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        ContactSheet().draw()
    sheet = ContactSheet()
    sheet.add(frames(0, 3))
    with pytest.raises(OutputError, match="cannot write"):
        sheet.save(tmp_path / "none" / "sheet.png")
    sheet.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
