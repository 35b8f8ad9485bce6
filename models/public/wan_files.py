"""Published files → Wan-shaped models: names, the place of rotary pairs, fp8 layers, whole files and shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from torch import Tensor

from models.errors import CheckpointError
from models.fp8 import SCALES, expect_fp8
from models.public.folders import check_fit, load_into, read_weights
from models.public.names import renamed, wan_rules
from models.public.wan import Wan, to_own_layout


def load_wan(model: Wan, expected: Mapping[str, tuple[int, ...]], *paths: Path) -> None:
    """Load files that together are a model; a file in fp8 puts `FP8Linear` into it.

    Args:
        expected: names and shapes that they must have, which may be fewer than the model has.

    Raises:
        CheckpointError: if a file cannot be read, or they are not this model together.
    """
    found: dict[str, tuple[int, ...]] = {}
    readers: list[Iterator[tuple[str, Tensor]]] = []
    for path in paths:
        weights = read_weights(path)
        rules = wan_rules(weights.tensors)
        names = {name: renamed(name, rules) for name in weights.tensors}
        if double := found.keys() & set(names.values()):
            raise CheckpointError(f"{path} holds {min(double)} again")
        found |= {names[name]: shape for name, shape in weights.shapes().items()}
        readers.append(_under(names, weights.read()))
    check_fit({name: shape for name, shape in found.items() if not name.endswith(SCALES)}, expected, paths[-1])
    try:
        expect_fp8(model, found)
    except ValueError as error:
        raise CheckpointError(f"{paths[-1]}: {error}") from error
    load_into(model, to_own_layout(chain(*readers), model.config.num_heads), paths[-1])


def _under(names: dict[str, str], tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Tensors under other names, read as they are asked for."""
    for name, tensor in tensors:
        yield names[name], tensor
