"""What lies at a path: which public weights, whether they fit, what is missing, how large. Only headers are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from models.errors import CheckpointError
from models.fp8 import SCALES
from models.public.catalog import Family, family_named, identify
from models.public.folders import PICKLES, Weights, check_fit, read_weights, refuse_pickle

MAX_DEPTH = 3  # folders that are looked into below the one that is given
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}  # dtypes that weights are in, and their bytes


@dataclass(frozen=True)
class Part:
    """One file or folder of weights; `problem` is a sentence, None if it fits."""

    path: Path
    family: Family | None
    problem: str | None
    parameters: int = 0
    file_bytes: int = 0
    dtypes: tuple[str, ...] = ()
    block_parameters: int = 0  # in linear layers of blocks: what fp8 halves


def inspect(path: Path) -> list[Part]:
    """All weights at a path: a file, a folder of weights, or folders of such.

    Raises:
        CheckpointError: if there are none.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    found = [_inspect_one(place) for place in _places(path, MAX_DEPTH)]
    if not found:
        raise CheckpointError(f"{path} holds no weights: no .safetensors file in it or below")
    return found


def missing_beside(parts: list[Part]) -> dict[str, list[Family]]:
    """For each family among the parts that talks: the families it needs that are not among them."""
    there = {part.family.name for part in parts if part.family is not None and part.problem is None}
    wanting = {}
    for part in parts:
        if part.family is not None and part.family.needs:
            wanting[part.family.name] = [family_named(name) for name in part.family.needs if name not in there]
    return wanting


def _places(path: Path, depth: int) -> list[Path]:
    """Files, and folders that are one model in shards or with a config.json."""
    if path.is_file():
        return [path]
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    files = [entry for entry in entries if entry.is_file() and entry.suffix == ".safetensors"]
    pickles = [entry for entry in entries if entry.is_file() and entry.suffix in PICKLES]
    is_sharded = bool(files) and any(entry.name.endswith(".safetensors.index.json") for entry in entries)
    places = [path] if is_sharded else files
    # a pickle beside the same in safetensors is no loss
    places += [pickle for pickle in pickles if pickle.with_suffix(".safetensors") not in files]
    if depth:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                places += _places(entry, depth - 1)
    return places


def _inspect_one(path: Path) -> Part:
    family, weights = None, None
    try:
        refuse_pickle(path)
        weights = read_weights(path)
        family = identify(weights)
        check_family(family, weights)
    except CheckpointError as error:
        return _part(path, family, weights, str(error))
    return _part(path, family, weights, None)


def check_family(family: Family, weights: Weights) -> None:
    """Hold a file against what its family should have.

    Raises:
        CheckpointError: where it does not fit.
    """
    if family.expected is None:
        return
    for name, header in sorted(weights.tensors.items()):
        if header.dtype not in FLOATS:
            raise CheckpointError(f"{weights.path}: {name} holds {header.dtype}, weights are floating-point numbers")
    shapes = {name: shape for name, shape in family.shapes(weights).items() if not name.endswith(SCALES)}
    check_fit(shapes, family.expected(weights), weights.path)


def _part(path: Path, family: Family | None, weights: Weights | None, problem: str | None) -> Part:
    if weights is None:
        return Part(path, family, problem)
    headers = weights.tensors
    sizes = {name: math.prod(header.shape) for name, header in headers.items()}
    inner = sum(size for name, size in sizes.items() if _is_block_linear(name, headers[name].shape))
    return Part(
        path=path,
        family=family,
        problem=problem,
        parameters=sum(sizes.values()),
        file_bytes=sum(sizes[name] * FLOATS.get(header.dtype, 8) for name, header in headers.items()),
        dtypes=tuple(sorted({header.dtype for header in headers.values()})),
        block_parameters=inner,
    )


def _is_block_linear(name: str, shape: tuple[int, ...]) -> bool:
    return name.startswith("blocks.") and len(shape) == 2 and min(shape) >= 512
