"""What is behind the presenters of the gallery: a wall, a floor, and things on them, out of focus. For `draw.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import bpy
import numpy as np
from nodes import principled

WALL_Y_M = 2.2
WOOD, FRAME = (0.48, 0.33, 0.21), (0.93, 0.92, 0.90)
BOOKS = (
    (0.45, 0.20, 0.17), (0.20, 0.27, 0.40), (0.75, 0.68, 0.55), (0.25, 0.36, 0.29), (0.55, 0.42, 0.25),
    (0.85, 0.83, 0.80),
)  # fmt: skip


def add_room(scene: dict[str, Any]) -> None:
    """Wall and floor, and what `scene["room"]` names: window, shelves, office, plants, lamp or studio (nothing)."""
    box((0, WALL_Y_M, 0.8), (7, 0.1, 5), scene["wall"])
    box((0, 0.8, -1.2), (7, 6, 0.1), (0.45, 0.36, 0.28))
    _ROOMS[scene["room"]](np.random.default_rng(scene["room_seed"]))


def box(
    centre: Sequence[float], size: Sequence[float], colour: Sequence[float] | np.ndarray, glow: float = 0.0,
    turn: Sequence[float] = (0, 0, 0),
) -> None:  # fmt: skip
    """A box of one colour (sRGB 0 … 1)."""
    bpy.ops.mesh.primitive_cube_add(size=1, location=centre, rotation=turn)
    bpy.context.object.scale = size
    bpy.context.object.data.materials.append(principled("box", colour, glow=glow))


def _window(rng: np.random.Generator) -> None:
    box((0.75, WALL_Y_M - 0.06, 1.0), (0.95, 0.04, 1.5), (0.86, 0.93, 1.0), glow=4.0)
    for x in (0.25, 0.75, 1.25):
        box((x, WALL_Y_M - 0.1, 1.0), (0.045, 0.05, 1.55), FRAME)
    for z in (0.25, 1.0, 1.75):
        box((0.75, WALL_Y_M - 0.1, z), (1.05, 0.05, 0.045), FRAME)
    for fold in range(7):
        for x, way in ((-0.05, 1), (1.5, -1)):
            place = x + 0.045 * fold * way, WALL_Y_M - 0.22 + 0.02 * (fold % 2), 0.9
            box(place, (0.04, 0.05, 2.2), (0.88, 0.84, 0.76))
    box((-0.85, WALL_Y_M - 0.3, 0.35), (0.7, 0.4, 0.08), WOOD)
    _bush(rng, -0.85, 0.62, 60)


def _shelves(rng: np.random.Generator, wood: Sequence[float] = WOOD) -> None:
    for z in np.arange(0.0, 2.2, 0.36):
        box((-0.1, WALL_Y_M - 0.15, z), (2.9, 0.26, 0.03), wood)
        x = -1.5
        while x < 1.3:
            width, height = rng.uniform(0.02, 0.055), rng.uniform(0.17, 0.29)
            if rng.random() < 0.8:
                colour = np.array(BOOKS[rng.integers(len(BOOKS))]) * rng.uniform(0.7, 1.1)
                box((x + width / 2, WALL_Y_M - 0.17, z + 0.015 + height / 2), (width * 0.95, 0.17, height), colour)
                x += width
            else:
                x += rng.uniform(0.05, 0.2)


def _office(rng: np.random.Generator) -> None:
    _shelves(rng, (0.82, 0.82, 0.80))


def _plants(rng: np.random.Generator) -> None:
    for x, z in ((-0.9, 0.2), (0.95, 0.0)):
        box((x, WALL_Y_M - 0.5, z), (0.26, 0.26, 0.3), (0.75, 0.45, 0.32))
        for _ in range(46):
            lean, length = rng.uniform(-1.3, 1.3), rng.uniform(0.25, 0.7)
            place = (
                x + math.sin(lean) * length * 0.6, WALL_Y_M - 0.5 + rng.uniform(-0.15, 0.15),
                z + 0.15 + math.cos(lean) * length * 0.8,
            )  # fmt: skip
            green = np.array((0.25, 0.47, 0.25)) * rng.uniform(0.75, 1.05)
            box(place, (0.055, 0.008, length * 0.55), green, turn=(0, lean, rng.uniform(0, 3)))
    _picture((0.2, 1.45), (0.62, 0.8), (0.86, 0.78, 0.66))
    box((0.2, WALL_Y_M - 0.11, 1.4), (0.25, 0.03, 0.35), (0.70, 0.36, 0.22))


def _lamp(rng: np.random.Generator) -> None:
    bpy.ops.mesh.primitive_cylinder_add(radius=0.17, depth=0.26, location=(0.85, WALL_Y_M - 0.4, 1.1))
    bpy.context.object.data.materials.append(principled("shade", (1.0, 0.86, 0.68), glow=5.0))
    box((0.85, WALL_Y_M - 0.4, 0.3), (0.03, 0.03, 1.5), (0.2, 0.18, 0.16))
    box((-0.6, WALL_Y_M - 0.4, 0.1), (1.6, 0.5, 0.6), (0.28, 0.33, 0.38))
    box((-0.6, WALL_Y_M - 0.2, 0.5), (1.6, 0.2, 0.5), (0.28, 0.33, 0.38))
    _picture((-0.7, 1.35), (0.7, 0.5), (0.5, 0.58, 0.6))


def _studio(rng: np.random.Generator) -> None:
    """A plain backdrop."""


def _bush(rng: np.random.Generator, x: float, z: float, leaves: int) -> None:
    for _ in range(leaves):
        way = rng.uniform(0, 2 * math.pi)
        place = (
            x + 0.18 * math.cos(way) * rng.random(), WALL_Y_M - 0.35 + 0.1 * math.sin(way), z + 0.28 * rng.random()
        )  # fmt: skip
        box(place, (0.10, 0.02, 0.05), (0.2, 0.42 * rng.uniform(0.7, 1.1), 0.2), turn=(0, 0, rng.uniform(0, 3)))


def _picture(middle: tuple[float, float], size: tuple[float, float], colour: Sequence[float]) -> None:
    """A framed picture on the wall."""
    x, z = middle
    box((x, WALL_Y_M - 0.07, z), (size[0], 0.03, size[1]), (0.12, 0.11, 0.10))
    box((x, WALL_Y_M - 0.09, z), (size[0] - 0.07, 0.03, size[1] - 0.07), colour)


_ROOMS: dict[str, Callable[[np.random.Generator], None]] = {
    "window": _window, "shelves": _shelves, "office": _office, "plants": _plants, "lamp": _lamp, "studio": _studio,
}  # fmt: skip
