"""Painted surfaces: skin, hair, brows, eyes and cloth.

Pictures are uint8 [H, W, 3 or 4] RGB(A), row 0 on top (v = 1). Colours in arguments are sRGB: skin tones in
0..255, hair and cloth in 0..1. Positions are those of the neutral body (metres), read from the position map.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from training.synthetic.body import BodyModel

SKIN_SIZE = 1024
CLOTH_SIZE = 1024
TEE_LOGOS = ((0.79, 0.235), (0.56, 0.19), (0.246, 0.14), (0.533, 0.165))  # where T-shirts carry one
POWER_SPREAD = 0.12
WRIST_X = 0.425  # |x| of the wrists on the neutral body, where painted sleeves end
# how much darker, per channel, full flush makes a photo-based skin
PHOTO_FLUSH = np.array([0.01, 0.10, 0.09], np.float32)
_HAIRLINE_AZIMUTH = (0, 25, 45, 58, 68, 78, 90, 102, 116, 140, 180)  # degrees from straight ahead
_HAIRLINE_ELEVATION = (37, 38, 36, 27, 12, -6, -16, -14, -24, -38, -46)
_SKULL_CENTRE = np.array([0.0, -0.05, 0.70])


@functools.lru_cache(maxsize=128)  # many people share them
def read_picture(path: Path) -> np.ndarray:
    """Picture file as uint8 RGB or RGBA, read-only. Raises FileNotFoundError."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise FileNotFoundError(f"no readable picture at {path}")
    picture = cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    picture.setflags(write=False)
    return picture


def bleed(picture: np.ndarray) -> np.ndarray:
    """Spread the colour of opaque texels into transparent ones: no dark fringes when minified."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    weighted = picture[..., :3].astype(np.float32) * alpha
    out = np.zeros_like(weighted)
    done = np.zeros(alpha.shape, bool)
    for sigma in (1, 3, 9, 27, 81):
        scale = max(1, sigma // 3)
        size = (picture.shape[1] // scale, picture.shape[0] // scale)
        colour = cv2.GaussianBlur(cv2.resize(weighted, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / scale)
        cover = cv2.GaussianBlur(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / scale)
        full = picture.shape[1::-1]
        colour, cover = cv2.resize(colour, full), cv2.resize(cover, full)[..., None]
        fresh = (cover > 0.02) & ~done
        out = np.where(fresh, colour / np.maximum(cover, 1e-4), out)
        done |= fresh
    rgb = np.where(alpha > 0.6, picture[..., :3], out)
    return np.concatenate([np.clip(rgb, 0, 255), alpha * 255], axis=2).astype(np.uint8)


def paint_hair(picture: np.ndarray, colour: Sequence[float]) -> np.ndarray:
    """Recolour hair cards: the picture gives strands and alpha, `colour` (0..1) the rest."""
    card = bleed(picture)
    solid = card[..., 3] > 100
    grey = card[..., :3].astype(np.float32).mean(2)
    low, middle, high = np.percentile(grey[solid], [5, 50, 97])
    ratio = np.clip((grey - low) / (high - low + 4), 0, 1.25)
    middle = np.clip((middle - low) / (high - low + 4), 0.05, 0.95)
    ratio = ratio ** (np.log(0.42) / np.log(middle))
    light = np.clip((np.mean(colour) - 0.25) / 0.4, 0, 1)  # light hair has less contrast between strands
    gain = (0.35 + 1.35 * ratio) * (1 - light) + (0.62 + 0.62 * ratio) * light
    rgb = np.array(colour) * 255 * gain[..., None] + (ratio[..., None] ** 3) * 18 * (1 - light)
    return np.concatenate([np.clip(rgb, 0, 255), card[..., 3:]], axis=2).astype(np.uint8)


def paint_cards(picture: np.ndarray, colour: Sequence[float], density: float) -> np.ndarray:
    """Brows or lashes in a colour (0..1); `density` scales their alpha."""
    card = picture.astype(np.float32)
    grey = card[..., :3].mean(2, keepdims=True) / 255
    rgb = np.array(colour) * 255 * (0.55 + grey)
    return np.clip(np.concatenate([rgb, card[..., 3:] * density], axis=2), 0, 255).astype(np.uint8)


def paint_eye(picture: np.ndarray, saturation: float, brightness: float) -> np.ndarray:
    """Eye texture with a tamed iris; the white is slightly brightened."""
    eye = picture[..., :3].astype(np.float32)
    scale = 512 / eye.shape[0]
    y, x = np.mgrid[0 : eye.shape[0], 0 : eye.shape[1]] * scale
    distance = np.minimum(np.hypot(x - 365, y - 145.5), np.hypot(x - 147, y - 366))
    iris = np.clip((64 - distance) / 4, 0, 1)[..., None]
    tamed = (eye.mean(2, keepdims=True) * (1 - saturation) + eye * saturation) * brightness
    return np.clip(eye * (1 - iris) * np.array([1.10, 1.08, 1.08]) + tamed * iris, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class SkinPaint:
    """What is painted on a skin. tone: sRGB of the cheek 0..255; mix: (texture name, weight) of photo-based
    skins, empty for a procedural one; beard, scalp (hair painted under cards), lips, freckles in 0..1;
    hair: colour 0..1; brows: painted brows 0..1 (where there are no cards); shirt: colour 0..1 of a painted shirt
    (where there are no clothes)."""

    seed: int
    tone: tuple[float, float, float]
    mix: tuple[tuple[str, float], ...] = ()
    hair: tuple[float, float, float] = (0.2, 0.14, 0.1)
    beard: float = 0.0
    scalp: float = 0.0
    lips: float = 0.0
    lip_colour: tuple[float, float, float] = (190.0, 110.0, 105.0)
    freckles: float = 0.0
    brows: float = 0.0
    shirt: tuple[float, float, float] | None = None


class _Atlas:
    """Masks and positions of the skin's texture at the painting size."""

    def __init__(self, body: BodyModel) -> None:
        size = (SKIN_SIZE, SKIN_SIZE)
        self.position = cv2.resize(body.position_map, size, interpolation=cv2.INTER_LINEAR)
        self.x, self.y, self.z = np.moveaxis(self.position, 2, 0)
        self.side = np.abs(self.x)
        self.masks = {
            name: cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
            for name, mask in body.masks.items()
        }
        self.cheek = (
            (self.side > 0.02) & (self.side < 0.05) & (self.z > 0.655) & (self.z < 0.68) & (self.y < -0.09)
        )


def _noise(scale: int, rng: np.random.Generator) -> np.ndarray:
    count = max(2, SKIN_SIZE // scale)
    return cv2.resize(
        rng.standard_normal((count, count)).astype(np.float32), (SKIN_SIZE,) * 2, interpolation=cv2.INTER_CUBIC
    )


def hairline(position: np.ndarray) -> np.ndarray:
    """Degrees above the hairline of points [..., 3] on the neutral head; -50 off the head."""
    d = position - _SKULL_CENTRE.astype(position.dtype)
    azimuth = np.degrees(np.arctan2(np.abs(d[..., 0]), -d[..., 1]))
    elevation = np.degrees(np.arctan2(d[..., 2], np.hypot(d[..., 0], d[..., 1])))
    above = elevation - np.interp(azimuth, _HAIRLINE_AZIMUTH, _HAIRLINE_ELEVATION).astype(position.dtype)
    return np.where((position[..., 2] < 0.58) | (np.abs(position[..., 0]) > 0.12), -50, above)


def _beard_mask(atlas: _Atlas) -> np.ndarray:
    x, y, z = atlas.side, atlas.y, atlas.z
    jaw = np.clip((0.648 - z + 0.10 * np.maximum(0, x - 0.035)) / 0.012, 0, 1)
    jaw = jaw * np.clip((z - 0.575) / 0.02, 0, 1) * np.clip((-0.045 - y) / 0.02, 0, 1)
    moustache = np.exp(-(((z - 0.6435) / 0.0045) ** 2)) * (x < 0.027) * (y < -0.12)
    side = np.clip((x - 0.05) / 0.015, 0, 1) * np.clip((0.69 - z) / 0.02, 0, 1)
    side = side * np.clip((-0.05 - y) / 0.01, 0, 1) * (x < 0.1) * (z > 0.575)
    mask = np.maximum.reduce([jaw * np.clip((x - 0.012) / 0.012 + (z < 0.612), 0, 1), moustache, side])
    mask = np.clip(mask, 0, 1) * (1 - np.clip(atlas.masks["lips"] * 3, 0, 1)) * (atlas.masks["face"] > 0.02)
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4)


def beard_cover(body: BodyModel) -> np.ndarray:
    """Where beards grow on the skin's texture, float32 [S, S] in 0 … 1."""
    return _beard_mask(_Atlas(body))


def _brow_mask(atlas: _Atlas, rng: np.random.Generator) -> np.ndarray:
    """Brows painted as strokes on a curve over the eyes."""
    t = np.clip((atlas.side - 0.010) / 0.042, -0.5, 1.5)
    inner = np.clip(t, 0, 1)
    line = 0.7035 + 0.0085 * np.sin(inner * np.pi * 0.62) - 0.004 * inner**2
    half = 0.0042 * (1 - 0.65 * inner) + 0.0006
    mask = np.exp(-(((atlas.z - line) / half) ** 4)) * np.clip((t + 0.02) / 0.10, 0, 1)
    mask = mask * np.clip((1.02 - t) / 0.18, 0, 1) * (atlas.y < -0.08)
    strokes = 0.5 + 0.5 * np.sin((atlas.side * 900 + (atlas.z - line) * 1500) * 2.2 + 3 * _noise(3, rng))
    return np.clip(mask * (0.72 + 0.4 * strokes) * 0.95, 0, 1)


def _base_skin(atlas: _Atlas, paint: SkinPaint, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Photo-based skins mixed and brought to the tone, or a flat tone with a little blood."""
    tone = np.array(paint.tone, np.float32)
    if pictures:
        total = np.zeros((SKIN_SIZE, SKIN_SIZE, 3), np.float32)
        for picture, (_, weight) in zip(pictures, paint.mix, strict=True):
            picture = picture[..., :3].astype(np.float32)
            total += weight * cv2.resize(picture, (SKIN_SIZE,) * 2, interpolation=cv2.INTER_CUBIC)
        mean = total[atlas.cheek].mean(0)
        power = np.log(np.maximum(tone, 4) / 255) / np.log(mean / 255)  # a gamma keeps shading and lips
        # too different powers tint the shadows: what is left of the way is a plain gain
        power = power.mean() + np.clip(power - power.mean(), -POWER_SPREAD, POWER_SPREAD)
        total = 255 * (np.clip(total, 1, 255) / 255) ** power
        gain = tone / (255 * (mean / 255) ** power)
        total = np.minimum(total * gain, 255)
        total = total + 0.6 * (total - cv2.GaussianBlur(total, (0, 0), 3))
        return total * (1 - _flush(atlas)[..., None] * PHOTO_FLUSH)
    shade = np.array([0.02, 0.16, 0.15], np.float32) * (0.6 + 0.6 * float(tone.mean()) / 255)
    return (tone * (1 - _flush(atlas)[..., None] * shade)).astype(np.float32)


def _flush(atlas: _Atlas) -> np.ndarray:
    """Where blood shows through skin: cheeks, nose, ears, under the eyes."""
    x, y, z = atlas.side, atlas.y, atlas.z
    red = np.exp(-(((x - 0.045) / 0.02) ** 2 + ((z - 0.662) / 0.018) ** 2)) * (y < -0.08) * 0.55
    red += np.exp(-((x / 0.012) ** 2 + ((z - 0.662) / 0.012) ** 2)) * (y < -0.14) * 0.5 + atlas.masks["ears"] * 0.35
    return red + np.exp(-(((x - 0.03) / 0.018) ** 2 + ((z - 0.688) / 0.008) ** 2)) * (y < -0.1) * 0.35


def paint_skin(body: BodyModel, paint: SkinPaint, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Skin texture uint8 [S, S, 4]; alpha is glossiness, 0 inside the mouth. `pictures`: one per entry of
    `paint.mix`."""
    atlas = _Atlas(body)
    rng = np.random.default_rng(paint.seed)
    skin = _base_skin(atlas, paint, pictures)
    detail = _noise(40, rng) * 0.008 + _noise(10, rng) * 0.010 + _noise(3, rng) * 0.008
    skin = skin * (1 + detail)[..., None]
    x, y, z = atlas.side, atlas.y, atlas.z
    hair = np.array(paint.hair, np.float32) * 255
    if paint.freckles > 0:
        spots = (_noise(2, rng) > 1.7) * np.exp(-(((x - 0.03) / 0.03) ** 2 + ((z - 0.67) / 0.02) ** 2)) * (y < -0.1)
        skin *= 1 - paint.freckles * spots[..., None] * np.array([0.12, 0.22, 0.28], np.float32)
    if paint.beard > 0:
        cover = np.clip(_beard_mask(atlas) * paint.beard * (0.85 + 0.25 * _noise(2, rng)), 0, 1)
        cover = cv2.GaussianBlur(cover.astype(np.float32), (0, 0), 0.7)[..., None]
        skin = skin * (1 - cover) + (hair * 0.6 + skin * 0.15) * cover
    if paint.scalp > 0:
        cover = 1 / (1 + np.exp(-(hairline(atlas.position) - 2 + 1.2 * _noise(3, rng)) / 1.8)) * paint.scalp
        cover = cover * (1 - np.clip(cv2.GaussianBlur(atlas.masks["ears"], (0, 0), 3) * 2, 0, 1))
        skin = skin * (1 - cover[..., None]) + hair * 0.75 * (1 + detail[..., None] * 6) * cover[..., None]
    if paint.brows > 0:
        cover = (_brow_mask(atlas, rng) * paint.brows)[..., None]
        skin = skin * (1 - cover) + hair * 0.8 * cover
    out = _finish_skin(atlas, paint, skin, rng)
    return out if paint.shirt is None else _paint_shirt_on(atlas, out, paint.shirt)


def _paint_shirt_on(atlas: _Atlas, skin: np.ndarray, colour: Sequence[float]) -> np.ndarray:
    """A shirt with round neck and long sleeves as paint on the body, dull where it covers."""
    dip = np.clip((-0.03 - atlas.y) / 0.025, 0, 1) * np.clip(1 - atlas.side / 0.07, 0, 1)
    neckline = 0.552 + 0.5 * atlas.y - 0.015 * dip
    inside = np.where(atlas.side > 0.16, 1.0, neckline - atlas.z)
    inside = np.where(atlas.side > 0.30, np.clip(WRIST_X - atlas.side, -1, 1), inside)
    cover = np.clip(inside / 0.003 + 0.5, 0, 1)[..., None]
    band = 1 - 0.12 * np.clip(1 - np.abs(inside - 0.006) / 0.006, 0, 1)[..., None]
    dull = np.full((*inside.shape, 1), 12.0, np.float32)
    cloth = np.concatenate([np.array(colour, np.float32) * 255 * band, dull], axis=2)
    return np.clip(skin * (1 - cover) + cloth * cover, 0, 255).astype(np.uint8)


def plain_picture(colour: Sequence[float]) -> np.ndarray:
    """A small opaque picture of one colour (0..1)."""
    return np.broadcast_to(np.array([*(c * 255 for c in colour), 255]), (4, 4, 4)).astype(np.uint8)


def draw_eye(iris: Sequence[float]) -> np.ndarray:
    """Eye texture uint8 [512, 512, 3] without a photo: white, iris (colour 0..1) with fibres and rim, pupil."""
    y, x = np.mgrid[0:512, 0:512].astype(float)
    dx, dy = x - 365, y - 145.5
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    fibres = 0.85 + 0.10 * np.sin(angle * 23 + 2 * np.sin(angle * 7)) + 0.08 * np.sin(angle * 41)
    rim = 1 - 0.65 * np.clip((radius - 44) / 18, 0, 1)
    coloured = np.array(iris) * 255 * (fibres * rim * (1.25 - 0.5 * radius / 62))[..., None]
    white = np.array([232, 226, 222]) * np.ones((512, 512, 1))
    out = np.where(np.clip((62 - radius) / 3, 0, 1)[..., None] > 0.5, coloured, white)
    pupil = np.clip((23 - radius) / 2, 0, 1)[..., None]
    out = cv2.GaussianBlur(out * (1 - pupil) + 8 * pupil, (0, 0), 0.8)
    return np.clip(out, 0, 255).astype(np.uint8)


def _finish_skin(atlas: _Atlas, paint: SkinPaint, skin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lips, the cavity of the mouth, and glossiness as alpha."""
    lips = cv2.GaussianBlur(atlas.masks["lips"], (0, 0), 1.0)[..., None]
    grey = skin.mean(2, keepdims=True)
    tint = np.array(paint.lip_colour, np.float32) * (grey / np.maximum(1, grey[atlas.cheek].mean())) * 0.98
    skin = skin * (1 - lips * paint.lips) + tint * lips * paint.lips
    cavity = atlas.masks["inside-mouth"] > 0.2
    depth = np.clip((atlas.y + 0.145) / 0.045, 0, 1)[..., None]
    front = (1 - depth) ** 1.5
    near, far = np.array([112, 38, 38], np.float32), np.array([14, 4, 5], np.float32)
    skin = np.where(cavity[..., None], near * front + far * (1 - front), skin)
    shine = 0.35 + 0.25 * np.exp(-((atlas.x / 0.02) ** 2)) * (atlas.y < -0.1) * (atlas.z > 0.64) + 0.4 * lips[..., 0]
    shine = np.clip(shine * (1 + _noise(2, rng) * 0.2), 0.06, 1)
    shine[cavity] = 0
    return np.clip(np.concatenate([skin, shine[..., None] * 255], axis=2), 0, 255).astype(np.uint8)


def _coloured(hsv: np.ndarray, low: int, high: int, saturation: int) -> np.ndarray:
    return (hsv[..., 0] >= low) & (hsv[..., 0] <= high) & (hsv[..., 1] > saturation)


def paint_tee(picture: np.ndarray, colour: Sequence[float], trim: Sequence[float]) -> np.ndarray:
    """The blue or white T-shirts: one colour, its own faint folds, a trim; logos disappear."""
    rgb = cv2.GaussianBlur(picture[..., :3], (0, 0), 1.2)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    grey = rgb.astype(np.float32).mean(2)
    blue = _coloured(hsv, 90, 125, 95)
    cloth = blue if blue.mean() > 0.1 else grey > 100
    level = np.median(grey[cloth])
    folds = cv2.medianBlur(np.clip(grey / level, 0.88, 1.08).astype(np.float32), 5)
    folds = np.where(cloth, folds, 1.0)
    collar = cloth & (grey < 0.72 * level)
    folds = np.where(collar, 0.86, folds)
    orange = _coloured(hsv, 5, 25, 110)
    # trims run along seams; what lies well inside a panel is a logo
    size = picture.shape[0]
    y, x = np.mgrid[0:size, 0:size] / size
    logo = np.zeros(orange.shape, bool)
    for centre in TEE_LOGOS:
        logo |= np.hypot(x - centre[0], y - centre[1]) < 0.10
    plain = cv2.GaussianBlur(logo.astype(np.float32), (0, 0), 5)
    folds = folds * (1 - plain) + plain
    seam = cv2.GaussianBlur((orange & ~logo).astype(np.float32), (0, 0), 0.8)[..., None]
    out = np.array(colour) * 255 * folds[..., None]
    return out * (1 - seam) + np.array(trim) * 255 * seam


def paint_shirt(picture: np.ndarray, colour: Sequence[float], stripe: Sequence[float]) -> np.ndarray:
    """The striped shirts: ground and stripes in two colours (alike for a plain shirt)."""
    rgb = picture[..., :3].astype(np.float32)
    grey = rgb.mean(2)
    stripes = np.clip((rgb[..., 0] - rgb[..., 2] - 8) / 50, 0, 1)[..., None]
    dark = np.clip(0.93 + (grey - 30) / 240, 0.82, 1.1)[..., None]
    return np.array(colour) * 255 * dark * (1 - stripes) + np.array(stripe) * 255 * stripes


def paint_suit(picture: np.ndarray, colour: Sequence[float]) -> np.ndarray:
    """Dark cloth takes the colour; shirt and tie keep theirs."""
    rgb = picture[..., :3].astype(np.float32)
    grey = rgb.mean(2)
    solid = picture[..., 3] > 128 if picture.shape[2] == 4 else np.ones(grey.shape, bool)
    dark = np.clip((110 - grey) / 60, 0, 1)[..., None]
    level = np.median(grey[(grey < 90) & solid])
    gain = np.clip(grey / level, 0.6, 1.4)[..., None]
    return rgb * (1 - dark) + dark * np.array(colour) * 255 * gain


def finish_cloth(rgb: np.ndarray, picture: np.ndarray, occlusion: np.ndarray | None) -> np.ndarray:
    """Cloth texture with its baked occlusion multiplied in and the picture's alpha; uint8 [S, S, 4]."""
    size = (CLOTH_SIZE, CLOTH_SIZE)
    rgb = cv2.resize(rgb.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    if occlusion is not None:
        shade = occlusion.astype(np.float32)[..., :1] / 255
        if occlusion.shape[2] == 4:
            shade = np.where(occlusion[..., 3:] > 127, shade, 1.0)
        rgb *= (0.45 + 0.55 * cv2.resize(shade.astype(np.float32), size))[..., None]
    alpha = picture[..., 3] if picture.shape[2] == 4 else np.full(picture.shape[:2], 255, np.uint8)
    alpha = cv2.resize(alpha, size)[..., None]
    return np.concatenate([np.clip(rgb, 0, 255), alpha], axis=2).astype(np.uint8)


@functools.lru_cache(maxsize=2)
def _fold_slopes(size: int) -> np.ndarray:
    """Slopes [size, size, 2] of cloth's wrinkles."""
    rng = np.random.default_rng(5)
    frequency = np.fft.fftfreq(size)[:, None]
    radius = np.hypot(frequency, frequency.T)
    slope = np.zeros((size, size, 2))
    for centre, weight in ((0.010, 1.0), (0.026, 0.5)):
        spectrum = np.fft.fft2(rng.standard_normal((size, size))) * np.exp(-(((radius - centre) / (centre * 0.7)) ** 2))
        height = np.real(np.fft.ifft2(spectrum))
        dy, dx = np.gradient(height)
        slope += weight * np.stack([dx, -dy], axis=2) / dx.std()
    return slope


def fold_normals(picture: np.ndarray | None, strength: float, smoothed: bool = False) -> np.ndarray:
    """Normal map uint8 [512, 512, 3] with wrinkles added; `smoothed` melts embossed logos away."""
    size = 512
    slope = _fold_slopes(size)
    normal = np.full((size, size, 3), (128, 128, 255), np.uint8)
    if picture is not None:
        normal = cv2.resize(picture[..., :3], (size, size), interpolation=cv2.INTER_AREA)
        for logo_x, logo_y in TEE_LOGOS if smoothed else ():
            y, x = np.mgrid[0:size, 0:size] / size
            distance = np.hypot((x - logo_x) * 0.85, y - logo_y)
            weight = np.clip((0.105 - distance) / 0.02, 0, 1)[..., None]
            normal = normal * (1 - weight) + cv2.GaussianBlur(normal, (0, 0), 11) * weight
    vector = normal.astype(np.float32) / 127.5 - 1
    vector[..., :2] += slope * strength * 0.5
    return np.clip((vector + 1) * 127.5, 0, 255).astype(np.uint8)
