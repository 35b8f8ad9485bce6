"""The face mesh: some hundred skin vertices that landmarks, expressions and the moved picture are stated on."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

FACE_MESH_FILE = Path(__file__).parent / "assets" / "face_mesh.safetensors"

# The 52 ARKit actions, in the order of every vector of face actions.
FACE_ACTIONS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
FACE_DIM = len(FACE_ACTIONS)
FACE_INDEX = {name: index for index, name in enumerate(FACE_ACTIONS)}


@dataclass(frozen=True)
class FaceMesh:
    """The mesh file, unpacked; arrays are read-only.

    canonical: float32 [L, 3] in face units.
    triangles: int64 [F, 3], clockwise as seen by the viewer; cut open at both eyes and between the lips.
    mirror: int64 [L], the vertex on the other side of the face (its own index on the midline).
    actions: float32 [52, L, 3], displacement of each of FACE_ACTIONS at 1 in face units, head at rest.
    base_vertices: int64 [L], the same points among the renderer's base vertices (`training.synthetic.body`).
    loops: vertices by name, each from the picture's left to its right, both ends included:
        lip_outer_upper, lip_outer_lower, lip_inner_upper, lip_inner_lower (a pair shares its corners);
        lid_upper_left, lid_lower_left, lid_upper_right, lid_lower_right (a pair shares its corners; the eye's edge);
        brow_left, brow_right; nose_base; jaw (ear to ear along the chin); nose_bridge (from the top down).
        outline is the mesh's outer edge, closed, clockwise.
    """

    canonical: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    actions: np.ndarray
    base_vertices: np.ndarray
    loops: dict[str, np.ndarray]

    @property
    def count(self) -> int:
        """L."""
        return len(self.canonical)


@functools.lru_cache(maxsize=2)
def load_face_mesh(path: Path = FACE_MESH_FILE) -> FaceMesh:
    """Read the mesh file.

    Raises:
        FileNotFoundError: if there is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no face mesh at {path}")
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        loops = json.loads(file.metadata()["loops"])
    canonical = arrays["canonical"].astype(np.float32)
    actions = arrays["actions"].astype(np.float32) * arrays["action_scales"][:, None, None]
    mesh = FaceMesh(
        canonical=canonical,
        triangles=arrays["triangles"].astype(np.int64),
        mirror=arrays["mirror"].astype(np.int64),
        actions=actions,
        base_vertices=arrays["base_vertices"].astype(np.int64),
        loops={name: np.array(vertices, np.int64) for name, vertices in loops.items()},
    )
    for array in (mesh.canonical, mesh.triangles, mesh.mirror, mesh.actions, mesh.base_vertices, *mesh.loops.values()):
        array.setflags(write=False)
    return mesh
