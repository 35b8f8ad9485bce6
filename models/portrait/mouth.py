"""The inside of a mouth: cavity, tongue and two rows of teeth behind the lips.

The rows lie on a cylinder that turns with the head; the upper one is fixed to the skull, the lower one to the jaw.
They were cut from the project's own synthetic mouth (`training.synthetic.teeth`) and take the picture's light and tint.
A picture that shows teeth keeps its own upper row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file

from models.portrait.face_mesh import FaceMesh
from models.portrait.patch import Patch, smooth, soft_polygon
from models.portrait.raster import rasterise

TEETH_FILE = Path(__file__).parent / "assets" / "teeth.safetensors"
_COLUMNS = 17  # of the mesh that a row of teeth is bent by
_ARCH, _INSET = 0.55, 0.05  # lip widths: radius of the dental arch, its front behind the lips
_CAVITY, _TONGUE = np.array([34.0, 13, 16]), np.array([98.0, 40, 44])
_TINT = np.array([1.04, 0.97, 0.88])
_UPPER_GAIN, _LOWER_GAIN = 1.02, 0.85
_SHUT, _OPEN = 0.035, 0.09  # lip widths of opening between which the inside comes into sight
_CORNER_SHUT, _CORNER_OPEN = 0.015, 0.07  # the same for one place between the lips
_SHOWS_TEETH = 0.12  # lip widths of opening in the picture


@dataclass(frozen=True)
class Teeth:
    """Two rows of teeth, uint8 [h, w, 4] RGB and cover; anchors [2], where the resting upper lip's edge lies in them;
    width of the lips in their pixels, and the colour [3] of the skin that they were lit with."""

    upper: np.ndarray
    lower: np.ndarray
    upper_anchor: np.ndarray
    lower_anchor: np.ndarray
    lip_width: float
    skin: np.ndarray


@functools.cache
def load_teeth() -> Teeth:
    """The rows that come with the package."""
    arrays = load_file(TEETH_FILE)
    return Teeth(**{**arrays, "lip_width": float(arrays["lip_width"][0])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """One row of teeth as it lies in a face at rest.

    colour: float32 [h, w, 4], premultiplied, lit as the picture is. points: float32 [2·17, 3], its mesh in the picture,
    pixels. places: float32 [2·17, 2], where the points lie in `colour`. triangles: int32.
    """

    colour: np.ndarray
    points: np.ndarray
    places: np.ndarray
    triangles: np.ndarray


@dataclass(frozen=True)
class Mouth:
    """The mouth of one picture.

    upper, lower: vertices of the inner lips from the picture's left to its right. chin: vertices that go with the jaw.
    middle: [3], between the lips at rest; axes: [3, 3], columns to the face's right, down, towards the viewer.
    rows: lower teeth, upper teeth. light: [3], gain of colours. lip_line: [3], darkest colour between the lips.
    """

    upper: np.ndarray
    lower: np.ndarray
    chin: np.ndarray
    middle: np.ndarray
    axes: np.ndarray
    lip_width: float
    rows: tuple[Row, Row]
    light: np.ndarray
    lip_line: np.ndarray


def find_mouth(picture: np.ndarray, mesh: FaceMesh, landmarks: np.ndarray, axes: np.ndarray, whites: float) -> Mouth:
    """The mouth of a picture uint8 [H, W, 3].

    Args:
        landmarks: float32 [L, 3].
        axes: [3, 3], of the face.
        whites: how bright the whites of its eyes are, 0 … 255.
    """
    upper, lower = mesh.loops["lip_inner_upper"], mesh.loops["lip_inner_lower"]
    jaw = mesh.loops["jaw"]
    middle = (landmarks[upper[len(upper) // 2]] + landmarks[lower[len(lower) // 2]]) / 2
    width = float(np.linalg.norm(landmarks[upper[-1]] - landmarks[upper[0]]))
    teeth = load_teeth()
    skin = _skin(picture, mesh, landmarks)
    tint = skin / skin.mean() / (teeth.skin / teeth.skin.mean())
    light = np.clip(0.5 * whites + 0.5 * skin.mean(), 60, 205) / 165 * np.sqrt(tint) * _TINT
    lower_row = _row(teeth.lower, teeth.lower_anchor, teeth.lip_width, width, middle, axes, light * _LOWER_GAIN)
    if opening(upper, lower, landmarks, width) > _SHOWS_TEETH:
        upper_row = _own_row(picture, landmarks[np.concatenate([upper, lower[::-1]])], middle)
    else:
        upper_row = _row(teeth.upper, teeth.upper_anchor, teeth.lip_width, width, middle, axes, light * _UPPER_GAIN)
    rows = (lower_row, upper_row)
    return Mouth(
        upper, lower, jaw[len(jaw) // 2 - 1 : len(jaw) // 2 + 2], middle, axes, width, rows, light,
        _lip_line(picture, landmarks[upper], landmarks[lower]),
    )  # fmt: skip


def _skin(picture: np.ndarray, mesh: FaceMesh, landmarks: np.ndarray) -> np.ndarray:
    """Colour [3] of the cheeks, beside the nose and under the eyes."""
    wanted = np.array([[side * x, y] for side in (-1, 1) for x, y in ((0.55, 0.55), (0.7, 0.8), (0.45, 0.75))])
    distance = np.linalg.norm(mesh.canonical[None, :, :2] - wanted[:, None], axis=2)
    at = landmarks[distance.argmin(1), :2].round().astype(int)
    height, width = picture.shape[:2]
    colours = [picture[y, x] for x, y in at if 0 <= x < width and 0 <= y < height]
    return np.median(colours, axis=0) if colours else np.array([180.0, 140, 120])


def _lip_line(picture: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Darkest colour [3] between the lips."""
    steps = np.linspace(0.2, 0.8, 9)
    line = [(upper[int(s * (len(upper) - 1)), :2] + lower[int(s * (len(lower) - 1)), :2]) / 2 for s in steps]
    at = np.clip(np.round(line).astype(int), 0, np.array(picture.shape[1::-1]) - 1)
    return picture[at[:, 1], at[:, 0]].min(0).astype(np.float32)


def _row(
    colour: np.ndarray, anchor: np.ndarray, tile_width: float, width: float, middle: np.ndarray, axes: np.ndarray,
    gain: np.ndarray,
) -> Row:  # fmt: skip
    """A row of teeth bent behind lips that are `width` pixels wide."""
    height, columns = colour.shape[:2]
    x, y = np.meshgrid(np.linspace(0, columns - 1, _COLUMNS), [0.0, height - 1.0])
    places = np.stack([x, y], axis=-1).reshape(-1, 2)
    across = (places - anchor) / tile_width
    depth = _ARCH - np.sqrt(np.maximum(_ARCH**2 - np.minimum(np.abs(across[:, 0]), _ARCH - 0.01) ** 2, 0))
    offset = np.stack([across[:, 0], across[:, 1], -(_INSET + depth)], axis=1) * width
    first = np.arange(_COLUMNS - 1)
    corners = ((0, 1, _COLUMNS), (1, _COLUMNS + 1, _COLUMNS))
    triangles = np.concatenate([np.stack([first + corner for corner in three], 1) for three in corners])
    lit = colour.astype(np.float32)
    cover = lit[..., 3:] / 255
    lit = np.concatenate([lit[..., :3] * gain * cover, cover], axis=2)
    sharper = tile_width / width
    if sharper > 1.4:  # more pixels than are shown
        lit = cv2.GaussianBlur(lit, (0, 0), 0.35 * sharper)
    return Row(lit.astype(np.float32), (middle + offset @ axes.T).astype(np.float32), places.astype(np.float32),
               triangles.astype(np.int32))  # fmt: skip


def _own_row(picture: np.ndarray, lips: np.ndarray, middle: np.ndarray) -> Row:
    """What a picture shows between its lips [P, 3], as a row of teeth that is fixed to the skull."""
    patch = Patch.around(lips[:, :2], 3, picture.shape[:2])
    cover = soft_polygon(lips[:, :2], patch, 1.5)[..., None]
    colour = np.concatenate([patch.of(picture) * cover, cover], axis=2).astype(np.float32)
    height, width = patch.shape
    x, y = np.meshgrid([0.0, width - 1.0], [0.0, height - 1.0])
    places = np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)
    points = np.concatenate([places + patch.origin, np.full((4, 1), middle[2])], axis=1).astype(np.float32)
    return Row(colour, points, places, np.array([[0, 1, 2], [1, 3, 2]], np.int32))


def opening(upper_lip: np.ndarray, lower_lip: np.ndarray, points: np.ndarray, lip_width: float) -> float:
    """How far lips (vertices of their edges) are apart among points [≥ L, ≥ 2], in lip widths."""
    upper, lower = points[upper_lip, :2], points[lower_lip, :2]
    places = np.linspace(0.2, 0.8, 7)
    above, below = (
        np.stack([np.interp(places, np.linspace(0, 1, len(line)), line[:, axis]) for axis in (0, 1)], axis=1)
        for line in (upper, lower)
    )
    return float(np.linalg.norm(below - above, axis=1).max()) / lip_width


def draw_mouth(
    frame: np.ndarray,
    mouth: Mouth,
    points: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
    jaw: np.ndarray,
    turn: np.ndarray,
) -> None:
    """Draw the inside of the mouth into a frame uint8 [H, W, 3].

    Args:
        points: [≥ L, ≥ 2], the moved landmarks.
        rows: [34, 3] of lower and upper teeth, their points moved with jaw and head.
        jaw: [2], where the middle of the lips goes when it is fixed to the jaw, pixels.
        turn: [2, 2], the face's axes across and down in the frame, columns, of unit length.
    """
    strength = float(smooth(opening(mouth.upper, mouth.lower, points, mouth.lip_width), _SHUT, _OPEN))
    if strength <= 0:
        return
    upper, lower = points[mouth.upper, :2], points[mouth.lower, :2]
    ring = np.concatenate([upper, lower[::-1]])
    patch = Patch.around(ring, 6, frame.shape[:2])
    x, y = patch.pixels()
    apart = np.interp(x[0], lower[:, 0], lower[:, 1]) - np.interp(x[0], upper[:, 0], upper[:, 1])
    parted = smooth(apart / mouth.lip_width, _CORNER_SHUT, _CORNER_OPEN)  # at the corners lips touch
    cover = soft_polygon(ring, patch, 0.8) * (strength * parted)
    inner = _cavity(mouth, x, y, jaw, turn)
    for row, moved in zip(mouth.rows, rows, strict=True):
        drawn = _bent(row, moved, patch)
        inner = drawn[..., :3] + (1 - drawn[..., 3:]) * inner
    inner *= _shade(mouth, upper, x, y)[..., None]
    into = patch.of(frame)
    mixed = into + cover[..., None] * (inner - into)
    into[:] = mixed.clip(0, 255).astype(np.uint8)


def _cavity(mouth: Mouth, x: np.ndarray, y: np.ndarray, jaw: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Darkness and tongue, float32 [h, w, 3]."""
    dark = 0.4 * _CAVITY * mouth.light + 0.6 * np.minimum(0.7 * mouth.lip_line, 80)
    tongue = jaw + turn[:, 1] * (0.06 * mouth.lip_width)
    across = (x - tongue[0]) * turn[0, 0] + (y - tongue[1]) * turn[1, 0]
    down = (x - tongue[0]) * turn[0, 1] + (y - tongue[1]) * turn[1, 1]
    away = np.hypot(across / (0.34 * mouth.lip_width), down / (0.17 * mouth.lip_width))
    share = (1 - smooth(away, 0.35, 1.25))[..., None]
    return (dark + share * (_TONGUE * mouth.light - dark)).astype(np.float32)


def _bent(row: Row, moved: np.ndarray, patch: Patch) -> np.ndarray:
    """A row of teeth in a patch, float32 [h, w, 4], premultiplied."""
    points = moved.copy()
    points[:, :2] -= patch.origin
    outside = np.full((*patch.shape, 2), -9, np.float32)
    places = rasterise(points, row.places, row.triangles, outside)
    return cv2.remap(row.colour, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _shade(mouth: Mouth, upper: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shadow of the upper lip and towards the corners, [h, w] in 0 … 1."""
    edge = np.interp(x[0], upper[:, 0], upper[:, 1])[None]
    below = 0.65 + 0.35 * smooth((y - edge) / mouth.lip_width, -0.02, 0.09)
    half = max(abs(upper[-1, 0] - upper[0, 0]) / 2, 1.0)
    across = np.abs(x - (upper[0, 0] + upper[-1, 0]) / 2) / half
    return below * (1 - 0.35 * smooth(across, 0.5, 1.0))
