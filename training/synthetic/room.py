"""Rooms behind the presenters: bright, softly out of focus, static; and the light that fits them.

Pictures are painted at twice the size, blurred, and handed out as uint8 [S, S, 3] RGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

CANVAS = 512
BACKGROUND_POINTS = 20
Colour = tuple[int, int, int]

WALLS: tuple[Colour, ...] = (
    (214, 207, 196),
    (186, 198, 203),
    (204, 196, 184),
    (176, 186, 194),
    (224, 221, 215),
    (168, 184, 176),
    (216, 200, 190),
    (196, 190, 204),
)
BOOKS: tuple[Colour, ...] = (
    (150, 84, 70), (92, 118, 136), (198, 178, 140), (110, 132, 104), (222, 214, 200), (120, 92, 110), (74, 84, 104)
)  # fmt: skip


@dataclass(frozen=True)
class Lights:
    """Three directional lights (direction towards the light) over a two-colour ambient; colours are linear."""

    key_direction: tuple[float, float, float] = (-0.62, -0.85, 0.62)
    key_colour: tuple[float, float, float] = (1.30, 1.22, 1.14)
    fill_direction: tuple[float, float, float] = (0.95, -0.6, 0.10)
    fill_colour: tuple[float, float, float] = (0.44, 0.46, 0.50)
    rim_direction: tuple[float, float, float] = (0.65, 0.75, 0.5)
    rim_colour: tuple[float, float, float] = (1.2, 1.2, 1.25)
    ambient_top: tuple[float, float, float] = (0.34, 0.345, 0.36)
    ambient_bottom: tuple[float, float, float] = (0.21, 0.19, 0.175)


class _Canvas:
    def __init__(self, rng: np.random.Generator, wall: Colour) -> None:
        self.rng = rng
        down = np.linspace(1.06, 0.86, CANVAS)[:, None, None]
        across = np.linspace(1.07, 0.90, CANVAS)[None, :, None]
        self.picture = np.clip(np.array(wall) * down * across, 0, 255).astype(np.uint8)

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def box(self, x0: int, y0: int, x1: int, y1: int, colour: Colour) -> None:
        cv2.rectangle(self.picture, (x0, y0), (x1, y1), colour, -1)

    def disc(self, x: int, y: int, rx: int, ry: int, colour: Colour) -> None:
        cv2.ellipse(self.picture, (x, y), (rx, ry), 0, 0, 360, colour, -1, cv2.LINE_AA)

    def shape(self, points: list[tuple[int, int]], colour: Colour) -> None:
        cv2.fillPoly(self.picture, [np.array(points, np.int32)], colour, cv2.LINE_AA)

    def glow(self, x: int, y: int, radius: int, colour: Colour, strength: float) -> None:
        yy, xx = np.mgrid[0:CANVAS, 0:CANVAS]
        weight = strength * np.exp(-(((xx - x) ** 2 + (yy - y) ** 2) / radius**2))[..., None]
        lit = self.picture + (np.array(colour, float) - self.picture * 0.35) * weight
        self.picture = np.clip(lit, 0, 255).astype(np.uint8)

    def floor(self, y: int, colour: Colour) -> None:
        self.box(0, y, CANVAS, CANVAS, colour)

    def plant(self, x: int, y: int, size: int) -> None:
        """A pot with leaves, its rim at (x, y)."""
        pot = ((190, 124, 92), (222, 216, 206), (110, 116, 122))[self.between(0, 3)]
        half, foot, base = size // 5, size * 3 // 20, y + size // 2
        self.shape([(x - half, y), (x + half, y), (x + foot, base), (x - foot, base)], pot)
        for _ in range(22):
            angle = self.rng.uniform(0.12, 0.88) * np.pi
            length = self.rng.uniform(0.5, 1.0) * size
            tip = (x + int(np.cos(angle) * length), y - int(np.sin(angle) * length))
            green = (self.between(70, 112), self.between(122, 158), self.between(84, 112))
            cv2.line(self.picture, (x, y), tip, green, self.between(7, 15), cv2.LINE_AA)

    def lamp(self, x: int, y: int, size: int) -> None:
        """A standing lamp with a warm shade."""
        self.box(x - 3, y, x + 3, CANVAS, (120, 112, 104))
        top, narrow = y - size * 3 // 2, size * 5 // 8
        self.shape([(x - size, y), (x + size, y), (x + narrow, top), (x - narrow, top)], (250, 234, 204))
        self.glow(x, y - size // 2, size * 3, (255, 230, 180), 0.45)

    def frame(self, x: int, y: int, w: int, h: int) -> None:
        """A framed abstract picture."""
        self.box(x, y, x + w, y + h, (96, 86, 78))
        paper = BOOKS[self.between(0, len(BOOKS))]
        self.box(x + 7, y + 7, x + w - 7, y + h - 7, (232, 226, 216))
        self.disc(x + w // 2, y + h // 2, w // 4, h // 4, paper)

    def books(self, x0: int, x1: int, y: int, height: int) -> None:
        """A row of books standing on y."""
        x = x0
        while x < x1 - 10:
            width = self.between(10, 24)
            tall = self.between(int(height * 0.55), height)
            if self.rng.random() < 0.85:
                self.box(x, y - tall, min(x + width, x1), y - 1, BOOKS[self.between(0, len(BOOKS))])
            x += width + 2

    def window(self, x: int, y: int, w: int, h: int) -> None:
        """A bright window with greenery outside."""
        self.box(x - 9, y - 9, x + w + 9, y + h + 9, (248, 247, 244))
        self.box(x, y, x + w, y + h, (228, 238, 246))
        for _ in range(26):
            px, top = self.between(x, x + w), y + h - self.between(10, max(12, h // 2))
            green = (self.between(150, 188), self.between(186, 212), self.between(150, 182))
            radius = self.between(12, 30)
            self.disc(int(np.clip(px, x + radius, x + w - radius)), top, radius, radius, green)
        self.box(x, y + h - 14, x + w, y + h, (168, 196, 160))
        self.box(x + w // 2 - 4, y, x + w // 2 + 4, y + h, (250, 250, 248))
        self.glow(x + w // 2, y + h // 2, w, (255, 252, 244), 0.30)


def _shelves(c: _Canvas) -> None:
    x0, width = c.between(-30, 40), c.between(170, 230)
    for row in range(4):
        y = 92 + row * 118
        c.books(x0 + 6, x0 + width - 8, y, 84)
        c.box(x0, y, x0 + width, y + 9, (150, 118, 92))
    c.lamp(c.between(410, 470), 210, 40)


def _window(c: _Canvas) -> None:
    c.window(c.between(300, 340), 40, 180, 280)
    c.plant(c.between(50, 110), 380, 130)


def _sofa(c: _Canvas) -> None:
    c.frame(c.between(20, 70), c.between(50, 90), c.between(90, 120), c.between(110, 150))
    c.frame(c.between(370, 400), c.between(50, 90), c.between(80, 110), c.between(110, 150))
    cloth = ((128, 146, 160), (168, 142, 124), (134, 152, 134))[c.between(0, 3)]
    light = (min(255, cloth[0] + 18), min(255, cloth[1] + 18), min(255, cloth[2] + 18))
    c.box(0, 372, CANVAS, CANVAS, cloth)
    c.box(14, 332, 240, 430, light)
    c.box(272, 332, 498, 430, light)


def _kitchen(c: _Canvas) -> None:
    for x in range(-10, 520, 132):
        c.box(x, -10, x + 124, 120, (236, 234, 228))
        c.box(x + 104, 60, x + 110, 100, (160, 154, 146))
    c.box(0, 250, CANVAS, 300, (206, 186, 160))
    c.box(0, 300, CANVAS, CANVAS, (226, 224, 218))
    for k in range(4):
        x = 60 + 120 * k + c.between(-20, 20)
        colour = BOOKS[c.between(0, len(BOOKS))]
        c.box(x, 250 - c.between(40, 72), x + c.between(20, 34), 250, colour)
    c.plant(c.between(410, 450), 232, 70)


def _office(c: _Canvas) -> None:
    c.box(0, 0, CANVAS, 300, (218, 228, 234))
    for x in range(c.between(-40, 0), 540, 128):
        c.box(x, 0, x + 8, 512, (150, 158, 164))
        c.box(x + 20, c.between(60, 150), x + 110, 300, (192, 206, 214))
    c.box(0, 296, CANVAS, 310, (150, 158, 164))
    c.box(0, 310, CANVAS, CANVAS, (204, 208, 208))
    c.plant(c.between(40, 90), 372, 150)


def _plants(c: _Canvas) -> None:
    c.floor(430, (190, 172, 150))
    for x, size in ((c.between(20, 60), 190), (c.between(120, 160), 110), (c.between(430, 480), 210)):
        c.plant(x, 400, size)
    c.frame(c.between(330, 360), 60, 90, 120)


def _curtain(c: _Canvas) -> None:
    warm = (226, 214, 198)
    for x in range(0, CANVAS, 4):
        wave = 1 + 0.055 * np.sin(x * 0.11) + 0.03 * np.sin(x * 0.043 + 1)
        c.box(x, 0, x + 4, CANVAS, tuple(int(min(255, v * wave)) for v in warm))  # type: ignore[arg-type]
    c.glow(90, 120, 260, (255, 248, 232), 0.35)
    c.lamp(c.between(420, 470), 250, 44)


def _studio(c: _Canvas) -> None:
    base = ((150, 170, 188), (188, 166, 150), (152, 176, 168), (172, 166, 190))[c.between(0, 4)]
    c.picture[:] = base
    c.glow(c.between(180, 330), 200, 300, (250, 250, 250), 0.45)


def _panels(c: _Canvas) -> None:
    """Vertical wood slats and a shelf."""
    for x in range(0, CANVAS, 26):
        c.box(x, 0, x + 19, CANVAS, (188 + c.between(-6, 6), 158 + c.between(-6, 6), 128 + c.between(-6, 6)))
        c.box(x + 19, 0, x + 26, CANVAS, (150, 122, 98))
    c.box(330, 200, CANVAS, 214, (238, 234, 228))
    c.plant(c.between(440, 480), 170, 70)
    c.books(345, 420, 200, 70)
    c.glow(110, 110, 170, (255, 240, 214), 0.35)


def _evening(c: _Canvas) -> None:
    """A dusk-blue room with round lights."""
    c.picture[:] = (c.picture * np.array([0.62, 0.68, 0.80])).astype(np.uint8)
    for _ in range(14):
        radius = c.between(12, 30)
        warm = ((250, 220, 170), (240, 236, 226), (244, 200, 160))[c.between(0, 3)]
        c.disc(c.between(0, CANVAS), c.between(0, 330), radius, radius, warm)


KINDS: dict[str, Callable[[_Canvas], None]] = {
    "shelves": _shelves,
    "window": _window,
    "sofa": _sofa,
    "kitchen": _kitchen,
    "office": _office,
    "plants": _plants,
    "curtain": _curtain,
    "studio": _studio,
    "panels": _panels,
    "evening": _evening,
}


def paint_room(kind: str, seed: int, size: int, wall: int | None = None) -> np.ndarray:
    """Room picture uint8 [size, size, 3]. Unknown kinds are a ValueError."""
    if kind not in KINDS:
        raise ValueError(f"no room {kind!r}, choose from {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(draw_room(kind, rng, wall), (0, 0), float(rng.uniform(7.0, 9.5)))
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def draw_room(kind: str, rng: np.random.Generator, wall: int | None = None) -> np.ndarray:
    """The room in sharp lines, uint8 [CANVAS, CANVAS, 3]."""
    canvas = _Canvas(rng, WALLS[int(rng.integers(len(WALLS))) if wall is None else wall % len(WALLS)])
    KINDS[kind](canvas)
    return canvas.picture


def background_points(room: np.ndarray) -> np.ndarray:
    """Twenty fixed points float32 [20, 2] of a room picture: its clearest corners, then a grid; x, y in 0..1."""
    size = room.shape[0]
    grey = cv2.cvtColor(room, cv2.COLOR_RGB2GRAY)
    found = cv2.goodFeaturesToTrack(grey, BACKGROUND_POINTS, 0.02, size / 12)
    corners = np.zeros((0, 2)) if found is None else found.reshape(-1, 2) / size
    side = np.linspace(0.06, 0.94, 5)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    return np.concatenate([corners, grid])[:BACKGROUND_POINTS].astype(np.float32)


def room_lights(seed: int) -> Lights:
    """Lights with the key a little to one side, its warmth and strength varied mildly."""
    rng = np.random.default_rng(seed + 7)
    side = -1.0 if rng.random() < 0.6 else 1.0
    warmth, strength = rng.uniform(-0.03, 0.04), rng.uniform(0.94, 1.04)
    default = Lights()
    key = tuple(float(c * strength * (1 + w)) for c, w in zip(default.key_colour, (warmth, 0, -warmth), strict=True))
    return Lights(
        key_direction=(side * float(rng.uniform(0.45, 0.7)), -0.85, float(rng.uniform(0.5, 0.7))),
        key_colour=key,  # type: ignore[arg-type]
        fill_direction=(-side * 0.95, -0.6, 0.10),
        rim_direction=(-side * 0.65, 0.75, 0.5),
    )
