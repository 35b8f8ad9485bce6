"""A presenter: one identity set up once, then rendered frame by frame.

    renderer = Renderer(size=256)
    presenter = Presenter(renderer, GALLERY["maya"], assets=Path("…/makehuman"))
    frame, keypoints = presenter.render(FramePose(), framing="head")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from training.synthetic.arms import Arms
from training.synthetic.body import RestShape, load_body
from training.synthetic.dress import Piece
from training.synthetic.figure import Figure
from training.synthetic.identity import Identity
from training.synthetic.keypoints import Keypoints, finger_tips
from training.synthetic.renderer import (
    Camera,
    EyePose,
    Renderer,
    Scene,
    Surface,
    look_at,
    perspective,
)
from training.synthetic.rig import FramePose, Skeleton, torso_rotations
from training.synthetic.room import background_points, paint_room, room_lights
from training.synthetic.wardrobe import (
    FRINGE_M,
    Pictures,
    adjust_fitted,
    bare_pictures,
    bare_pieces,
    dressed_pictures,
    dressed_pieces,
    lower_teeth,
    smooth_chest,
)

Framing = Literal["head", "upper"]
FOV_RAD = np.radians(18)
LIP_OVERLAP_M = 0.0002  # shut lips press into each other by this much
BROW_GAIN, LID_GAIN = 0.6, 1.6  # brow channel -> brow actions; downward gaze (radians) -> upper lids


@dataclass
class _Shot:
    """What one framing of a presenter needs."""

    figure: Figure
    scene: Scene
    camera: Camera
    keypoints: Keypoints
    order: list[int]
    eyes: tuple[np.ndarray, np.ndarray]


class Presenter:
    """A person in a room. Set-up takes a few seconds a framing, at its first use.

    assets: folder of the CC0 MakeHuman assets (`skins`, `hair`, `clothes`, …); None gives the bare look: the
    base mesh with hair, brows and shirt as paint.
    """

    def __init__(self, renderer: Renderer, identity: Identity, assets: Path | None = None) -> None:
        self.renderer = renderer
        self.identity = identity
        self.assets = assets
        self.body = load_body()
        shape = self.body.shape(identity.phenotype, identity.slider_values(self.body.sliders))
        vertices = shape.vertices if assets is not None else smooth_chest(self.body, shape.vertices)
        self.shape = RestShape(lower_teeth(vertices), shape.heads)
        self.skeleton = Skeleton(self.body.bones, self.body.parents, self.shape.heads)
        tips = finger_tips(self.body)
        self._arms = Arms(self.skeleton, {side: shape.vertices[vertices] for side, vertices in tips.items()})
        self._action = {name: i for i, name in enumerate(self.body.action_labels)}
        self._rest_face = self._named_actions(dict(identity.rest))
        self._seal = 0.0
        self._shots: dict[str, _Shot] = {}
        self._surfaces: dict[str, list[Surface]] | None = None

    def render(self, pose: FramePose, framing: Framing = "head") -> tuple[np.ndarray, np.ndarray]:
        """Picture uint8 [S, S, 3] RGB and keypoints float32 [143, 3] (x, y in 0..1, visibility)."""
        shot, rotations, heads, vertices = self.posed(pose, framing)
        normals = shot.figure.normals(vertices)
        index = self.skeleton.index
        eyes = EyePose(
            np.stack([vertices[rows].mean(0) for rows in shot.eyes]),
            np.stack([rotations[index["eye.L"]], rotations[index["eye.R"]]]),
        )
        picture, depth = self.renderer.draw(
            shot.scene, vertices, normals, shot.camera, rotations[index["head"]], eyes
        )
        points = shot.keypoints(vertices, heads, shot.camera.matrix, depth, with_hands=framing == "upper")
        return picture, points

    def keypoints(self, pose: FramePose, framing: Framing = "head") -> np.ndarray:
        """Keypoints as `render` gives them, without drawing; visible is then whatever lies within the picture."""
        shot, _, heads, vertices = self.posed(pose, framing)
        nothing = np.ones((1, 1), np.float32)
        return shot.keypoints(vertices, heads, shot.camera.matrix, nothing, with_hands=framing == "upper")

    def posed(self, pose: FramePose, framing: Framing) -> tuple[_Shot, np.ndarray, np.ndarray, np.ndarray]:
        """The shot, and global rotations, heads of the bones and vertices of a pose in it."""
        shot = self._shots.get(framing) or self._set_up(framing)
        rotations, heads = self._bones(pose, shot, framing)
        return shot, rotations, heads, shot.figure.pose(rotations, heads, self.skeleton.heads, self.face(pose))

    def _bones(self, pose: FramePose, shot: _Shot, framing: Framing) -> tuple[np.ndarray, np.ndarray]:
        """Global rotations and heads of the bones; a head picture shows no arms, so they hang there."""
        relative = torso_rotations(pose)
        if pose.arms is None or framing == "head":
            return self.skeleton.solve(self._arms.hanging(relative), {}, shot.order)
        chest = self.skeleton.index["spine01"]
        rotations, heads = self.skeleton.solve(relative, {}, self.skeleton.needed(np.array([chest])))
        absolute, fingers = self._arms.reach(pose.arms, rotations[chest], heads[chest], relative)
        return self.skeleton.solve(relative | fingers, absolute, shot.order)

    def release(self) -> None:
        """Free what this presenter holds on the device; rendering sets it up again."""
        for shot in self._shots.values():
            shot.scene.release()
        for surfaces in (self._surfaces or {}).values():
            for surface in surfaces:
                surface.albedo.release()
                if surface.normal is not None:
                    surface.normal.release()
        self._shots, self._surfaces = {}, None

    def face(self, pose: FramePose) -> np.ndarray:
        """Facial actions [52] of a frame: its own, the resting expression, blink, brows, lids with the gaze."""
        down = pose.channel("gaze_y")
        brow = BROW_GAIN * pose.channel("brow")
        extra = self._named_actions(
            {
                "browInnerUp": brow,
                "browOuterUp": brow,
                "eyeLookDown": LID_GAIN * max(0.0, down),
                "eyeLookUp": LID_GAIN * max(0.0, -down),
            }
        )
        total = pose.face + self._rest_face + extra
        for name in ("eyeBlinkLeft", "eyeBlinkRight"):
            i = self._action[name]
            total[i] = max(total[i], pose.channel("blink"))
        total = np.clip(total, 0, 1)
        total[self._action["jawOpen"]] -= self._seal
        return total

    def _named_actions(self, values: dict[str, float]) -> np.ndarray:
        """Actions [52] by name; a name without side means both sides."""
        out = np.zeros(len(self._action))
        for name, value in values.items():
            sides = (name,) if name in self._action else (f"{name}Left", f"{name}Right")
            for side in sides:
                if side not in self._action:
                    raise ValueError(f"no facial action {name!r}")
                out[self._action[side]] += value
        return out

    def camera(self, framing: Framing) -> Camera:
        """The static camera of a framing, placed by the resting skeleton."""
        index, heads = self.skeleton.index, self.skeleton.heads
        eye = (heads[index["eye.L"]] + heads[index["eye.R"]]) / 2
        reach = eye[2] - heads[index["spine02"]][2]
        if framing == "upper":
            half, middle = 0.70 * reach, np.array([0, eye[1] + 0.08, eye[2] - 0.40 * reach])
        else:
            half, middle = 0.345 * reach, np.array([0, eye[1] + 0.08, eye[2] - 0.045 * reach])
        position = middle + np.array([0, -half / np.tan(FOV_RAD / 2), 0.03 * reach])
        return Camera(perspective(FOV_RAD, 0.2, 6.0) @ look_at(position, middle), position)

    def _set_up(self, framing: Framing) -> _Shot:
        if framing not in get_args(Framing):
            raise ValueError(f"framing is {framing!r}, expected 'head' or 'upper'")
        body, identity = self.body, self.identity
        figure = Figure(body, self.shape.vertices, self._pieces(), self._keeps(framing), adjust_fitted(identity))
        _round_hair(figure, self.skeleton)
        room = paint_room(identity.room, identity.seed, self.renderer.render_size, identity.wall)
        index = self.skeleton.index
        centre = self.shape.heads[index["neck01"]] * (0, 1, 1) - (0, 0.08, 0.06)
        scene = self.renderer.scene(
            figure,
            self._painted(),
            room,
            room_lights(identity.seed),
            centre,
            shine=0.6 if identity.dark_skin else 0.8,
            fringe=FRINGE_M.get(identity.hair or "", 0.0),
        )
        points = Keypoints(body, figure, self.skeleton, background_points(room))
        if not self._seal:
            self._seal = self._jaw_to_seal(figure, points)
        eyes = figure.rows("eyes")
        left = figure.rest[eyes, 0] > 0
        extra = [index[name] for name in ("eye.L", "eye.R", "spine02", "wrist.L", "wrist.R")]
        shot = _Shot(
            figure=figure,
            scene=scene,
            camera=self.camera(framing),
            keypoints=points,
            order=self.skeleton.needed(np.concatenate([figure.bones, extra])),
            eyes=(eyes[left], eyes[~left]),
        )
        self._shots[framing] = shot
        return shot

    def _pieces(self) -> dict[str, list[Piece]]:
        if self.assets is None:
            return bare_pieces(self.body)
        return dressed_pieces(self.body, self.identity, self.assets)

    def _pictures(self) -> Pictures:
        if self.assets is None:
            return bare_pictures(self.body, self.identity)
        return dressed_pictures(self.body, self.identity, self.assets)

    def _keeps(self, framing: Framing) -> Callable[[str, np.ndarray], np.ndarray]:
        return _keeps(framing)

    def _jaw_to_seal(self, figure: Figure, points: Keypoints) -> float:
        """How far the jaw must close beyond the mesh's own rest for these lips to touch (a share of jawOpen)."""
        index = self.skeleton.needed(figure.bones)
        rotations, heads = self.skeleton.solve({}, {}, index)
        gaps = []
        for jaw in (0.0, 0.1):
            face = self._rest_face.copy()
            face[self._action["jawOpen"]] += jaw
            vertices = figure.pose(rotations, heads, self.skeleton.heads, face)
            gaps.append(points.lip_gaps(vertices))
        return float(np.clip((gaps[0] + LIP_OVERLAP_M) / np.maximum(gaps[1] - gaps[0], 1e-4) * 0.1, 0, 0.04).max())

    def _painted(self) -> dict[str, list[Surface]]:
        """Textures on the device, shared by the framings."""
        if self._surfaces is None:
            pictures = self._pictures()
            texture = self.renderer.texture
            self._surfaces = {
                kind: [Surface(texture(a), None if n is None else texture(n)) for a, n in items]
                for kind, items in pictures.items()
            }
        return self._surfaces


def _keeps(framing: Framing):
    """Which triangles a framing can show, by their corners on the neutral body [T, 3, 3]."""
    lowest = {"skin": -0.1, "cloth": -0.22, "hair": -0.2}

    def keeps(kind: str, corners: np.ndarray) -> np.ndarray:
        top, inner = corners[..., 2].max(1), np.abs(corners[..., 0]).min(1)
        if framing == "head":
            return (top > 0.44) & (inner < 0.25)
        return top > lowest.get(kind, -1.0)

    return keeps


def _round_hair(figure: Figure, skeleton: Skeleton) -> None:
    """Hair normals: part card, part direction from the head's middle, so that cards show no hard edges."""
    rows = figure.rows("hair")
    if not len(rows):
        return
    head = skeleton.head("head")
    away = figure.rest[rows] - np.array([0, head[1] + 0.01, max(head[2] + 0.06, 0)])
    away[:, 2] = np.where(away[:, 2] < 0, away[:, 2] * 0.25, away[:, 2])
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    card = figure.rest_normals[rows]
    card = np.where((card * away).sum(1, keepdims=True) < 0, -card, card)
    mixed = 0.4 * card + 0.6 * away
    figure.rest_normals[rows] = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)

