"""Pieces of a person: parts of the base mesh, and MakeHuman `.mhclo` proxies fitted to it.

A proxy vertex hangs on three base vertices: v = Σ w_i · base[v_i] + offset, the offset scaled by how large the
wearer is between two reference vertices per axis. MakeHuman's axes are x left, y up, z forward in decimetres;
ours (x, y, z) = (x, -z, y) in metres. The reference distance in the file is in decimetres, so the change of unit
comes with the scale.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from training.synthetic.body import BodyModel

_AXIS = (0, 2, 1)  # MakeHuman axis -> ours (the sign does not matter for a distance)


@dataclass(frozen=True)
class Piece:
    """One textured surface that follows the base mesh.

    faces int64 [F, 8]: 4 of the piece's n vertices (a triangle repeats the last), 4 texture indices;
    texture float32 [T, 2], v upwards; binding sparse [n, V]; offset [n, 3] in MakeHuman axes;
    references: per MakeHuman axis (vertex a, vertex b, distance); hidden bool [V]: base vertices it covers.
    """

    faces: np.ndarray
    texture: np.ndarray
    binding: sp.csr_matrix
    offset: np.ndarray
    references: tuple[tuple[int, int, float], ...] = ()
    hidden: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def fit(self, base: np.ndarray) -> np.ndarray:
        """Vertices [n, 3] on the base [V, 3], float64 metres."""
        vertices = self.binding @ base
        if self.references:
            scale = np.array(
                [abs(base[a] - base[b])[_AXIS[k]] / size for k, (a, b, size) in enumerate(self.references)]
            )
            x, y, z = (self.offset * scale).T
            vertices = vertices + np.stack([x, -z, y], axis=1)
        return vertices


def base_piece(body: BodyModel, groups: tuple[str, ...], hidden: np.ndarray | None = None) -> Piece:
    """Face groups of the base mesh as a piece; faces whose vertices are all in `hidden` [V] are left out."""
    faces = np.concatenate([body.faces[name] for name in groups])
    if hidden is not None and len(hidden):
        faces = faces[~hidden[faces[:, :4]].all(1)]
    used, local = np.unique(faces[:, :4], return_inverse=True)
    count = len(used)
    binding = sp.csr_matrix((np.ones(count), (np.arange(count), used)), shape=(count, len(body.mean)))
    return Piece(
        faces=np.concatenate([local.reshape(-1, 4), faces[:, 4:]], axis=1),
        texture=body.texture,
        binding=binding,
        offset=np.zeros((count, 3)),
    )


@functools.lru_cache(maxsize=64)
def load_proxy(folder: Path, name: str, vertex_count: int) -> Piece:
    """Read `folder/name.mhclo` and `.obj`. Raises FileNotFoundError, or ValueError if the two do not agree."""
    rows, references, hidden = _read_binding(folder / f"{name}.mhclo", vertex_count)
    faces, texture, count = _read_mesh(folder / f"{name}.obj")
    if count != len(rows):
        raise ValueError(f"{folder / name}: {count} vertices in the mesh, {len(rows)} in the binding")
    i = np.repeat(np.arange(count), 3)
    binding = sp.csr_matrix(
        (rows[:, 3:6].reshape(-1), (i, rows[:, :3].astype(np.int64).reshape(-1))), shape=(count, vertex_count)
    )
    return Piece(faces, texture, binding, rows[:, 6:9], references, hidden)


def _read_binding(path: Path, vertex_count: int) -> tuple[np.ndarray, tuple, np.ndarray]:
    """`.mhclo` -> rows [n, 9] (3 indices, 3 weights, 3 offsets), references per axis, hidden [V]."""
    rows: list[list[float]] = []
    references: dict[str, tuple[int, int, float]] = {}
    hidden = np.zeros(vertex_count, bool)
    section = ""
    for line in path.read_text(encoding="utf8", errors="ignore").splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] in ("verts", "delete_verts"):
            section = words[0]
        elif words[0] in ("x_scale", "y_scale", "z_scale"):
            references[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
        elif not words[0].isdigit():
            continue  # names, tags and materials may stand between the rows
        elif section == "verts":
            if len(words) == 1:
                rows.append([int(words[0]), 0, 0, 1.0, 0, 0, 0, 0, 0])
            else:
                rows.append([float(word) for word in words[:9]])
        elif section == "delete_verts":
            for span in " ".join(words).replace(" - ", "-").split():
                first, _, last = span.partition("-")
                hidden[int(first) : int(last or first) + 1] = True
    if set(references) != set("xyz"):
        raise ValueError(f"{path}: scale references for axes {sorted(references)}, expected x, y and z")
    return np.array(rows), tuple(references[axis] for axis in "xyz"), hidden


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """`.obj` -> faces [F, 8], texture [T, 2], vertex count."""
    texture: list[list[float]] = []
    faces: list[list[int]] = []
    count = 0
    for line in path.read_text(encoding="utf8", errors="ignore").splitlines():
        if line.startswith("v "):
            count += 1
        elif line.startswith("vt "):
            texture.append([float(word) for word in line.split()[1:3]])
        elif line.startswith("f "):
            corners = [[int(x) - 1 for x in word.split("/")[:2]] for word in line.split()[1:]]
            corners += [corners[-1]] * (4 - len(corners))
            faces.append([c[0] for c in corners] + [c[1] for c in corners])
    return np.array(faces, np.int64), np.array(texture, np.float32), count
