"""Bakes the face mesh of `models.portrait.face_mesh` from the renderer's own body.

    python -m training.synthetic.face_mesh

Its vertices are vertices of the base mesh, so that exact landmarks of any rendered face are one gather and a
projection. Rings of the base mesh around eyes and mouth are kept whole, the rest of the face is thinned out, and
what is left is joined by a Delaunay triangulation of the skin's texture coordinates, which unroll the face.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file
from scipy.spatial import Delaunay, cKDTree

from models.portrait.face_mesh import FACE_ACTIONS, FACE_INDEX, FACE_MESH_FILE
from training.synthetic.body import EYES, BodyModel, load_body
from training.synthetic.identity import sample_identity
from training.synthetic.keypoints import find_landmarks
from training.synthetic.textures import hairline

IDENTITIES = 64  # that the mean is taken over
# Edges of the base mesh that start a ring around the mouth or the left eye, and the stride that is kept of it.
# The first of each is the edge of the opening: where the lips meet, where the lid lies on the eye.
_MOUTH_RINGS = (((520, 7267), 1), ((468, 7224), 1), ((467, 7223), 1), ((455, 7214), 2))
_LEFT_EYE_RINGS = (((13368, 13370), 1), ((6787, 6786), 1), ((11515, 11514), 2))
_OUTER_LIP = 3  # of the mouth's rings: where the red ends
_SPACING_M = (0.0055, 0.014)  # of the other vertices: beside eyes and mouth, far from them


class _Skin:
    """The base mesh's skin as a graph of quads."""

    def __init__(self, body: BodyModel) -> None:
        self.body, self.neutral = body, body.neutral
        self.quads = body.faces["body"][:, :4]
        self.near: dict[int, set[int]] = defaultdict(set)
        self.faces_of: dict[frozenset[int], set[int]] = defaultdict(set)
        for index, quad in enumerate(self.quads):
            for a, b in zip(quad.tolist(), np.roll(quad, -1).tolist(), strict=True):
                self.near[a].add(b)
                self.near[b].add(a)
                self.faces_of[frozenset((a, b))].add(index)
        head = [int(v) for v in np.unique(self.quads) if self.neutral[v, 2] > 0.5]
        _, twins = cKDTree(self.neutral[head]).query(self.neutral[head] * (-1, 1, 1))
        self.mirror = {v: head[twin] for v, twin in zip(head, twins.tolist(), strict=True)}

    def ring(self, a: int, b: int) -> list[int]:
        """The closed edge loop through an edge: at every vertex it goes on where it shares no face with itself."""
        loop = [a, b]
        while True:
            before, here = loop[-2:]
            faces = self.faces_of[frozenset((before, here))]
            (onward,) = (v for v in self.near[here] if v != before and not faces & self.faces_of[frozenset((here, v))])
            if onward == a:
                return loop
            loop.append(onward)

    def mirrored(self, vertices: list[int]) -> list[int]:
        return [self.mirror[v] for v in vertices]


def _enclosed(skin: _Skin, ring: list[int]) -> set[int]:
    """Vertices inside a ring: what is reached without crossing it from its deepest neighbour."""
    deepest = max((v for v in skin.near[ring[0]] if v not in ring), key=lambda v: skin.neutral[v, 1])
    found, waiting = {*ring, deepest}, [deepest]
    while waiting:
        fresh = skin.near[waiting.pop()] - found
        found |= fresh
        waiting.extend(fresh)
    return found - set(ring)


def _face_region(skin: _Skin, hidden: set[int]) -> np.ndarray:
    """Skin vertices of the face: hairline to under the chin, ear to ear, nothing inside eyes and mouth."""
    vertices = np.array(sorted(skin.mirror.keys() - hidden))
    x, y, z = skin.neutral[vertices].T
    is_ear = (np.abs(x) > 0.058) & (y > -0.066) & (z > 0.625)
    is_face = (y < -0.045) & (z > 0.583 + 0.6 * (y + 0.14)) & (hairline(skin.neutral[vertices]) < 2)
    return vertices[is_face & ~is_ear]


def _nostrils(skin: _Skin, region: np.ndarray) -> np.ndarray:
    x, y, z = skin.neutral[region].T
    return region[(np.abs(np.abs(x) - 0.0075) < 0.006) & (np.abs(z - 0.653) < 0.008) & (y > -0.148)]


def _edge(skin: _Skin, region: np.ndarray) -> list[int]:
    """Vertices on the outer edge of the region's quads."""
    inside = skin.quads[np.isin(skin.quads, region).all(1)]
    sides: dict[frozenset[int], int] = defaultdict(int)
    for quad in inside.tolist():
        for a, b in zip(quad, quad[1:] + quad[:1], strict=True):
            sides[frozenset((a, b))] += 1
    return sorted({v for side, count in sides.items() if count == 1 for v in side})


def _thinned(skin: _Skin, region: np.ndarray, kept: list[int], features: list[int]) -> list[int]:
    """The kept vertices and more of the region, mirror pairs at a time, farthest first until all are near enough."""
    points = skin.neutral
    to_feature = np.linalg.norm(points[region][:, None] - points[features][None], axis=2).min(1)
    spacing = np.interp(to_feature, (0.004, 0.035), _SPACING_M)
    chosen = list(dict.fromkeys(kept))
    distance = np.linalg.norm(points[region][:, None] - points[chosen][None], axis=2).min(1) / spacing
    while distance.max() > 1:
        vertex = int(region[distance.argmax()])
        for fresh in dict.fromkeys((vertex, skin.mirror[vertex])):
            chosen.append(fresh)
            distance = np.minimum(distance, np.linalg.norm(points[region] - points[fresh], axis=1) / spacing)
    return chosen


def _triangulate(skin: _Skin, chosen: list[int], region: np.ndarray, holes: list[list[int]]) -> np.ndarray:
    """Triangles [F, 3] of positions in `chosen` that lie in the region, clockwise as seen from the front."""
    texture_quads = skin.body.faces["body"][:, 4:]
    uv_of = np.zeros((len(skin.neutral), 2))
    uv_of[skin.quads] = skin.body.texture[texture_quads]
    triangles = Delaunay(uv_of[chosen]).simplices
    centres = uv_of[chosen][triangles].mean(1)
    for hole in holes:
        rim = uv_of[hole].astype(np.float32)
        is_open = np.array([cv2.pointPolygonTest(rim, tuple(centre), False) > 0 for centre in centres])
        triangles, centres = triangles[~is_open], centres[~is_open]
    cover = np.zeros((4096, 4096), np.uint8)
    for quad in skin.body.texture[texture_quads[np.isin(skin.quads, region).all(1)]]:
        cv2.fillPoly(cover, [np.round(quad * 4095).astype(np.int32)], 1)
    column, row = np.round(centres * 4095).astype(int).T
    triangles = triangles[cover[row, column] > 0]
    corners = skin.neutral[chosen][triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outwards = corners.mean(1) - np.array([0, -0.05, 0.66])
    flip = (normal * outwards).sum(1) > 0  # the renderer's x runs to the picture's right, its y away from the viewer
    triangles[flip] = triangles[flip][:, ::-1]
    return triangles


def _outline(triangles: np.ndarray, holes: list[set[int]]) -> list[int]:
    """The longest closed chain of edges that have one triangle only and belong to no hole."""
    directed = {(int(t[i]), int(t[(i + 1) % 3])) for t in triangles for i in range(3)}
    onward = {a: b for a, b in directed if (b, a) not in directed and not any({a, b} <= hole for hole in holes)}
    chains = []
    while onward:
        loop = [next(iter(onward))]
        while loop[-1] in onward:
            loop.append(onward.pop(loop[-1]))
        chains.append(loop[:-1])
    return max(chains, key=len)


def _halves(skin: _Skin, ring: list[int], corners: tuple[int, int]) -> tuple[list[int], list[int]]:
    """A closed ring as its upper and lower half, each from the picture's left corner to its right one."""
    first, last = sorted(corners, key=lambda v: skin.neutral[v, 0])
    turned = ring[ring.index(first) :] + ring[: ring.index(first)]
    split = turned.index(last)
    one, other = turned[: split + 1], [first, *turned[split:][::-1]]
    return (one, other) if skin.neutral[one, 2].mean() > skin.neutral[other, 2].mean() else (other, one)


def _corners(skin: _Skin, ring: list[int]) -> tuple[int, int]:
    x = skin.neutral[ring, 0]
    return ring[int(x.argmin())], ring[int(x.argmax())]


def _mean_face(body: BodyModel, chosen: list[int], inner_lips: tuple[list[int], list[int]]) -> dict[str, np.ndarray]:
    """Canonical vertices and actions in face units, means over random identities; the mouth is shut."""
    actions = body.actions()[:, chosen]
    canonical, scales = [], []
    for seed in range(IDENTITIES):
        identity = sample_identity(seed)
        base = body.shape(identity.phenotype, identity.slider_values(body.sliders)).vertices
        eyes = base[EYES]
        centres = [eyes[eyes[:, 0] < 0].mean(0), eyes[eyes[:, 0] > 0].mean(0)]
        distance = float(np.linalg.norm(centres[1] - centres[0]))
        canonical.append((base[chosen] - np.mean(centres, axis=0)) / distance)
        scales.append(1 / distance)
    to_picture = np.array([[1, 0, 0], [0, 0, -1], [0, -1, 0]])  # x left, y backwards, z up -> x right, y down, z nearer
    mean = np.mean(canonical, axis=0) @ to_picture.T
    displacement = (actions * np.mean(scales)) @ to_picture.T
    place = {vertex: k for k, vertex in enumerate(chosen)}
    upper, lower = ([place[v] for v in half[1:-1]] for half in inner_lips)
    middle = [len(half) // 2 for half in (upper, lower)]
    gap = mean[lower[middle[1]], 1] - mean[upper[middle[0]], 1]
    jaw = displacement[FACE_INDEX["jawOpen"]]
    mean = mean - jaw * gap / (jaw[lower[middle[1]], 1] - jaw[upper[middle[0]], 1])
    return {"canonical": mean.astype(np.float32), "actions": displacement}


def make_face_mesh(body: BodyModel) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Arrays and loops of the mesh file."""
    skin = _Skin(body)
    mouth = [skin.ring(*edge) for edge, _ in _MOUTH_RINGS]
    left = [skin.ring(*edge) for edge, _ in _LEFT_EYE_RINGS]
    right = [skin.mirrored(ring) for ring in left]
    landmarks = find_landmarks(body).single.tolist()
    strides = [stride for _, stride in (*_MOUTH_RINGS, *_LEFT_EYE_RINGS, *_LEFT_EYE_RINGS)]
    features = [v for ring, stride in zip((*mouth, *left, *right), strides, strict=True) for v in ring[::stride]]
    features += skin.mirrored(features)
    hidden: set[int] = set()
    for ring in (mouth[0], left[0], right[0]):
        hidden |= _enclosed(skin, ring)
    region = _face_region(skin, hidden)
    jaw = [v for v in landmarks[:17] if v in region]
    lines = [*jaw, *landmarks[17:36], *_edge(skin, region)[::2]]
    lines += skin.mirrored(lines)
    seen = np.setdiff1d(region, _nostrils(skin, region))
    chosen = _thinned(skin, seen, [*features, *lines], features)
    place = {vertex: k for k, vertex in enumerate(chosen)}
    triangles = _triangulate(skin, chosen, region, [mouth[0], left[0], right[0]])
    loops: dict[str, list[int]] = {}
    outer = mouth[_OUTER_LIP][:: _MOUTH_RINGS[_OUTER_LIP][1]]
    for name, ring in (("lip_outer", outer), ("lip_inner", mouth[0])):
        loops[f"{name}_upper"], loops[f"{name}_lower"] = _halves(skin, ring, _corners(skin, ring))
    for side, ring in (("left", left[0]), ("right", right[0])):
        loops[f"lid_upper_{side}"], loops[f"lid_lower_{side}"] = _halves(skin, ring, _corners(skin, ring))
    brows = {"brow_right": landmarks[17:22], "brow_left": landmarks[22:27]}
    loops |= {"jaw": jaw, **brows, "nose_bridge": landmarks[27:31], "nose_base": landmarks[31:36]}
    face = _mean_face(body, chosen, (loops["lip_inner_upper"], loops["lip_inner_lower"]))
    scales = np.abs(face["actions"]).max((1, 2)).clip(1e-9) / 32767
    placed = {name: [place[v] for v in vertices] for name, vertices in loops.items()}
    placed["outline"] = _outline(triangles, [{place[v] for v in ring} for ring in (mouth[0], left[0], right[0])])
    arrays = {
        "canonical": face["canonical"],
        "triangles": triangles.astype(np.int16),
        "mirror": np.array([place[skin.mirror[v]] for v in chosen], np.int16),
        "actions": np.round(face["actions"] / scales[:, None, None]).astype(np.int16),
        "action_scales": scales.astype(np.float32),
        "base_vertices": np.array(chosen, np.int16),
    }
    return arrays, placed


def main() -> None:
    """Entry of `python -m training.synthetic.face_mesh`."""
    parser = argparse.ArgumentParser(description="The face mesh of models.portrait, made again from the body file.")
    parser.add_argument("--target", type=Path, default=FACE_MESH_FILE)
    target = parser.parse_args().target
    body = load_body()
    if body.action_labels != FACE_ACTIONS:
        raise SystemExit("the body file has other face actions than models.portrait.face_mesh")
    arrays, loops = make_face_mesh(body)
    save_file(arrays, target, metadata={"loops": json.dumps(loops)})
    print(f"{target}: {len(arrays['canonical'])} vertices, {len(arrays['triangles'])} triangles")


if __name__ == "__main__":
    main()
