"""Materials for `draw.py`, by Blender's shader nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np


def srgb_to_linear(colour: Sequence[float] | np.ndarray) -> np.ndarray:
    """sRGB 0 … 1 → linear."""
    c = np.asarray(colour, float)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


class Tree:
    """A material's nodes: made, set and linked in one call."""

    def __init__(self, name: str) -> None:
        self.material = bpy.data.materials.new(name)
        self.material.use_nodes = True
        self._tree = self.material.node_tree
        self._tree.nodes.clear()
        self._out = self._tree.nodes.new("ShaderNodeOutputMaterial")

    def node(self, kind: str, inputs: dict[str | int, Any] | None = None, **settings: Any) -> Any:
        """A node; inputs that are sockets are linked, others set."""
        made = self._tree.nodes.new(f"ShaderNode{kind}")
        for name, value in settings.items():
            setattr(made, name, value)
        for key, value in (inputs or {}).items():
            socket = made.inputs[key] if isinstance(key, int) else next(s for s in made.inputs if s.name == key)
            if isinstance(value, bpy.types.NodeSocket):
                self._tree.links.new(value, socket)
            else:
                socket.default_value = value
        return made

    def finish(self, shader: Any) -> Any:
        """The material, made of the first output of a shader."""
        self._tree.links.new(shader.outputs[0], self._out.inputs[0])
        return self.material


def principled(name: str, colour: Sequence[float] | np.ndarray, roughness: float = 0.7, glow: float = 0.0) -> Any:
    """One plain material; colour sRGB 0 … 1, glow watts a square metre or so."""
    tree = Tree(name)
    rgba = (*(float(c) for c in srgb_to_linear(colour)), 1.0)
    return tree.finish(
        tree.node(
            "BsdfPrincipled",
            {"Base Color": rgba, "Roughness": roughness, "Emission Color": rgba, "Emission Strength": glow},
        )
    )


def surface(kind: str, picture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    """Material of a part of a figure: `picture` its colours, `normal` its normal map or None."""
    tree = Tree(kind)
    texture = None if picture is None else tree.node("TexImage", image=picture, interpolation="Cubic")
    make = {
        "skin": _skin, "cloth": _cloth, "brow": _card, "lash": _card, "hair": _hair_card, "strands": _strands,
        "eye": _eye, "cornea": _cornea,
    }.get(kind, _wet)  # fmt: skip
    return tree.finish(make(tree, texture, normal, scene))


def _skin(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    """Light goes a few millimetres in; pores, blotches and uneven gloss keep it from looking like plastic."""
    at = tree.node("TexCoord").outputs["Object"]
    toned = tree.node(
        "HueSaturation", {"Color": texture.outputs[0], "Saturation": scene["saturation"], "Value": scene["value"]}
    )
    blotches = tree.node("TexNoise", {"Vector": at, "Scale": 70.0, "Detail": 6.0})
    mixed = tree.node(
        "Mix", {0: 0.35, 6: toned.outputs[0], 7: blotches.outputs[1]}, data_type="RGBA", blend_type="SOFT_LIGHT"
    )
    pores = tree.node("TexVoronoi", {"Vector": at, "Scale": 1400.0}, feature="SMOOTH_F1")
    grain = tree.node("TexNoise", {"Vector": at, "Scale": 420.0, "Detail": 5.0})
    relief = tree.node("Math", {0: pores.outputs[0], 1: grain.outputs[0]}, operation="ADD")
    bump = tree.node("Bump", {"Strength": 0.16, "Distance": 0.0006, "Height": relief.outputs[0]})
    gloss = tree.node("MapRange", {0: grain.outputs[0], 3: 0.36, 4: 0.58})
    return tree.node(
        "BsdfPrincipled",
        {
            "Base Color": mixed.outputs[2], "Roughness": gloss.outputs[0], "Normal": bump.outputs[0],
            "Subsurface Weight": 0.22, "Subsurface Scale": 0.006, "Subsurface Radius": (1.0, 0.36, 0.2),
            "Specular IOR Level": 0.45,
        },
    )  # fmt: skip


def _cloth(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    at = tree.node("TexCoord").outputs["Object"]
    folds = tree.node("TexNoise", {"Vector": at, "Scale": 14.0, "Detail": 3.0, "Distortion": 0.6})
    inputs: dict[str | int, Any] = {"Strength": 0.5, "Distance": 0.012, "Height": folds.outputs[0]}
    if normal is not None:
        sewn = tree.node("TexImage", image=normal)
        inputs["Normal"] = tree.node("NormalMap", {"Strength": 0.8, "Color": sewn.outputs[0]}).outputs[0]
    folded = tree.node("Bump", inputs)
    weave = tree.node("TexNoise", {"Vector": at, "Scale": 1200.0, "Detail": 2.0})
    woven = tree.node(
        "Bump", {"Strength": 0.35, "Distance": 0.0006, "Height": weave.outputs[0], "Normal": folded.outputs[0]}
    )
    return tree.node(
        "BsdfPrincipled",
        {
            "Base Color": texture.outputs[0], "Roughness": 0.9, "Sheen Weight": 0.25, "Specular IOR Level": 0.2,
            "Normal": woven.outputs[0],
        },
    )  # fmt: skip


def _card(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    return tree.node(
        "BsdfPrincipled",
        {
            "Base Color": texture.outputs[0], "Alpha": texture.outputs[1], "Roughness": 0.8,
            "Specular IOR Level": 0.1,
        },
    )  # fmt: skip


def _hair_card(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    """What lies under the strands: dark, and only where the texture is solid."""
    dark = tree.node("HueSaturation", {"Color": texture.outputs[0], "Value": 0.45})
    solid = tree.node("Math", {0: texture.outputs[1], 1: 0.85}, operation="GREATER_THAN")
    return tree.node(
        "BsdfPrincipled",
        {"Base Color": dark.outputs[0], "Alpha": solid.outputs[0], "Roughness": 0.7, "Specular IOR Level": 0.1},
    )


def _strands(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    """The fibre model of Chiang et al. (2016), coloured directly."""
    colour = (*(float(c) for c in scene["hair_colour"]), 1.0)
    return tree.node(
        "BsdfHairPrincipled",
        {"Color": colour, "Roughness": 0.32, "Radial Roughness": 0.4, "Random Color": 0.25, "Random Roughness": 0.2},
        parametrization="COLOR",
    )


def _eye(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    bright = tree.node("HueSaturation", {"Color": texture.outputs[0], "Value": scene["eye_gain"]})
    return tree.node(
        "BsdfPrincipled",
        {"Base Color": bright.outputs[0], "Roughness": 0.35, "Subsurface Weight": 0.1, "Subsurface Scale": 0.002},
    )


def _cornea(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    shine = tree.node("BsdfGlossy", {"Roughness": 0.02})
    clear = tree.node("BsdfTransparent")
    edge = tree.node("Fresnel", {"IOR": 1.38})
    return tree.node("MixShader", {0: edge.outputs[0], 1: clear.outputs[0], 2: shine.outputs[0]})


def _wet(tree: Tree, texture: Any, normal: Any, scene: dict[str, Any]) -> Any:
    return tree.node("BsdfPrincipled", {"Base Color": texture.outputs[0], "Roughness": 0.25})
