"""Reference pictures: any image file to the square (or the shape) a preset wants."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from streamer.errors import PictureError

MIN_SIDE_PIXELS = 64
MOST_SIDE_PIXELS = 2560  # of a portrait's picture, which is made smaller
MAX_PIXELS = 100_000_000
MAX_UNKNOWN_PIXELS = 50_000_000  # of a picture that somebody uploads
BACKGROUND = (128, 128, 128)  # behind transparent pixels


def load_picture(
    path: str | Path, height: int, width: int, part: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Reads a picture, turns it upright, cuts its centre to the wanted shape and scales it.

    Args:
        path: anything Pillow reads.
        height, width: wanted size, pixels.
        part: (left, top, right, bottom), pixels of the upright picture, that is taken instead of the whole.

    Returns:
        float32 [3, height, width] in [0, 1], RGB.

    Raises:
        PictureError: if there is no such file, it is broken, too small or too large.
    """
    with _opened(Path(path), None, MAX_PIXELS) as image:
        if part is None:  # lets a JPEG decode at a fraction of its size; other formats take no notice
            image.draft("RGB", (2 * width, 2 * height))
        upright = _flatten(ImageOps.exif_transpose(image))
        if part is not None:
            upright = upright.crop(part)
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted, dtype=np.float32).transpose(2, 0, 1) / 255.0


def read_rgb(path: str | Path, longest_side: int, formats: tuple[str, ...] | None = None) -> np.ndarray:
    """Reads a picture of somebody who is not known: turned upright, without its metadata, the first of an animation.

    Args:
        longest_side: pixels; larger pictures are made smaller.
        formats: of Pillow that are taken; None for all.

    Returns:
        uint8 [H, W, 3].

    Raises:
        PictureError: if there is no such file, it is broken, too small or too large.
    """
    with _opened(Path(path), formats, MAX_UNKNOWN_PIXELS) as image:
        image.draft("RGB", (longest_side, longest_side))
        if image.mode in ("1", "P", "PA") or image.mode.startswith("I"):  # which cannot be scaled as they are
            image = _flatten(image)
        image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
        return np.asarray(_flatten(ImageOps.exif_transpose(image)))


@contextlib.contextmanager
def _opened(path: Path, formats: tuple[str, ...] | None, max_pixels: int) -> Iterator[Image.Image]:
    """A picture that is there and of a size that can be used; what Pillow raises while it is used, in words."""
    if not path.exists():
        raise PictureError(f"there is no picture {path}")
    if not path.is_file():
        raise PictureError(f"{path} is not a file")
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures and odd metadata; the check below is the one that counts.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=formats) as image:
                _check_size(path, *image.size, max_pixels)
                yield image
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"{path} is too large: at most {max_pixels // 1_000_000} megapixels") from error
    except PermissionError as error:
        raise PictureError(f"{path} may not be read") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error
        raise PictureError(f"{path} is not a picture that can be read") from error


def _check_size(path: Path, columns: int, rows: int, max_pixels: int) -> None:
    if min(columns, rows) < MIN_SIDE_PIXELS:
        raise PictureError(
            f"{path} is too small: {columns}x{rows} pixels, at least {MIN_SIDE_PIXELS} a side are needed"
        )
    if columns * rows > max_pixels:
        raise PictureError(
            f"{path} is too large: {columns}x{rows} pixels, at most {max_pixels // 1_000_000} megapixels"
        )


def _flatten(image: Image.Image) -> Image.Image:
    """RGB, with transparent parts over a middle grey."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        ground = Image.new("RGBA", layers.size, (*BACKGROUND, 255))
        return Image.alpha_composite(ground, layers).convert("RGB")
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip to white
        return Image.fromarray((np.asarray(image) // 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
