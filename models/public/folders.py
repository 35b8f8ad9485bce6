"""Local files of public weights: safetensors, whole or in shards, beside a `config.json`. Nothing is unpickled.

Only headers are read until tensors are asked for, so a folder of 60 GB is looked at in a moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.errors import CheckpointError

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of a tensor without its values; dtype as in the file, "F32" or "BF16"."""

    shape: tuple[int, ...]
    dtype: str
    file: Path


@dataclass(frozen=True)
class Weights:
    """Headers of all tensors of a file or folder by name, the `config.json` beside them, and a file's own metadata."""

    path: Path
    tensors: Mapping[str, TensorHeader]
    config: Mapping[str, Any]
    metadata: Mapping[str, str]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: header.shape for name, header in self.tensors.items()}

    def read(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, one after the other, file by file."""
        for file in dict.fromkeys(header.file for header in self.tensors.values()):
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    yield name, opened.get_tensor(name)


def read_weights(path: Path) -> Weights:
    """Headers of a safetensors file, or of all in a folder.

    Raises:
        CheckpointError: if there is nothing to read, a file is broken, a pickle, or a shard is missing or double.
    """
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.is_file():
        files = [path]
    else:
        files = sorted(path.glob("*.safetensors"))
        if not files and (pickles := sorted(file for file in path.iterdir() if file.suffix in PICKLES)):
            files = pickles[:1]
        if not files:
            raise CheckpointError(f"{path} holds no .safetensors file")
    tensors: dict[str, TensorHeader] = {}
    metadata: dict[str, str] = {}
    for file in files:
        found, more = _read_header(file)
        if double := tensors.keys() & found.keys():
            raise CheckpointError(f"{min(double)} is both in {tensors[min(double)].file.name} and in {file.name}")
        tensors |= found
        metadata |= more
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors")
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        _check_index(folder, tensors)
    return Weights(path, tensors, read_config(folder), metadata)


def refuse_pickle(path: Path) -> None:
    """Raise CheckpointError for a file that only unpickling would read, with the way to turn it into safetensors."""
    if path.suffix.lower() in PICKLES:
        target = path.with_suffix(".safetensors")
        raise CheckpointError(
            f"{path} is a pickle, which may run code when it is read, so it is not; if you trust it: "
            f'python -c "import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in '
            f"torch.load('{path}', map_location='cpu', weights_only=True).items()}}, '{target}')\""
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder; empty without one.

    Raises:
        CheckpointError: if it is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return config


def check_fit(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Hold names and shapes against those that a model has.

    Raises:
        CheckpointError: at the first that is missing, too many, or of another shape.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise CheckpointError(f"{path} lacks {len(missing)} tensors, the first {missing[0]}")
    if unknown := sorted(found.keys() - expected.keys()):
        raise CheckpointError(f"{path} has {len(unknown)} tensors too many, the first {unknown[0]}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(f"{path}: {name} has shape {list(found[name])}, the model wants {list(shape)}")


def check_finite(name: str, tensor: Tensor, path: Path) -> None:
    """Raise CheckpointError if a value is not finite."""
    values = tensor.float() if tensor.dtype.itemsize == 1 else tensor  # fp8 knows no isfinite
    if not torch.isfinite(values).all():
        raise CheckpointError(f"{path}: {name} holds values that are not finite")


def load_into(module: nn.Module, tensors: Iterator[tuple[str, Tensor]], path: Path) -> None:
    """Load tensors that have been checked to fit; parameters on the meta device get the tensors' dtype.

    Raises:
        CheckpointError: if a value is not finite.
    """
    for name, tensor in tensors:
        check_finite(name, tensor, path)
        owner, _, last = name.rpartition(".")
        target = module.get_submodule(owner)
        current = getattr(target, last)
        if not current.is_meta:
            with torch.no_grad():
                current.copy_(tensor)
        elif isinstance(current, nn.Parameter):
            setattr(target, last, nn.Parameter(tensor, requires_grad=False))
        else:
            setattr(target, last, tensor)


def _read_header(file: Path) -> tuple[dict[str, TensorHeader], dict[str, str]]:
    refuse_pickle(file)
    try:
        with safe_open(file, framework="pt") as opened:
            headers = {}
            for name in opened.keys():  # noqa: SIM118
                slice_ = opened.get_slice(name)
                headers[name] = TensorHeader(tuple(slice_.get_shape()), slice_.get_dtype(), file)
            return headers, opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error


def _check_index(folder: Path, tensors: Mapping[str, TensorHeader]) -> None:
    """Shards have an index that says where each tensor is: without one a missing shard would not be missed."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            listed = json.loads(index.read_text())["weight_map"]
            names, files = set(listed), set(listed.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index} is not a readable index of shards: {error}") from error
        if missing := sorted(file for file in files if not (folder / str(file)).is_file()):
            raise CheckpointError(f"{folder} lacks {len(missing)} of {len(files)} shards, the first {missing[0]}")
        if missing := sorted(names - tensors.keys()):
            raise CheckpointError(f"the shards of {folder} lack {len(missing)} tensors, the first {missing[0]}")
