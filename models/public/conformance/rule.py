"""The rule of the golden numbers: tensors from a name, a shape and a seed, by integers alone, so bit-exact anywhere."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

_STEP = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 22  # words at once: a large tensor needs no more memory than itself


def _mixed(z: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit words that leaves no pattern of the counter (the finaliser of SplitMix64)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def words(key: str, seed: int, count: int, first: int = 0) -> np.ndarray:
    """The words `first` … `first + count - 1` of a key, uint64 [count]."""
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64
        start = np.array([zlib.crc32(key.encode()) + (seed << 32)], dtype=np.uint64)
        places = np.arange(first + 1, first + count + 1, dtype=np.uint64)
        return _mixed(_mixed(start) + places * _STEP)


def normals(key: str, shape: Sequence[int], seed: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """fp32 tensor of a shape, mean and deviation as given, every element within 3.47 deviations of the mean."""
    count = math.prod(shape)
    values = np.empty(count, dtype=np.float32)
    for first in range(0, count, _BLOCK):
        block = words(key, seed, min(_BLOCK, count - first), first)
        fields = block.view(np.uint16).reshape(-1, 4).sum(axis=1, dtype=np.int64)  # any order of the four
        values[first : first + len(block)] = mean + std * ((fields - 131070) / 37837)
    return torch.from_numpy(values).reshape(tuple(shape))


def positions(key: str, count: int, elements: int) -> Tensor:
    """Places in a flat tensor, int64 [count]; they may repeat, and are the same for every seed."""
    return torch.from_numpy((words(key, 0, count) % np.uint64(elements)).astype(np.int64))


def weight_statistics(name: str, shape: Sequence[int]) -> tuple[float, float]:
    """Mean and deviation of a parameter, by the last part of its name and its shape."""
    last = name.rsplit(".", 1)[-1]
    if last == "modulation":
        return 0.0, 0.5
    if last == "bias":
        return 0.0, 0.02
    if last in ("original0", "weight_g") or len(shape) == 1:
        return 1.0, 0.1
    return 0.0, 1 / math.sqrt(math.prod(shape[1:]))


def weights(
    shapes: Mapping[str, Sequence[int]],
    seed: int,
    prefix: str = "",
    exceptions: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Tensor]:
    """fp32 parameters by name; the rule's key of each is prefix + name.

    Args:
        exceptions: mean and deviation of the names that have others than `weight_statistics`.
    """
    made = {}
    for name, shape in shapes.items():
        mean, std = (exceptions or {}).get(name, weight_statistics(name, shape))
        made[name] = normals(prefix + name, shape, seed, mean, std)
    return made


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of a module's parameters and buffers, by name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
