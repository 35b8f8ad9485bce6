"""A random person set up once, then drawn in several looks with exact labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import moderngl
import numpy as np

from models.portrait.face_mesh import load_face_mesh
from training.synthetic.dress import Piece
from training.synthetic.portraits.labels import LabelPass, LayoutLabels, vertex_shares
from training.synthetic.portraits.looks import Look, paint_backdrop
from training.synthetic.portraits.make_up import add_pattern, make_up
from training.synthetic.portraits.people import Person
from training.synthetic.portraits.props import sample_props
from training.synthetic.presenter import Framing, Presenter
from training.synthetic.renderer import Camera, EyePose, Renderer, look_at, perspective, project
from training.synthetic.rig import FramePose, turn
from training.synthetic.wardrobe import Pictures

SEEN_SLACK = 0.12  # face units that a landmark may lie behind what is drawn and still count as seen
_NEAREST_M = 0.32
_PUPIL = np.array([-0.017, -1.0, -0.047])  # where an eye's picture has it, seen from the eyeball's middle


@dataclass(frozen=True)
class Portrait:
    """A picture uint8 [S, S, 3] with its labels.

    landmarks float32 [L, 3] and irises float32 [2, 3] (the person's left first): x, y in pixels of the picture, z
    towards the viewer in pixels at the depth of the point between the eyes, 0 there; seen bool [L].
    """

    picture: np.ndarray
    landmarks: np.ndarray
    seen: np.ndarray
    irises: np.ndarray
    layout: LayoutLabels


class Studio:
    """What sitters share: a renderer and its label pass."""

    def __init__(self, size: int = 256, label_size: int = 128, supersample: float = 1.25) -> None:
        self.renderer = Renderer(size, supersample, shadow_size=384)
        self.labels = LabelPass(self.renderer)
        self.label_size = label_size

    def release(self) -> None:
        self.renderer.release()


class Sitter(Presenter):
    """A person for portraits. `assets` as for a Presenter."""

    def __init__(self, studio: Studio, person: Person, assets: Path | None = None) -> None:
        super().__init__(studio.renderer, person.identity, assets)
        self.studio, self.person = studio, person
        self._props = sample_props(self.body, person, assets)
        self._label_arrays: tuple[list[moderngl.VertexArray], moderngl.Buffer] | None = None

    def _pieces(self) -> dict[str, list[Piece]]:
        pieces = super()._pieces()
        pieces["cloth"] = [*pieces.get("cloth", ()), *(piece for piece, _ in self._props)]
        return pieces

    def _pictures(self) -> Pictures:
        pictures = super()._pictures()
        rng = self.person.generator("paint")
        skin, normal = pictures["skin"][0]
        pictures["skin"][0] = (make_up(self.body, skin, rng), normal)
        clothes = [(add_pattern(picture, rng), folds) for picture, folds in pictures.get("cloth", ())]
        pictures["cloth"] = clothes + [(picture, None) for _, picture in self._props]
        return pictures

    def _keeps(self, framing: Framing) -> Callable[[str, np.ndarray], np.ndarray]:
        return lambda kind, corners: corners[..., 2].max(1) > 0.1

    def release(self) -> None:
        """Free what the sitter holds on the device."""
        if self._label_arrays:
            for resource in (*self._label_arrays[0], self._label_arrays[1]):
                resource.release()
            self._label_arrays = None
        super().release()

    def shoot(self, look: Look) -> Portrait:
        """The picture of a look."""
        shot, rotations, heads, vertices = self.posed(FramePose(face=look.face, motion=look.motion), "head")
        renderer, index, scene = self.renderer, self.skeleton.index, shot.scene
        if self._label_arrays is None:
            self._label_arrays = self.studio.labels.arrays(scene, vertex_shares(self.skeleton, shot.figure))
        centres = np.stack([vertices[rows].mean(0) for rows in shot.eyes])
        eyes = EyePose(centres, np.stack([rotations[index["eye.L"]], rotations[index["eye.R"]]]))
        camera, axis = aim(look, centres)
        scene.lights = look.lights
        scene.background.release()
        scene.background = renderer.texture(paint_backdrop(look.room_seed, renderer.render_size))
        renderer.rebind()
        normals = shot.figure.normals(vertices)
        picture, _ = renderer.draw(scene, vertices, normals, camera, rotations[index["head"]], eyes)
        layout, depth = self.studio.labels.draw(
            scene, self._label_arrays[0], camera, axis, self.studio.label_size
        )
        rows = self._landmark_rows(shot.figure.base_vertex)
        points = np.concatenate([vertices[rows], _irises(vertices, shot.eyes, eyes)]).astype(float)
        at = project(camera.matrix, points)[:, :2] * renderer.size
        z = points @ axis[:3] + axis[3]
        placed = np.c_[at, z * look.eye_share * renderer.size].astype(np.float32)
        seen = _seen(at / renderer.size, z, depth)
        count = len(rows)
        return Portrait(picture, placed[:count], seen[:count], placed[count:], layout)

    @staticmethod
    def _landmark_rows(base_vertex: np.ndarray) -> np.ndarray:
        """Rows of the figure that hold the face mesh's vertices. The skin is its first part."""
        order = np.argsort(base_vertex, kind="stable")
        wanted = load_face_mesh().base_vertices
        found = order[np.searchsorted(base_vertex, wanted, sorter=order)]
        if not np.array_equal(base_vertex[found], wanted):
            raise ValueError("clothes hide vertices of the face")
        return found


def aim(look: Look, eyes: np.ndarray) -> tuple[Camera, np.ndarray]:
    """Camera of a look at eye centres [2, 3], and the depth axis [4] in face units."""
    middle, unit_m = eyes.mean(0), float(np.linalg.norm(eyes[0] - eyes[1]))
    half_m = unit_m / look.eye_share / 2
    distance_m = max(half_m / np.tan(look.fov_rad / 2), _NEAREST_M)
    fov_rad = 2 * np.arctan(half_m / distance_m)
    azimuth, elevation = look.azimuth_rad, look.elevation_rad
    away = np.array([np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation)])
    position = middle + distance_m * away
    roll = np.eye(4)
    roll[:3, :3] = turn((0, 0, 1), look.roll_rad)
    view = roll @ look_at(position, middle)
    lens = perspective(float(fov_rad), 0.05, 8.0)
    lens[0, 2], lens[1, 2] = 1 - 2 * look.centre[0], 2 * look.centre[1] - 1  # the eyes' middle goes to `centre`
    axis = np.append(view[2, :3], view[2, 3] + distance_m) / unit_m
    return Camera(lens @ view, position), axis


def _irises(vertices: np.ndarray, rows: tuple[np.ndarray, np.ndarray], eyes: EyePose) -> np.ndarray:
    """The middles of both irises [2, 3]."""
    middles = []
    for own, centre, turned in zip(rows, eyes.centres, eyes.turns, strict=True):
        radius = np.linalg.norm(vertices[own] - centre, axis=1).mean()
        middles.append(centre + radius * turned @ _PUPIL)
    return np.stack(middles)


def _seen(at: np.ndarray, z: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """bool [P]: inside the picture and nothing drawn clearly nearer. at [P, 2] in 0 … 1."""
    side = depth.shape[0]
    inside = ((at >= 0) & (at < 1)).all(1)
    column, row = np.clip((at * side).astype(int), 0, side - 1).T
    return inside & (z >= depth[row, column] - SEEN_SLACK)
