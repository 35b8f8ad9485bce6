from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamer.errors import PictureError
from streamer.picture import load_picture


def test_centre_is_cut_and_scaled(tmp_path: Path) -> None:
    image = Image.new("RGB", (300, 100), (255, 0, 0))
    image.paste((0, 255, 0), (100, 0, 200, 100))
    path = tmp_path / "wide.png"
    image.save(path)
    pixels = load_picture(path, 64, 64)
    assert pixels.shape == (3, 64, 64) and pixels.dtype == np.float32
    assert pixels[1, :, 2:-2].min() > 0.95 and pixels[0, :, 2:-2].max() < 0.05
    assert 0.0 <= pixels.min() and pixels.max() <= 1.0


def test_shape_follows_the_preset(picture: Path) -> None:
    assert load_picture(picture, 32, 64).shape == (3, 32, 64)


def test_picture_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (100, 100), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 100, 50))  # white on top as stored
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    path = tmp_path / "turned.jpg"
    image.save(path, exif=exif)
    pixels = load_picture(path, 64, 64)
    assert pixels[:, :24].mean() < 0.1 and pixels[:, 40:].mean() > 0.9


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16", "1"])
def test_other_kinds_of_pixels_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tif" if mode in ("CMYK",) else "picture.png")
    if mode == "I;16":
        Image.fromarray(np.full((80, 80), 128 * 257, np.uint16)).save(path)
    else:
        grey = Image.new("RGB", (80, 80), (128, 128, 128))
        grey.convert(mode, dither=Image.Dither.NONE, palette=Image.Palette.ADAPTIVE).save(path)
    pixels = load_picture(path, 64, 64)
    if mode != "1":
        assert np.abs(pixels - 128 / 255).max() < 0.03


def test_transparent_parts_are_grey(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.new("RGBA", (80, 80), (255, 0, 0, 0)).save(path)
    assert np.abs(load_picture(path, 64, 64) - 128 / 255).max() < 0.01


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a picture"), (b"GIF89a and no more", "not a picture"), (b"hello" * 500, "not a picture")],
)
def test_broken_pictures(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=message):
        load_picture(path, 64, 64)


def test_picture_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PictureError, match="not a picture"):
        load_picture(path, 64, 64)


def test_missing_folder_and_tiny(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="there is no picture"):
        load_picture(tmp_path / "none.png", 64, 64)
    with pytest.raises(PictureError, match="is not a file"):
        load_picture(tmp_path, 64, 64)
    Image.new("RGB", (40, 300)).save(tmp_path / "tiny.png")
    with pytest.raises(PictureError, match="too small: 40x300"):
        load_picture(tmp_path / "tiny.png", 64, 64)


@pytest.mark.parametrize("side", [11_000, 14_000])
def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "huge.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(PictureError, match="too large"):
        load_picture(path, 64, 64)


def test_a_part_is_taken_instead_of_the_whole(tmp_path: Path) -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[10:74, 100:164] = 255
    Image.fromarray(pixels).save(tmp_path / "part.png")
    part = load_picture(tmp_path / "part.png", 128, 128, (100, 10, 164, 74))
    assert part.shape == (3, 128, 128) and part.min() > 0.99
