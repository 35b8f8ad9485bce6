"""Draws figures with moderngl over EGL: a shadow pass, then one small program a kind of surface.

No multisampling: on a software rasteriser it costs more than rendering larger and averaging down. Pictures are
read back as uint8 RGB with row 0 on top.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import moderngl
import numpy as np
import scipy.sparse as sp

from training.synthetic import shaders
from training.synthetic.figure import Figure
from training.synthetic.room import Lights

PROGRAM_OF_KIND = {
    "skin": "skin",
    "cloth": "cloth",
    "eyes": "eyes",
    "teeth": "teeth",
    "tongue": "tongue",
    "brow": "card",
    "lash": "card",
    "hair": "hair",
}
SHADOW_KINDS = ("skin", "cloth", "hair")
OPAQUE_ORDER = ("hair", "skin", "cloth", "eyes", "teeth", "tongue")
CULLED_KINDS = ("skin", "teeth")
HAIR_SOLID = 0.62  # alpha from which hair writes depth
_ALBEDO, _SHADOW, _NORMAL = 0, 1, 2


@dataclass(frozen=True)
class Camera:
    """matrix float64 [4, 4]: world to clip; eye [3] metres."""

    matrix: np.ndarray
    eye: np.ndarray


@dataclass(frozen=True)
class Surface:
    """Textures of one part."""

    albedo: moderngl.Texture
    normal: moderngl.Texture | None = None


@dataclass(frozen=True)
class EyePose:
    """Where the eyeballs are: centres [2, 3] metres, rotations [2, 3, 3], left first."""

    centres: np.ndarray
    turns: np.ndarray


@dataclass
class Scene:
    """A figure's buffers on the device. `gather` [R] picks the figure's vertex of every render vertex."""

    figure: Figure
    surfaces: list[Surface]
    lights: Lights
    background: moderngl.Texture
    centre: np.ndarray
    shine: float
    fringe: float
    gather: np.ndarray
    dynamic: moderngl.Buffer
    arrays: list[moderngl.VertexArray]
    depth_arrays: list[moderngl.VertexArray | None]
    kinds: list[str] = field(default_factory=list)

    buffers: list[moderngl.Buffer] = field(default_factory=list)

    def release(self) -> None:
        """Free what the scene holds on the device; its surfaces belong to whoever made them."""
        arrays = [*self.arrays, *(array for array in self.depth_arrays if array is not None)]
        for resource in (*arrays, *self.buffers, self.dynamic, self.background):
            resource.release()
        self.arrays, self.depth_arrays, self.buffers = [], [], []


def unit(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    """The vector [3] at length 1."""
    v = np.asarray(vector, float)
    return v / np.linalg.norm(v)


def look_at(eye: np.ndarray, target: np.ndarray, up: Sequence[float] = (0, 0, 1)) -> np.ndarray:
    """View matrix [4, 4]."""
    forward = unit(np.asarray(target) - eye)
    right = unit(np.cross(forward, up))
    view = np.eye(4)
    view[:3, :3] = np.stack([right, np.cross(right, forward), -forward])
    view[:3, 3] = -view[:3, :3] @ eye
    return view


def perspective(fov_rad: float, near_m: float, far_m: float) -> np.ndarray:
    """Square perspective matrix [4, 4]."""
    t = 1 / np.tan(fov_rad / 2)
    a, b = (far_m + near_m) / (near_m - far_m), 2 * far_m * near_m / (near_m - far_m)
    return np.array([[t, 0, 0, 0], [0, t, 0, 0], [0, 0, a, b], [0, 0, -1, 0]])


def orthographic_towards(direction: np.ndarray, centre: np.ndarray, radius_m: float) -> np.ndarray:
    """Matrix [4, 4] of a light from `direction` that sees a ball around the centre."""
    direction = unit(direction)
    up = (0, 0, 1) if abs(direction[2]) < 0.95 else (0, 1, 0)
    box = np.diag([1 / radius_m, 1 / radius_m, -1 / 1.5, 1.0])
    box[2, 3] = -2 / 1.5
    return box @ look_at(centre + direction * 2, centre, up)


def project(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., 3] to [..., 3]: x, y in 0..1 of the picture (0, 0 top left), depth in 0..1."""
    clip = points @ matrix[:3, :3].T + matrix[:3, 3]
    w = points @ matrix[3, :3] + matrix[3, 3]
    ndc = clip / w[..., None]
    return np.stack([ndc[..., 0] * 0.5 + 0.5, 0.5 - ndc[..., 1] * 0.5, ndc[..., 2] * 0.5 + 0.5], axis=-1)


def _bytes(matrix: np.ndarray) -> bytes:
    return np.ascontiguousarray(np.asarray(matrix).T.astype("f4")).tobytes()


class Renderer:
    """One EGL context. Renders `size * supersample` and averages down to `size`."""

    def __init__(self, size: int = 256, supersample: float = 1.5, shadow_size: int = 512) -> None:
        # one core a process: takes are rendered by several processes side by side
        os.environ.setdefault("LP_NUM_THREADS", "1")
        self.size = size
        self.render_size = int(round(size * supersample))
        self.shadow_size = shadow_size
        self.context = context = moderngl.create_context(standalone=True, backend="egl")
        vertex = shaders.read("surface.vert")
        self._programs = {
            name: context.program(vertex, shaders.fragment(name, shadow_size))
            for name in shaders.FRAGMENTS
            if name != "hair_depth"
        }
        self._hair_depth = context.program(vertex, shaders.fragment("hair_depth", shadow_size))
        self._solid_depth = context.program(vertex, shaders.EMPTY_FRAGMENT)
        self._room = context.program(shaders.read("background.vert"), shaders.read("background.frag"))
        shape = (self.render_size, self.render_size)
        self._colour = context.texture(shape, 4)
        self._target = context.framebuffer([self._colour], context.depth_texture(shape))
        self._shadow = context.depth_texture((shadow_size, shadow_size))
        self._shadow.compare_func = "<="
        self._shadow.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self._shadow.repeat_x = self._shadow.repeat_y = False
        self._shadow_target = context.framebuffer(depth_attachment=self._shadow)
        triangle = context.buffer(np.array([-1, -1, 3, -1, -1, 3], "f4").tobytes())
        self._room_array = context.vertex_array(self._room, [(triangle, "2f", "position")])
        self._flat = self.texture(np.full((2, 2, 3), (128, 128, 255), np.uint8))
        self._bound: Scene | None = None
        for program in self._programs.values():
            for name, unit_index in (("albedo_map", _ALBEDO), ("shadow_map", _SHADOW), ("normal_map", _NORMAL)):
                if name in program:
                    program[name] = unit_index

    def release(self) -> None:
        """Free the context and everything in it."""
        self.context.release()

    def texture(self, picture: np.ndarray) -> moderngl.Texture:
        """Upload a picture uint8 [H, W, C], row 0 on top (v = 1), with mipmaps."""
        flipped = np.ascontiguousarray(picture[::-1])
        out = self.context.texture(picture.shape[1::-1], picture.shape[2], flipped.tobytes(), alignment=1)
        out.build_mipmaps()
        out.filter = (moderngl.LINEAR_MIPMAP_LINEAR, moderngl.LINEAR)
        return out

    def scene(
        self,
        figure: Figure,
        surfaces: Mapping[str, Sequence[Surface]],
        room: np.ndarray,
        lights: Lights,
        centre: np.ndarray,
        shine: float = 1.0,
        fringe: float = 0.0,
    ) -> Scene:
        """Buffers of a figure. `surfaces`: kind -> one Surface per part of the kind, in order; centre [3]: middle
        of what casts shadows; room: uint8 picture behind it."""
        for kind in {part.kind for part in figure.parts}:
            count = sum(part.kind == kind for part in figure.parts)
            if len(surfaces.get(kind, ())) != count:
                raise ValueError(f"{count} parts of kind {kind!r}, {len(surfaces.get(kind, ()))} surfaces")
        remaining = {kind: list(items) for kind, items in surfaces.items()}
        context = self.context
        gather = np.concatenate([part.start + part.position for part in figure.parts])
        scene = Scene(
            figure=figure,
            surfaces=[remaining[part.kind].pop(0) for part in figure.parts],
            lights=lights,
            background=self.texture(room),
            centre=centre,
            shine=shine,
            fringe=fringe,
            gather=gather,
            dynamic=context.buffer(reserve=len(gather) * 24, dynamic=True),
            arrays=[],
            depth_arrays=[],
            kinds=[part.kind for part in figure.parts],
        )
        self._make_arrays(scene, self._bake_occlusion(scene))
        return scene

    def _make_arrays(self, scene: Scene, occlusion: np.ndarray) -> None:
        """Vertex arrays of every part; all share one dynamic buffer of positions and normals."""
        context, figure, gather = self.context, scene.figure, scene.gather
        uv = np.concatenate([part.uv for part in figure.parts])
        tangents = _strand_directions(figure, scene)
        static = np.concatenate([figure.canonical[gather], uv, occlusion[gather, None], tangents], axis=1)
        static_buffer = context.buffer(static.astype("f4").tobytes())
        content = [
            (scene.dynamic, "3f 3f", "position", "normal"),
            (static_buffer, "3f 2f 1f 3f", "canonical", "uv", "occlusion", "tangent"),
        ]
        for stale in (*scene.arrays, *(a for a in scene.depth_arrays if a is not None), *scene.buffers):
            stale.release()
        scene.arrays, scene.depth_arrays, scene.buffers = [], [], [static_buffer]
        first = 0
        for part in figure.parts:
            index = context.buffer((part.triangles + first).astype("i4").tobytes())
            scene.buffers.append(index)
            program = self._programs[PROGRAM_OF_KIND[part.kind]]
            depth = self._hair_depth if part.kind == "hair" else self._solid_depth
            scene.arrays.append(context.vertex_array(program, content, index, skip_errors=True))
            casts = part.kind in SHADOW_KINDS
            scene.depth_arrays.append(
                context.vertex_array(depth, content, index, skip_errors=True) if casts else None
            )
            first += len(part.position)

    def _draw_depth(self, scene: Scene, matrix: np.ndarray, target: moderngl.Framebuffer) -> None:
        context = self.context
        target.use()
        target.clear(depth=1.0)
        context.enable(moderngl.DEPTH_TEST)
        context.disable(moderngl.BLEND)
        for program in (self._solid_depth, self._hair_depth):
            program["camera"].write(_bytes(matrix))
        if "fringe" in self._hair_depth:
            self._hair_depth["fringe"] = scene.fringe
        for array, kind, surface in zip(scene.depth_arrays, scene.kinds, scene.surfaces, strict=True):
            if array is None:
                continue
            if kind == "hair":
                context.disable(moderngl.CULL_FACE)
                surface.albedo.use(_ALBEDO)
            else:
                context.enable(moderngl.CULL_FACE)
            array.render()
        context.disable(moderngl.CULL_FACE)

    def _upload(self, scene: Scene, vertices: np.ndarray, normals: np.ndarray) -> None:
        both = np.concatenate([vertices, normals], axis=1, dtype=np.float32)
        scene.dynamic.write(both[scene.gather])

    def _bake_occlusion(self, scene: Scene, directions: int = 48, side: int = 320) -> np.ndarray:
        """Ambient occlusion [N] of the rest pose in 0..1: depth maps from all round, read back."""
        figure = scene.figure
        self._make_arrays(scene, np.ones(figure.count, np.float32))
        self._upload(scene, figure.rest, figure.rest_normals)
        depth = self.context.depth_texture((side, side))
        target = self.context.framebuffer(depth_attachment=depth)
        i = np.arange(directions) + 0.5
        z = 1 - 2 * i / directions
        around = i * 2.39996
        sphere = np.stack([np.cos(around) * np.sqrt(1 - z * z), np.sin(around) * np.sqrt(1 - z * z), z], axis=1)
        soft = np.zeros(figure.count, bool)
        soft[figure.rows("hair")] = True
        seen, total = np.zeros(figure.count), np.full(figure.count, 1e-6)
        for direction in sphere[sphere[:, 2] > -0.75]:
            matrix = orthographic_towards(direction, scene.centre, 0.55)
            self._draw_depth(scene, matrix, target)
            stored = np.frombuffer(depth.read(), "f4").reshape(side, side)
            at = project(matrix, figure.rest + figure.rest_normals * 0.006)
            column = np.clip((at[:, 0] * side).astype(int), 0, side - 1)
            row = np.clip(((1 - at[:, 1]) * side).astype(int), 0, side - 1)
            visible = at[:, 2] < stored[row, column] + 0.0035
            facing = figure.rest_normals @ direction
            hard = np.maximum(facing + 0.25, 0) * (0.6 + 0.4 * direction[2])
            weight = np.where(soft, np.maximum(facing + 0.5, 0), hard)
            seen += weight * visible
            total += weight
        target.release()
        depth.release()
        return _smoothed(0.18 + 0.82 * np.clip(seen / total, 0, 1) ** 0.8, figure.triangles, 2)

    def rebind(self) -> None:
        """Take the lights of a scene anew at its next frame."""
        self._bound = None

    def _bind(self, scene: Scene) -> None:
        """Uniforms that do not change from frame to frame."""
        if self._bound is scene:
            return
        self._bound = scene
        lights = scene.lights
        values = {
            "key_direction": unit(lights.key_direction),
            "fill_direction": unit(lights.fill_direction),
            "rim_direction": unit(lights.rim_direction),
            "key_colour": lights.key_colour,
            "fill_colour": lights.fill_colour,
            "rim_colour": lights.rim_colour,
            "ambient_top": lights.ambient_top,
            "ambient_bottom": lights.ambient_bottom,
            "exposure": 0.9,
            "shine": scene.shine,
            "fringe": scene.fringe,
            "iris_scale": 0.235,
            "depth_bias": 0.0,
        }
        for program in self._programs.values():
            for name, value in values.items():
                if name in program:
                    program[name].write(np.asarray(value, "f4").tobytes())

    def _frame_uniforms(self, camera: Camera, light: np.ndarray, head_turn: np.ndarray, eyes: EyePose) -> None:
        values = {
            "camera": _bytes(camera.matrix),
            "light": _bytes(light),
            "eye": np.asarray(camera.eye, "f4").tobytes(),
            "head_turn": _bytes(head_turn),
            "eye_centre": np.asarray(eyes.centres, "f4").tobytes(),
            "eye_turn": np.ascontiguousarray(eyes.turns.transpose(0, 2, 1).astype("f4")).tobytes(),
        }
        for program in self._programs.values():
            for name, value in values.items():
                if name in program:
                    program[name].write(value)

    def _draw_kind(self, scene: Scene, kind: str) -> None:
        if kind in CULLED_KINDS:
            self.context.enable(moderngl.CULL_FACE)
        for array, part_kind, surface in zip(scene.arrays, scene.kinds, scene.surfaces, strict=True):
            if part_kind == kind:
                surface.albedo.use(_ALBEDO)
                (surface.normal or self._flat).use(_NORMAL)
                array.render()
        self.context.disable(moderngl.CULL_FACE)

    def _hair_range(self, low: float, high: float) -> None:
        self._programs["hair"]["alpha_from"] = low
        self._programs["hair"]["alpha_to"] = high

    def draw(
        self,
        scene: Scene,
        vertices: np.ndarray,
        normals: np.ndarray,
        camera: Camera,
        head_turn: np.ndarray,
        eyes: EyePose,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One frame: picture uint8 [size, size, 3] and depth float32 [render_size, render_size], both row 0 on
        top; depth 1 is the room."""
        context = self.context
        self._bind(scene)
        self._upload(scene, vertices, normals)
        light = orthographic_towards(np.array(scene.lights.key_direction), scene.centre, 0.62)
        self._draw_depth(scene, light, self._shadow_target)
        self._frame_uniforms(camera, light, head_turn, eyes)
        self._target.use()
        self._target.clear(0, 0, 0, 1, depth=1.0)
        context.disable(moderngl.DEPTH_TEST | moderngl.BLEND)
        scene.background.use(_ALBEDO)
        self._room_array.render()
        context.enable(moderngl.DEPTH_TEST)
        self._shadow.use(_SHADOW)
        self._hair_range(HAIR_SOLID, 2.0)
        for kind in OPAQUE_ORDER:
            self._draw_kind(scene, kind)
        depth = np.frombuffer(self._target.read(components=1, attachment=-1, dtype="f4"), np.float32)
        context.blend_func = (moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA)
        context.enable(moderngl.BLEND)
        self._target.depth_mask = False
        self._programs["card"]["depth_bias"] = 0.00015
        self._draw_kind(scene, "brow")
        self._programs["card"]["depth_bias"] = 0.0
        self._draw_kind(scene, "lash")
        self._hair_range(0.0, HAIR_SOLID)
        self._draw_kind(scene, "hair")
        self._target.depth_mask = True
        context.disable(moderngl.BLEND)
        side = self.render_size
        large = np.frombuffer(self._target.read(components=3, alignment=1), np.uint8).reshape(side, side, 3)[::-1]
        picture = large if side == self.size else cv2.resize(
            large, (self.size, self.size), interpolation=cv2.INTER_AREA
        )
        return np.ascontiguousarray(picture), depth.reshape(side, side)[::-1]


def _smoothed(values: np.ndarray, triangles: np.ndarray, rounds: int) -> np.ndarray:
    """Values [N] averaged with their neighbours on the mesh."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    both = np.concatenate([edges, edges[:, ::-1]])
    near = sp.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(len(values),) * 2)
    near.data[:] = 1
    degree = np.asarray(near.sum(1)).reshape(-1) + 1
    for _ in range(rounds):
        values = (near @ values + values) / degree
    return values.astype(np.float32)


def _strand_directions(figure: Figure, scene: Scene) -> np.ndarray:
    """Direction of hair strands away from the crown, one per render vertex [R, 3]; zero on other parts."""
    out = np.zeros((len(scene.gather), 3), np.float32)
    first = 0
    for part in figure.parts:
        count = len(part.position)
        if part.kind == "hair":
            points = figure.rest[part.start + part.position]
            t = part.triangles
            e1, e2 = points[t[:, 1]] - points[t[:, 0]], points[t[:, 2]] - points[t[:, 0]]
            d1, d2 = part.uv[t[:, 1]] - part.uv[t[:, 0]], part.uv[t[:, 2]] - part.uv[t[:, 0]]
            sign = np.sign(d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1])
            direction = (e2 * d1[:, :1] - e1 * d2[:, :1]) * sign[:, None]
            total = np.zeros((count, 3))
            for corner in range(3):
                np.add.at(total, t[:, corner], direction)
            crown = np.array([0, np.percentile(points[:, 1], 60), points[:, 2].max()])
            total *= np.where((total * (points - crown)).sum(1, keepdims=True) < 0, -1, 1)
            out[first : first + count] = total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-9)
        first += count
    return out
