"""A dressed person as one vertex array: fitted pieces, facial actions carried over, linear blend skinning.

Letters: N vertices of all parts together, A facial actions, B bones, R render vertices of a part (a vertex per
texture coordinate), T triangles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from training.synthetic.body import BodyModel
from training.synthetic.dress import Piece

MIN_WEIGHT = 0.004  # bone weights below this are dropped
RIGID_KINDS = ("hair",)  # no facial actions


@dataclass(frozen=True)
class Part:
    """One drawable surface: vertices start … start + count of the figure.

    position int64 [R]: vertex (from 0) of each render vertex; uv float32 [R, 2]; triangles int32 [T, 3] of
    render vertices.
    """

    kind: str
    start: int
    count: int
    position: np.ndarray
    uv: np.ndarray
    triangles: np.ndarray


def _triangles(faces: np.ndarray) -> np.ndarray:
    """Quads [F, 8] to triangles [T, 3, 2] of (vertex, texture index)."""
    corners = np.stack([faces[:, :4], faces[:, 4:]], axis=2)
    first, second = corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]
    proper = faces[:, 2] != faces[:, 3]
    return np.concatenate([first, second[proper]])


def _gather(vertices: np.ndarray, triangles: np.ndarray, count: int) -> sp.csr_matrix:
    """Sums over the triangles at each vertex: sparse [count, T]; vertex -1 is left out."""
    column = np.tile(np.arange(len(triangles)), 3)
    row = vertices.T.reshape(-1)
    kept = row >= 0
    return sp.csr_matrix((np.ones(kept.sum(), np.float32), (row[kept], column[kept])), shape=(count, len(triangles)))


def triangle_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted normals [T, 3] (not normalised)."""
    corners = vertices[triangles]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    out = np.empty_like(a)
    out[:, 0] = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    out[:, 1] = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    out[:, 2] = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return out


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.sqrt((vectors * vectors).sum(1, keepdims=True)) + 1e-12)


class Figure:
    """Every part of one person. `pose` moves the vertices, `normals` turns the normals after it.

    rest, rest_normals float32 [N, 3]; canonical float32 [N, 3]: the same points on the neutral body;
    base_vertex int64 [N]: base vertex of vertices taken from the base mesh, -1 for proxies.
    """

    def __init__(
        self,
        body: BodyModel,
        base: np.ndarray,
        pieces: Mapping[str, Sequence[Piece]],
        keeps: Callable[[str, np.ndarray], np.ndarray],
        adjust: Callable[[str, np.ndarray], np.ndarray],
    ) -> None:
        """base [V, 3]: rest vertices; keeps(kind, canonical [T, 3, 3]) -> bool [T] culls; adjust(kind, rest)
        corrects fitted vertices."""
        self.parts: list[Part] = []
        rest, canonical, bindings, base_vertices = [], [], [], []
        start = 0
        for kind, sources in pieces.items():
            for piece in sources:
                neutral = piece.fit(body.neutral)
                corners = _triangles(piece.faces)
                corners = corners[keeps(kind, neutral[corners[..., 0]])]
                keys, triangles = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
                used, position = np.unique(keys[:, 0], return_inverse=True)
                uv = piece.texture[keys[:, 1]].astype(np.float32)
                triangles = triangles.reshape(-1, 3).astype(np.int32)
                self.parts.append(Part(kind, start, len(used), position, uv, triangles))
                rest.append(adjust(kind, piece.fit(base)[used]))
                canonical.append(neutral[used])
                binding = piece.binding[used]
                bindings.append(binding)
                single = np.diff(binding.indptr) == 1
                base_vertices.append(np.where(single, binding.indices[binding.indptr[:-1]], -1))
                start += len(used)
        self.count = start
        self.rest = np.concatenate(rest).astype(np.float32)
        self.canonical = np.concatenate(canonical).astype(np.float32)
        self.base_vertex = np.concatenate(base_vertices)
        binding = sp.vstack(bindings).tocsr()
        self._set_weights(body, binding)
        self._set_actions(body, binding)
        self._set_normals()

    def rows(self, kind: str) -> np.ndarray:
        """Vertex indices of all parts of a kind."""
        spans = [np.arange(p.start, p.start + p.count) for p in self.parts if p.kind == kind]
        return np.concatenate(spans) if spans else np.zeros(0, np.int64)

    def _set_weights(self, body: BodyModel, binding: sp.csr_matrix) -> None:
        weights = (binding @ body.weights).tocsr()
        weights.data = np.where(weights.data < MIN_WEIGHT, 0, weights.data)  # a proxy's weights can be negative
        weights.eliminate_zeros()
        total = np.asarray(weights.sum(1)).reshape(-1)
        weights = sp.diags(1 / np.maximum(total, 1e-9)) @ weights
        self.bones = np.unique(weights.tocoo().col)
        self.weights = weights.tocsc()[:, self.bones].tocsr().astype(np.float32)

    def _set_actions(self, body: BodyModel, binding: sp.csr_matrix) -> None:
        rigid = np.zeros(self.count, bool)
        for kind in RIGID_KINDS:
            rigid[self.rows(kind)] = True
        actions = np.stack([binding @ action for action in body.actions()]).astype(np.float32)
        actions[:, rigid] = 0
        self.moved = np.nonzero(np.abs(actions).max(axis=(0, 2)) > 1e-5)[0]
        self.actions = np.ascontiguousarray(actions[:, self.moved]).reshape(len(actions), -1)

    def _set_normals(self) -> None:
        """Rest normals everywhere; the triangles whose normals are computed anew each frame."""
        triangles = np.concatenate([part.position[part.triangles] + part.start for part in self.parts])
        self.triangles = triangles
        gather = _gather(triangles, triangles, self.count)
        self.rest_normals = _normalised(gather @ triangle_normals(self.rest, triangles))
        live = np.zeros(self.count, bool)
        live[self.moved] = True
        skin = np.zeros(self.count, bool)
        skin[self.rows("skin")] = True
        live &= skin
        self._live_triangles = triangles[live[triangles].any(1) & skin[triangles].all(1)]
        self._live = np.nonzero(live)[0]
        slot = np.full(self.count, -1)
        slot[self._live] = np.arange(len(self._live))
        self._live_gather = _gather(slot[self._live_triangles], self._live_triangles, len(self._live))
        self._blend = np.zeros((self.count, 12), np.float32)

    def pose(self, rotations: np.ndarray, heads: np.ndarray, rest_heads: np.ndarray, face: np.ndarray) -> np.ndarray:
        """Vertices [N, 3] float32 for global bone rotations [B, 3, 3], bone heads [B, 3] and actions [A]."""
        bones = self.bones
        turn = rotations[bones]
        shift = heads[bones] - np.einsum("bij,bj->bi", turn, rest_heads[bones])
        matrices = np.concatenate([turn.transpose(0, 2, 1).reshape(-1, 9), shift], axis=1).astype(np.float32)
        self._blend = m = self.weights @ matrices
        v = self.rest
        active = np.nonzero(np.abs(face) > 1e-4)[0]
        if len(active):
            v = v.copy()
            v[self.moved] += (face[active].astype(np.float32) @ self.actions[active]).reshape(-1, 3)
        return m[:, 0:3] * v[:, 0:1] + m[:, 3:6] * v[:, 1:2] + m[:, 6:9] * v[:, 2:3] + m[:, 9:12]

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Normals [N, 3] of the vertices `pose` returned last: rest normals turned along, exact ones where the
        face moves. Only nearly unit: fragments normalise."""
        m, n = self._blend, self.rest_normals
        turned = m[:, 0:3] * n[:, 0:1] + m[:, 3:6] * n[:, 1:2] + m[:, 6:9] * n[:, 2:3]
        turned[self._live] = _normalised(self._live_gather @ triangle_normals(vertices, self._live_triangles))
        return turned
