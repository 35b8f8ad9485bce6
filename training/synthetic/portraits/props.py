"""What people wear besides clothes: glasses, hats, veils, beards, scarves, earrings, as surfaces built in code.

Every prop is a `Piece` on the neutral body and a picture for it; pieces count as cloth. Positions are metres on the
neutral body, x to the person's left, y backwards, z up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from training.synthetic import textures
from training.synthetic.body import BodyModel
from training.synthetic.dress import Piece, load_proxy
from training.synthetic.keypoints import find_landmarks
from training.synthetic.portraits.people import Person
from training.synthetic.textures import hairline

Prop = tuple[Piece, np.ndarray]  # a piece and its picture uint8 [H, W, 4]
Grid = tuple[np.ndarray, np.ndarray, np.ndarray]  # points [n, 3], quads [F, 4], texture [n, 2]
_SKULL = np.array([0.0, -0.05, 0.70])
_EYE = np.array([0.0305, -0.148, 0.6955])


@functools.lru_cache(maxsize=2)
def _skin(body: BodyModel) -> tuple[np.ndarray, cKDTree]:
    """Skin vertices above the chest that barely follow the face, and a tree of their neutral positions."""
    vertices = np.unique(body.faces["body"][:, :4])
    x, y, z = body.neutral[vertices].T
    is_inside = (np.abs(x) < 0.05) & (y > -0.135) & (y < -0.05) & (z > 0.6) & (z < 0.72)
    kept = vertices[(z > 0.1) & ~is_inside & (np.abs(x) < 0.25)]
    return kept, cKDTree(body.neutral[kept])


def _attached(body: BodyModel, grid: Grid, anchor: int | None = None) -> Piece:
    """A surface that hangs on the nearest skin vertices, or all of it on one."""
    points, quads, texture = grid
    kept, tree = _skin(body)
    anchors = kept[tree.query(points)[1]] if anchor is None else np.full(len(points), anchor)
    count = len(points)
    binding = sp.csr_matrix((np.ones(count), (np.arange(count), anchors)), shape=(count, len(body.mean)))
    x, y, z = (points - body.neutral[anchors]).T
    faces = np.concatenate([quads, quads], axis=1).astype(np.int64)
    return Piece(faces, texture.astype(np.float32), binding, np.stack([x, z, -y], axis=1), _references(body))


@functools.lru_cache(maxsize=2)
def _references(body: BodyModel) -> tuple[tuple[int, int, float], ...]:
    """Pairs of vertices that say how large a head is, per MakeHuman axis."""
    marks = find_landmarks(body).single.tolist()
    pairs = ((marks[0], marks[16], 0), (marks[27], marks[8], 2), (marks[30], marks[0], 1))
    return tuple((a, b, float(abs(body.neutral[a] - body.neutral[b])[axis])) for a, b, axis in pairs)


def _sheet(points: np.ndarray, is_closed: bool = False) -> Grid:
    """A grid of points [rows, columns, 3] as a surface; closed joins the last column to the first."""
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(index, -1, axis=1)
    quads = np.stack([index[:-1], right[:-1], right[1:], index[1:]], axis=-1)
    quads = quads if is_closed else quads[:, :-1]
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(1, 0, rows))
    return points.reshape(-1, 3), quads.reshape(-1, 4), np.stack([u, v], axis=-1).reshape(-1, 2)


def _tube(path: np.ndarray, radius: float, sides: int = 6) -> Grid:
    """A tube along a path [n, 3]."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    across = np.cross(along, (0.13, 0.95, 0.3))
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    up = np.cross(along, across)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)[None, :, None]
    return _sheet(path[:, None] + radius * (np.cos(angle) * across[:, None] + np.sin(angle) * up[:, None]), True)


def _joined(grids: list[Grid]) -> Grid:
    starts = np.cumsum([0, *(len(points) for points, _, _ in grids[:-1])])
    return (
        np.concatenate([points for points, _, _ in grids]),
        np.concatenate([quads + start for (_, quads, _), start in zip(grids, starts, strict=True)]),
        np.concatenate([texture for _, _, texture in grids]),
    )


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Any colour 0 … 255, mostly muted, often dark."""
    return np.clip(rng.uniform(0.02, 0.95) ** rng.uniform(1, 2.5) * np.exp(rng.normal(0, 0.25, 3)), 0.01, 1) * 255


def _cloth(rng: np.random.Generator, size: int = 128) -> np.ndarray:
    """Picture of some cloth, uint8 [size, size, 4]: plain, streaked, striped, chequered, dotted."""
    y, x = np.mgrid[0:size, 0:size] / size
    ground, second = _colour(rng), _colour(rng)
    kind, count = rng.integers(0, 6), rng.integers(4, 30)
    pattern: np.ndarray = np.zeros((size, size))
    if kind == 1:
        pattern = (x * count) % 1 < rng.uniform(0.1, 0.6)
    elif kind == 2:
        pattern = (y * count) % 1 < rng.uniform(0.1, 0.6)
    elif kind == 3:
        pattern = (((x * count) % 1 < 0.4) + ((y * count) % 1 < 0.4)) / 2
    elif kind == 4:
        pattern = ((x * count) % 1 - 0.5) ** 2 + ((y * count) % 1 - 0.5) ** 2 < 0.08
    streaks = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (0, 0), sigmaX=0.7, sigmaY=float(rng.uniform(0.7, 20)))
    shade = 1 + streaks / streaks.std() * rng.uniform(0, 0.25)
    rgb = (ground + (second - ground) * np.asarray(pattern, float)[..., None]) * shade[..., None]
    return np.dstack([np.clip(rgb, 0, 255), np.full((size, size), 255)]).astype(np.uint8)


def _glasses(body: BodyModel, rng: np.random.Generator) -> list[Prop]:
    """Rims, bridge and temples; sometimes dark lenses or a glare on clear ones."""
    half = np.array([rng.uniform(0.019, 0.028), rng.uniform(0.014, 0.025)])
    power, thickness = rng.choice([2, 2.6, 4]), float(rng.uniform(0.0006, 0.0024))
    angle = np.linspace(0, 2 * np.pi, 25)
    middle = _EYE + (rng.uniform(-0.001, 0.003), rng.uniform(-0.012, -0.004), rng.uniform(-0.006, 0.002))
    grids, lenses = [], []
    for side in (-1, 1):
        shape = np.sign([np.cos(angle), np.sin(angle)]) * np.abs([np.cos(angle), np.sin(angle)]) ** (2 / power)
        x, z = shape * half[:, None]
        rim = middle * (side, 1, 1) + np.stack([side * x, 0.006 * ((x + half[0]) / half[0] / 2) ** 2 * 2, z], axis=1)
        grids.append(_tube(rim, thickness))
        lenses.append(_sheet(np.stack([rim, np.broadcast_to(rim.mean(0), rim.shape)])))
        hinge = middle * (side, 1, 1) + (side * half[0], 0.012, half[1] * 0.3)
        grids.append(_tube(np.linspace(hinge, (side * 0.079, -0.02, 0.700), 8), thickness))
    inner = middle + (-half[0], 0, half[1] * 0.25)
    arch = np.sin(np.linspace(0, np.pi, 6))[:, None]
    bow = np.linspace(inner * (-1, 1, 1), inner, 6) - np.array([0, 0.004, -0.003]) * arch
    grids.append(_tube(bow, thickness))
    anchor = int(find_landmarks(body).single[27])
    frame = np.broadcast_to(np.append(_colour(rng), 255), (4, 4, 4)).astype(np.uint8)
    props = [(_attached(body, _joined(grids), anchor), frame)]
    look = rng.random()
    if look < 0.15:
        dark = np.broadcast_to(np.append(_colour(rng) * 0.3, 255), (4, 4, 4)).astype(np.uint8)
        props.append((_attached(body, _joined(lenses), anchor), dark))
    elif look < 0.4:
        glare = np.full((64, 64, 4), 235, np.uint8)
        y, x = np.mgrid[0:64, 0:64]
        glare[..., 3] = 255 * (np.abs((x + 0.5 * y) % 64 - rng.integers(10, 54)) < rng.integers(1, 5))
        props.append((_attached(body, _joined(lenses), anchor), glare))
    return props


def _shell(
    body: BodyModel, cover: Callable[[np.ndarray], np.ndarray], thickness: Callable[[np.ndarray], np.ndarray]
) -> Piece:
    """Skin faces that a function covers (neutral corners' mean [F, 3] -> bool), lifted away from the skull."""
    faces = body.faces["body"]
    faces = faces[cover(body.neutral[faces[:, :4]].mean(1))]
    used, local = np.unique(faces[:, :4], return_inverse=True)
    points = body.neutral[used]
    away = points - _SKULL
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    x, y, z = (away * thickness(points)[:, None]).T
    count = len(used)
    binding = sp.csr_matrix((np.ones(count), (np.arange(count), used)), shape=(count, len(body.mean)))
    faces = np.concatenate([local.reshape(-1, 4), faces[:, 4:]], axis=1).astype(np.int64)
    return Piece(faces, body.texture, binding, np.stack([x, z, -y], axis=1), _references(body))


def _cap(body: BodyModel, rng: np.random.Generator) -> list[Prop]:
    """Beanies, turbans, helmets, wigs: a shell over the scalp, smooth or lumpy."""
    edge, thick, lumps = rng.uniform(-14, 12), rng.uniform(0.008, 0.05), rng.uniform(0, 0.6)
    phase, top = rng.uniform(0, 6, 3), rng.uniform(0, 0.05) * (rng.random() < 0.5)

    def thickness(points: np.ndarray) -> np.ndarray:
        waves = np.sin(points * (60, 50, 70) + phase).sum(1) / 3
        return thick * (1 + lumps * waves) + top * np.clip((points[:, 2] - 0.74) / 0.06, 0, 1)

    piece = _shell(body, lambda at: (hairline(at) > edge) & (at[:, 2] > 0.62), thickness)
    props = [(piece, _cloth(rng))]
    if rng.random() < 0.35:  # a brim
        angle = np.linspace(-np.pi, np.pi, 33) if rng.random() < 0.5 else np.linspace(-2.4, -0.74, 17)
        height, wide = float(rng.uniform(0.725, 0.75)), float(rng.uniform(0.03, 0.10))
        inner = np.stack([0.085 * np.cos(angle), -0.05 + 0.115 * np.sin(angle), np.full(angle.shape, height)], axis=1)
        outer = inner + np.stack([wide * np.cos(angle), wide * np.sin(angle), np.full(angle.shape, -0.01)], axis=1)
        props.append((_attached(body, _sheet(np.stack([inner, outer]))), _cloth(rng)))
    return props


def _fall(body: BodyModel, rng: np.random.Generator, picture: np.ndarray) -> list[Prop]:
    """A veil, a hood or long hair: from the crown down round the head over the shoulders, open in front."""
    opening = np.radians(rng.uniform(48, 85))
    lower = rng.uniform(0.36, 0.58)
    columns = np.linspace(opening, 2 * np.pi - opening, 41)  # 0 is straight ahead
    rows = np.concatenate([np.linspace(0, 1, 12), 1 + np.linspace(0.1, 1, 10)])
    loose, wave, phase = rng.uniform(1.08, 1.45), rng.uniform(0, 0.07), rng.uniform(0, 6)
    shoulder = np.array([rng.uniform(0.10, 0.17), rng.uniform(0.07, 0.12)])
    points = np.zeros((len(rows), len(columns), 3))
    for i, row in enumerate(rows):
        around = np.pi / 2 * min(row, 1.0)
        below = max(row - 1, 0.0)
        half = loose * np.array([0.075, 0.10]) * np.sin(around) * (1 - below) + shoulder * below
        fold = 1 + wave * np.sin(columns * 9 + phase + row * 3) * min(row, 1.0)
        height = 0.70 + 0.105 * loose**0.3 * np.cos(around) if row < 1 else 0.70 + (lower - 0.70) * below
        open_ = np.where(below > 0, 1.0, np.sin(around) ** 0.5)  # at the crown it comes forward over the forehead
        angle = np.pi + (columns - np.pi) * (0.75 + 0.25 * open_)
        x, y = half[0] * fold * np.sin(angle), -0.045 - half[1] * fold * np.cos(angle)
        points[i] = np.stack([x, y, np.full(len(columns), height)], axis=1)
    return [(_attached(body, _sheet(points)), picture)]


def _neckwear(body: BodyModel, rng: np.random.Generator) -> list[Prop]:
    """Scarves, collars and ruffs."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    inner, outer = rng.uniform(0.055, 0.07), rng.uniform(0.08, 0.17)
    low, high = rng.uniform(0.50, 0.535), rng.uniform(0.54, 0.585)
    pleats, depth = rng.integers(6, 40), rng.uniform(0, 0.12)
    rows = []
    for t in np.linspace(0, 1, 7):
        bulge = np.sin(t * np.pi)
        radius = (inner + (outer - inner) * bulge**0.7) * (1 + depth * np.sin(angle * pleats) * bulge)
        height = low + (high - low) * t + 0.01 * np.cos(angle)
        rows.append(np.stack([radius * np.sin(angle), -0.02 + radius * 0.9 * np.cos(angle), height], axis=1))
    return [(_attached(body, _sheet(np.stack(rows), True)), _cloth(rng))]


@functools.lru_cache(maxsize=2)
def _beard_cover(body: BodyModel) -> np.ndarray:
    """Where beards grow, float32 [S, S] of the skin's texture."""
    return textures.beard_cover(body)


def _beard(body: BodyModel, rng: np.random.Generator, colour: tuple[float, float, float]) -> list[Prop]:
    """A full beard: the jaw's skin lifted, frayed at its edge."""
    cover = _beard_cover(body)
    size = cover.shape[0]
    uv_of = np.zeros((len(body.mean), 2))
    faces = body.faces["body"]
    uv_of[faces[:, :4]] = body.texture[faces[:, 4:]]
    column, row = np.clip((uv_of * (1, -1) + (0, 1)) * size, 0, size - 1).astype(int).T
    grown = cover[row, column]
    tree = cKDTree(body.neutral)
    length, drop = rng.uniform(0.003, 0.02), rng.uniform(0, 0.07) * (rng.random() < 0.5)

    def at(points: np.ndarray) -> np.ndarray:
        return grown[tree.query(points)[1]]

    def thickness(points: np.ndarray) -> np.ndarray:
        chin = np.clip((0.62 - points[:, 2]) / 0.03, 0, 1) * np.clip((-0.09 - points[:, 1]) / 0.03, 0, 1)
        return at(points) * (length + drop * chin)

    piece = _shell(body, lambda centres: at(centres) > 0.2, thickness)
    small = cv2.resize(cover, (512, 512), interpolation=cv2.INTER_AREA)
    noise = rng.normal(0, 1, (512, 512)).astype(np.float32)
    strands = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.8, sigmaY=3) * 3
    tint = np.clip(np.array(colour) * 255 * (0.8 + 0.3 * strands[..., None]), 0, 255)
    alpha = np.where(small + 0.18 * strands > rng.uniform(0.25, 0.5), 255, 0)
    return [(piece, np.dstack([tint, alpha]).astype(np.uint8))]


def _earrings(body: BodyModel, rng: np.random.Generator) -> list[Prop]:
    radius, hang = rng.uniform(0.003, 0.012), rng.uniform(0.0, 0.03)
    angle = np.linspace(0, 2 * np.pi, 13)
    grids = []
    for side in (-1, 1):
        middle = np.array([side * 0.077, -0.030, 0.652 - hang - radius])
        ring = middle + radius * np.stack([0.2 * np.cos(angle), np.cos(angle), np.sin(angle)], axis=1)
        grids.append(_tube(ring, radius * rng.uniform(0.15, 0.9)))
    metal = np.broadcast_to(np.append(rng.uniform(0.4, 1) * np.array([240, 220, 160]), 255), (4, 4, 4))
    return [(_attached(body, _joined(grids)), metal.astype(np.uint8))]


def sample_props(body: BodyModel, person: Person, assets: Path | None) -> list[Prop]:
    """Props of a person, often none."""
    rng, hair_colour, is_female = person.generator("props"), person.identity.hair_colour, person.identity.is_female
    props: list[Prop] = []
    if rng.random() < 0.22:
        props += _glasses(body, rng)
    if person.is_covered:
        kind = rng.random()
        if kind < 0.25 and assets is not None:
            name = str(rng.choice(["fedora", "fedora_cocked"]))
            props.append((load_proxy(assets / "clothes" / "fedora01", name, len(body.mean)), _cloth(rng)))
        elif kind < 0.7:
            props += _cap(body, rng)
        if kind >= 0.55:
            props += _fall(body, rng, _cloth(rng))
    elif rng.random() < (0.22 if is_female else 0.08):  # long hair that falls over the shoulders
        hair = _cloth(rng)
        strands = cv2.GaussianBlur(rng.normal(0, 1, (128, 128)), (0, 0), sigmaX=0.8, sigmaY=25)
        shade = np.clip(1 + 0.35 * strands / strands.std(), 0.2, 2)
        hair[..., :3] = np.clip(np.array(hair_colour) * 255 * shade[..., None], 0, 255)
        props += _fall(body, rng, hair)
    if not is_female and rng.random() < 0.25:
        props += _beard(body, rng, hair_colour)
    if rng.random() < 0.18:
        props += _neckwear(body, rng)
    if is_female and rng.random() < 0.3:
        props += _earrings(body, rng)
    return props
