import numpy as np
import pytest

from models.i420 import I420Converter

BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)  # weights of red and blue in luma
COLOURS = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 80)]


def expected(colour: tuple[int, int, int], weights: tuple[float, float]) -> np.ndarray:
    """Y, U, V in limited range, from the definition."""
    kr, kb = weights
    red, green, blue = (value / 255 for value in colour)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    return np.array([16 + 219 * y, 128 + 112 * (blue - y) / (1 - kb), 128 + 112 * (red - y) / (1 - kr)])


def convert(pictures: np.ndarray) -> np.ndarray:
    return I420Converter(*pictures.shape[1:3]).convert(pictures)


@pytest.mark.parametrize("height, weights", [(64, BT601), (576, BT601), (592, BT709), (720, BT709)])
@pytest.mark.parametrize("colour", COLOURS)
def test_known_colours(height: int, weights: tuple[float, float], colour: tuple[int, int, int]) -> None:
    planes = convert(np.full((1, height, 64, 3), colour, np.uint8))[0]
    found = [planes[:height], planes[height : height * 5 // 4], planes[height * 5 // 4 :]]
    for plane, value in zip(found, expected(colour, weights), strict=True):
        assert np.abs(plane - value).max() <= 1.5  # swscale dithers


def test_every_pixel_and_frame_keeps_its_place() -> None:
    rng = np.random.default_rng(1)
    pictures = np.repeat(rng.integers(0, 256, (3, 64, 48, 1), np.uint8), 3, axis=3)
    out = convert(pictures)
    luma = 16 + 219 / 255 * pictures[..., 0]
    assert np.abs(out[:, :64] - luma).max() <= 1
    assert np.abs(out[:, 64:].astype(int) - 128).max() <= 1


def test_chroma_lies_over_the_pixels_it_is_of() -> None:
    pictures = np.zeros((1, 64, 64, 3), np.uint8)
    pictures[:, 32:, 16:32] = (255, 0, 0)
    v = convert(pictures)[0, 80:].reshape(32, 32)
    assert abs(int(v[24, 12]) - 240) <= 1
    assert abs(int(v[8, 12]) - 128) <= 1 and abs(int(v[24, 20]) - 128) <= 1 and abs(int(v[24, 4]) - 128) <= 1


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        I420Converter(63, 64)
