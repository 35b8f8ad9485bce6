"""Exact layout labels from the renderer: more passes over the posed vertices, attributes in place of colours."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import moderngl
import numpy as np

from training.synthetic import shaders
from training.synthetic.figure import Figure
from training.synthetic.renderer import CULLED_KINDS, OPAQUE_ORDER, Camera, Renderer, Scene
from training.synthetic.rig import NECK_SHARES, Skeleton

KIND_OF = {"skin": 1, "cloth": 2, "hair": 3, "eyes": 4, "teeth": 4, "tongue": 4}  # 0 is the room


@dataclass(frozen=True)
class LayoutLabels:
    """Maps [N, N] of a picture, row 0 on top.

    front, back: float32, depth of the nearest and of the farthest surface towards the viewer in face units, 0 at
    the depth of the point between the eyes; 0 where no person is.
    head, clavicle: float32 0 … 1, how far a point follows the turn of the neck and the breath of the shoulders.
    matte: float32 0 … 1, how much of the cell the person covers. kinds: uint8, `KIND_OF`, of the cell's middle.
    """

    front: np.ndarray
    back: np.ndarray
    head: np.ndarray
    clavicle: np.ndarray
    matte: np.ndarray
    kinds: np.ndarray


def vertex_shares(skeleton: Skeleton, figure: Figure) -> np.ndarray:
    """Head and clavicle share of every vertex of a figure from its skinning weights, float32 [V, 2]."""
    shares = np.zeros((len(skeleton.names), 2))
    for bone in skeleton.needed(np.arange(len(skeleton.names))):  # parents first
        name, parent = skeleton.names[bone], skeleton.parents[bone]
        shares[bone] = (NECK_SHARES.get(name, 0.0), name.startswith("clavicle"))
        if parent >= 0:
            shares[bone] += shares[parent]
    return (figure.weights @ shares[figure.bones]).astype(np.float32)


class LabelPass:
    """Draws labels of what a renderer has just drawn; one for a renderer."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer, self.side = renderer, renderer.render_size
        context = renderer.context
        defines = [f"#define KIND_{name.upper()} {KIND_OF[name]}" for name in ("hair", "cloth")]
        parts = ["#version 330", *defines, shaders.read("fringe.glsl"), shaders.read("label.frag")]
        self._program = context.program(shaders.read("label.vert"), "\n".join(parts))
        size = (self.side, self.side)
        self._colour = context.texture(size, 4, dtype="f4")
        self._target = context.framebuffer([self._colour], context.depth_texture(size))

    def arrays(self, scene: Scene, shares: np.ndarray) -> tuple[list[moderngl.VertexArray], moderngl.Buffer]:
        """Vertex arrays of a scene for this pass and the buffer that they need; whoever asked releases both."""
        figure, context = scene.figure, self.renderer.context
        uv = np.concatenate([part.uv for part in figure.parts])
        static = np.concatenate([figure.canonical[scene.gather], uv, shares[scene.gather]], axis=1).astype("f4")
        buffer = context.buffer(static.tobytes())
        content = [
            (scene.dynamic, "3f 3x4", "position"),
            (buffer, "3f 2f 2f", "canonical", "uv", "share"),
        ]
        made = [
            context.vertex_array(self._program, content, index, skip_errors=True) for index in scene.buffers[1:]
        ]
        return made, buffer

    def draw(
        self, scene: Scene, arrays: list[moderngl.VertexArray], camera: Camera, axis: np.ndarray, count: int
    ) -> tuple[LayoutLabels, np.ndarray]:
        """Labels [count, count] of the pose drawn last, and the front's depth at the rendered size [side, side].

        axis [4]: depth of a world point p is axis[:3] · p + axis[3].
        """
        self._program["axis"].value = tuple(float(v) for v in axis)
        self._program["camera"].write(np.ascontiguousarray(camera.matrix.T.astype("f4")).tobytes())
        self._program["fringe"] = scene.fringe
        front = self._pass(scene, arrays, is_front=True)
        back = self._pass(scene, arrays, is_front=False)
        return _reduced(front, back, count), np.where(front[..., 3] > 0, front[..., 0], -np.inf)

    def _pass(self, scene: Scene, arrays: list[moderngl.VertexArray], is_front: bool) -> np.ndarray:
        """float32 [side, side, 4]: depth, shares and kind of the nearest or of the farthest surface."""
        context = self.renderer.context
        self._target.use()
        self._target.clear(0, 0, 0, 0, depth=1.0 if is_front else 0.0)
        context.depth_func = "<" if is_front else ">"
        context.enable(moderngl.DEPTH_TEST)
        context.disable(moderngl.BLEND)
        for kind in OPAQUE_ORDER:
            (context.enable if is_front and kind in CULLED_KINDS else context.disable)(moderngl.CULL_FACE)
            for array, part_kind, surface in zip(arrays, scene.kinds, scene.surfaces, strict=True):
                if part_kind == kind:
                    self._program["kind"] = KIND_OF[kind]
                    surface.albedo.use(0)
                    array.render()
        context.disable(moderngl.CULL_FACE)
        context.depth_func = "<"
        return np.frombuffer(self._colour.read(), "f4").reshape(self.side, self.side, 4)[::-1]


def _reduced(front: np.ndarray, back: np.ndarray, count: int) -> LayoutLabels:
    """Passes at the rendered size to maps [count, count]; means over what a cell shows of the person."""
    seen = (front[..., 3] > 0).astype(np.float32)
    size = (count, count)
    sums = cv2.resize(np.dstack([front[..., :3], back[..., 0]]) * seen[..., None], size, interpolation=cv2.INTER_AREA)
    matte = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
    values = np.where(matte[..., None] > 0.01, sums / np.maximum(matte, 0.01)[..., None], 0)
    kinds = cv2.resize(np.ascontiguousarray(front[..., 3]), size, interpolation=cv2.INTER_NEAREST)
    depth, head, clavicle, behind = np.moveaxis(values, 2, 0)
    return LayoutLabels(depth, behind, head.clip(0, 1), clavicle.clip(0, 1), matte, kinds.astype(np.uint8))
