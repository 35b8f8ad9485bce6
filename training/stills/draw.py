"""Draws one figure of `training.stills.figure` with Blender's path tracer. Needs `bpy` 4.5 and nothing of this project.

python training/stills/draw.py FOLDER/NAME.npz OUT.png [--size 1024] [--samples 32]

Axes: x to the person's left, y backwards, z up, metres; the camera stands at negative y.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import bpy  # it brings the two modules below
import numpy as np

# isort: split
import bmesh
from mathutils import Vector

sys.path.insert(0, str(Path(__file__).parent))

import rooms  # noqa: E402
from nodes import srgb_to_linear, surface  # noqa: E402

IRIS_UV, IRIS_SCALE = (0.7128, 0.7158), 0.235  # of MakeHuman's eye pictures, as in shaders/eye.frag
STRAND_RADIUS_M = 0.00010


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a figure with Cycles.")
    parser.add_argument("figure", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    scene = json.loads(arguments.figure.with_suffix(".json").read_text())
    bpy.ops.wm.read_factory_settings(use_empty=True)
    set_up(scene, arguments)
    with np.load(arguments.figure) as arrays:
        for number, kind in enumerate(arrays["kinds"]):
            if kind != "eyes":
                add_part(str(kind), number, arrays, scene)
        eyes = image(arrays[f"albedo.{list(arrays['kinds']).index('eyes')}"], "eyes")
        for centre, radius, turn in zip(
            arrays["eye_centres"], arrays["eye_radius"], arrays["eye_turns"], strict=True
        ):
            add_eye(centre, 0.985 * float(radius), turn, eyes, scene["eye_gain"])
        add_strands(arrays["strands"], scene["hair_colour"])
        middle = arrays["eye_centres"].mean(axis=0)
    rooms.add_room(scene)
    add_lights(middle, scene)
    add_camera(middle, scene)
    bpy.context.scene.render.filepath = str(arguments.out.resolve())
    bpy.ops.render.render(write_still=True)


def set_up(scene: dict[str, Any], arguments: argparse.Namespace) -> None:
    """The renderer, its film and the light of the sky."""
    blender = bpy.context.scene
    blender.render.engine = "CYCLES"
    cycles = blender.cycles
    cycles.samples, cycles.use_denoising = arguments.samples, True
    cycles.max_bounces, cycles.transparent_max_bounces = 6, 24
    cycles.caustics_reflective = cycles.caustics_refractive = False
    blender.render.threads_mode, blender.render.threads = "FIXED", arguments.threads
    blender.render.resolution_x = blender.render.resolution_y = arguments.size
    blender.render.image_settings.file_format = "PNG"
    blender.view_settings.view_transform, blender.view_settings.look = "AgX", "AgX - Medium High Contrast"
    blender.view_settings.exposure = scene["exposure"]
    blender.world = bpy.data.worlds.new("sky")
    blender.world.use_nodes = True
    sky = blender.world.node_tree.nodes["Background"].inputs
    sky[0].default_value, sky[1].default_value = (0.75, 0.82, 0.9, 1), scene["sky"]


def image(picture: np.ndarray, name: str, is_colour: bool = True) -> Any:
    """A picture uint8 [H, W, C], row 0 on top, as Blender's."""
    height, width, channels = picture.shape
    pixels = np.ones((height, width, 4), np.float32)
    pixels[..., :channels] = picture / 255
    made = bpy.data.images.new(name, width, height, alpha=True)
    made.colorspace_settings.name = "sRGB" if is_colour else "Non-Color"
    made.alpha_mode = "CHANNEL_PACKED"
    made.pixels.foreach_set(np.ascontiguousarray(pixels[::-1]).ravel())
    made.update()
    return made


def add_object(name: str, content: Any, material: Any) -> Any:
    """A mesh or curves in the scene."""
    content.materials.append(material)
    made = bpy.data.objects.new(name, content)
    bpy.context.scene.collection.objects.link(made)
    return made


def add_part(kind: str, number: int, arrays: Any, scene: dict[str, Any]) -> None:
    """A surface of the figure with its material."""
    mesh = bpy.data.meshes.new(kind)
    mesh.from_pydata(arrays[f"vertices.{number}"].tolist(), [], arrays[f"triangles.{number}"].tolist())
    mesh.uv_layers.new().data.foreach_set("uv", arrays[f"uv.{number}"].astype(np.float32).ravel())
    normal = image(arrays[f"normal.{number}"], "normal", False) if f"normal.{number}" in arrays else None
    made = add_object(kind, mesh, surface(kind, image(arrays[f"albedo.{number}"], kind), normal, scene))
    if kind in ("skin", "cloth"):  # quads, so that subdividing keeps the edge loops of lids and lips
        cage = bmesh.new()
        cage.from_mesh(mesh)
        bmesh.ops.join_triangles(
            cage, faces=cage.faces, angle_face_threshold=0.7, angle_shape_threshold=1.4, cmp_uvs=True
        )
        cage.to_mesh(mesh)
        cage.free()
        smooth = made.modifiers.new("smooth", "SUBSURF")
        smooth.levels = smooth.render_levels = 2
    mesh.shade_smooth()


def add_eye(centre: np.ndarray, radius: float, turn: np.ndarray, picture: Any, gain: float) -> None:
    """An eyeball, a little hollow at the iris, and a wet cornea over it."""
    ball = surface("eye", picture, None, {"eye_gain": gain})
    for is_cornea, material in ((False, ball), (True, surface("cornea", None, None, {}))):
        shape = bmesh.new()
        bmesh.ops.create_uvsphere(shape, u_segments=96, v_segments=64, radius=1.0)
        bmesh.ops.recalc_face_normals(shape, faces=shape.faces)
        mesh = bpy.data.meshes.new("eye")
        shape.to_mesh(mesh)
        shape.free()
        at = np.empty(3 * len(mesh.vertices), np.float32)
        mesh.vertices.foreach_get("co", at)
        at = at.reshape(-1, 3) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32).T  # poles along y
        angle = np.arccos(np.clip(-at[:, 1], -1, 1))
        bulge = 1.012 + 0.075 * np.clip(1 - (angle / 0.5) ** 2, 0, 1) if is_cornea else 1 - 0.035 * np.exp(
            -((angle / 0.36) ** 4)
        )
        side = at[:, [0, 2]] / np.maximum(np.linalg.norm(at[:, [0, 2]], axis=1, keepdims=True), 1e-6)
        uv = np.array(IRIS_UV) + side * angle[:, None] * IRIS_SCALE
        placed = at * bulge[:, None] * radius @ turn.T + centre
        mesh.vertices.foreach_set("co", placed.astype(np.float32).ravel())
        corners = np.empty(len(mesh.loops), np.int32)
        mesh.loops.foreach_get("vertex_index", corners)
        mesh.uv_layers.new().data.foreach_set("uv", uv[corners].astype(np.float32).ravel())
        mesh.shade_smooth()
        add_object("eye", mesh, material)


def add_strands(strands: np.ndarray, colour: list[float]) -> None:
    """Strands [S, K, 3] that thin out towards their tips."""
    count, points = strands.shape[:2]
    curves = bpy.data.hair_curves.new("strands")
    curves.add_curves([points] * count)
    curves.attributes["position"].data.foreach_set("vector", strands.astype(np.float32).ravel())
    radius = np.tile(np.linspace(1, 0.35, points) ** 0.7, count).astype(np.float32) * STRAND_RADIUS_M
    curves.attributes.new("radius", "FLOAT", "POINT").data.foreach_set("value", radius)
    add_object("strands", curves, surface("strands", None, None, {"hair_colour": srgb_to_linear(colour)}))


def look_from(made: Any, place: np.ndarray, target: np.ndarray) -> None:
    made.location = place
    made.rotation_euler = (Vector(target) - Vector(place)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(made)


def add_lights(eyes: np.ndarray, scene: dict[str, Any]) -> None:
    """A warm key from one side, a cool fill from the other, a rim from behind, one on the room."""
    side = scene["key_side"]
    wall = np.array([0, rooms.WALL_Y_M, 0.9])
    for place, size, watts, colour, target in (
        ((1.1 * side, -1.3, 1.65), 0.8, scene["key_w"], (1.0, 0.95, 0.88), eyes),
        ((-1.6 * side, -1.2, 0.9), 1.4, scene["fill_w"], (0.86, 0.93, 1.0), eyes),
        ((-1.0 * side, 1.2, 1.7), 0.6, scene["rim_w"], (1.0, 0.97, 0.92), eyes),
        ((0.0, 0.6, 2.6), 1.6, scene["room_w"], (1.0, 0.98, 0.95), wall),
    ):
        lamp = bpy.data.lights.new("lamp", "AREA")
        lamp.size, lamp.energy, lamp.color = size, watts, colour
        look_from(bpy.data.objects.new("lamp", lamp), np.array(place), target)


def add_camera(eyes: np.ndarray, scene: dict[str, Any]) -> None:
    """In front of the face, focused on it."""
    camera = bpy.data.cameras.new("camera")
    target = np.array([0, eyes[1] + 0.05, eyes[2] - scene["eyes_up_m"]])
    place = target + np.array([0, -scene["distance_m"], 0.02])
    camera.angle = 2 * math.atan(scene["half_height_m"] / scene["distance_m"])
    camera.dof.use_dof, camera.dof.aperture_fstop = True, scene["f_stop"]
    camera.dof.focus_distance = float(np.linalg.norm(place - eyes)) - 0.01
    made = bpy.data.objects.new("camera", camera)
    look_from(made, place, target)
    bpy.context.scene.camera = made


if __name__ == "__main__":
    main()
