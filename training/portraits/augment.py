"""Pictures made to look like other pictures: paintings, drawings, old photographs, bad cameras, things in front.

Everything works on uint8 [H, W, 3] with OpenCV and draws from the generator that it is given.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Rng = np.random.Generator


def restyle(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """A picture in another style: most get colours and a fault or two, a third is painted or drawn."""
    if rng.random() < 0.35:
        picture = _STYLES[int(rng.integers(len(_STYLES)))](picture, rng)
    picture = _recolour(picture, rng)
    for fault, share in _FAULTS:
        if rng.random() < share:
            picture = fault(picture, rng)
    return picture


def _byte(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _recolour(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Exposure, contrast, white balance, saturation, by one look-up table a channel and one mix with grey."""
    level = np.arange(256, dtype=np.float32) / 255
    gain = np.exp(rng.normal(0, 0.12) + rng.normal(0, rng.choice([0.04, 0.2]), 3))
    contrast, pivot = np.exp(rng.normal(0, 0.3)), rng.uniform(0.25, 0.6)
    curve = (level ** np.exp(rng.normal(0, 0.35)))[:, None] * gain
    table = _byte(255 * (pivot + (curve - pivot) * contrast))[None]
    picture = cv2.LUT(picture, table)
    share = rng.random()
    if share < 0.15 or share > 0.6:
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if share < 0.15:
            return _byte(grey * np.exp(rng.normal(0, 0.06, 3))) if share < 0.06 else grey
        amount = float(rng.uniform(0.2, 1.5))
        picture = cv2.addWeighted(picture, amount, grey, 1 - amount, 0)
    return picture


def _noise(shape: tuple[int, int], count: int, rng: Rng) -> np.ndarray:
    """Smooth noise float32 [H, W], `count` grains a side."""
    return cv2.resize(rng.standard_normal((count, count), np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)


def _brush(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Oil paint: strokes that drag colour along, flattened, on canvas."""
    height, width = picture.shape[:2]
    count, reach = int(rng.integers(width // 8, width // 2)), float(rng.uniform(0.4, 1.6)) * width / 128
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    dx, dy = (_noise((height, width), count, rng) * reach for _ in range(2))
    out = cv2.remap(picture, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    out = cv2.medianBlur(out, int(rng.choice([3, 5])))
    canvas = 1 + _noise((height, width), width // 2, rng) * rng.uniform(0, 0.08)
    return _byte(out * canvas[..., None])


def _poster(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Few levels of flat colour, as printed or drawn on a computer."""
    smooth = cv2.bilateralFilter(picture, 5, 40, 3)
    levels = int(rng.integers(3, 9))
    table = np.round(np.arange(256) / 255 * levels) / levels * 255
    return cv2.LUT(smooth, _byte(table))


def _cartoon(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Flat colour with dark lines."""
    flat = cv2.medianBlur(_poster(picture, rng) if rng.random() < 0.5 else picture, 5)
    return _byte(flat * _lines(picture, rng)[..., None])


def _lines(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """1 on paper, less where a pen would draw; float32 [H, W]."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sigma = float(rng.uniform(0.6, 1.6)) * picture.shape[1] / 128
    edge = cv2.GaussianBlur(grey, (0, 0), sigma * 1.6) - cv2.GaussianBlur(grey, (0, 0), sigma)
    return 1 - np.clip(edge * float(rng.uniform(0.05, 0.35)), 0, 0.9)


def _pencil(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """A drawing in lines and a little shade on tinted paper."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    shade = 1 - float(rng.uniform(0, 0.7)) * (1 - grey / 255)
    tone = _lines(picture, rng) * shade * (1 + _noise(grey.shape, grey.shape[1] // 2, rng) * 0.06)
    return _byte(tone[..., None] * 255 * np.exp(-np.abs(rng.normal(0, 0.12, 3))))


def _soft(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Airbrush: smooth skin, glow."""
    blurred = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(1, 3)) * picture.shape[1] / 128)
    amount = float(rng.uniform(0.3, 0.8))
    return cv2.addWeighted(picture, 1 - amount, blurred, amount, float(rng.uniform(-5, 20)))


def _etched(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Shading by hatched lines, or cracked varnish."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, pitch = rng.uniform(0, np.pi), rng.uniform(2.2, 5)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / pitch + _noise((height, width), 8, rng))
    return _byte(picture * (1 + float(rng.uniform(0.08, 0.35)) * wave)[..., None])


_STYLES: tuple[Callable[[np.ndarray, Rng], np.ndarray], ...] = (
    _brush, _brush, _poster, _cartoon, _cartoon, _pencil, _soft, _etched
)  # fmt: skip


def _shade(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """A ramp of light across the picture, or the edge of a shadow."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / width - 0.5
    ramp = x * rng.normal() + y * rng.normal()
    if rng.random() < 0.4:
        ramp = np.tanh((ramp + rng.normal(0, 0.2)) * rng.uniform(4, 40)) * 0.5
    return _byte(picture * np.exp(ramp * rng.uniform(0.2, 1.2))[..., None])


def _blur(picture: np.ndarray, rng: Rng) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 2.0)) * picture.shape[1] / 128)


def _coarse(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Made small and large again."""
    height, width = picture.shape[:2]
    small = max(12, int(width / rng.uniform(1.3, 4)))
    down = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(down, (width, height), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])))


def _grain(picture: np.ndarray, rng: Rng) -> np.ndarray:
    channels = 3 if rng.random() < 0.5 else 1
    noise = rng.standard_normal((*picture.shape[:2], channels), np.float32)
    if rng.random() < 0.4:
        noise = cv2.GaussianBlur(noise, (0, 0), 0.8).reshape(*picture.shape[:2], channels) * 2
    return _byte(picture + noise * rng.uniform(2, 22))


def _jpeg(picture: np.ndarray, rng: Rng) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 70))]
    return cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR)


def _occlude(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """Something in front: a box, a disc, a bar, hair-like lines."""
    out = picture.copy()
    size = picture.shape[1]
    colour = tuple(float(v) for v in rng.uniform(0, 255) * np.exp(rng.normal(0, 0.3, 3)))
    at = tuple(int(v) for v in rng.integers(0, size, 2))
    kind = rng.random()
    if kind < 0.3:
        w, h = (int(v) for v in rng.integers(size // 12, size // 3, 2))
        cv2.rectangle(out, at, (at[0] + w, at[1] + h), colour, -1)
    elif kind < 0.6:
        axes = tuple(int(v) for v in rng.integers(size // 14, size // 5, 2))
        cv2.ellipse(out, at, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    else:
        for _ in range(int(rng.integers(1, 7))):
            end = tuple(int(v) for v in rng.integers(0, size, 2))
            cv2.line(out, at, end, colour, int(rng.integers(1, max(2, size // 24))), cv2.LINE_AA)
    return out


_FAULTS: tuple[tuple[Callable[[np.ndarray, Rng], np.ndarray], float], ...] = (
    (_shade, 0.3), (_occlude, 0.2), (_blur, 0.2), (_coarse, 0.2), (_grain, 0.3), (_jpeg, 0.2)
)  # fmt: skip


def elastic(size: int, strength: float, rng: Rng) -> np.ndarray:
    """A smooth displacement float32 [size, size, 2] in shares of the picture: features out of proportion."""
    count = int(rng.integers(3, 6))
    grid = rng.normal(0, strength / count, (count, count, 2)).astype(np.float32)
    return cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
