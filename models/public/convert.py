"""Published files → files in our layout: Wan's names, one dtype, shards of a few GB. Never more than a shard in memory.

In fp8 the large linear layers of `blocks` are e4m3 with one scale an output channel (`models.fp8`), the rest is bf16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.errors import CheckpointError
from models.fp8 import FEATURE_MULTIPLE, LEAST_FEATURES, SCALES, quantise_rows
from models.public.catalog import identify, wan_config
from models.public.folders import Weights, check_finite, read_weights
from models.public.inspection import check_family

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
SHARD_BYTES = 4 << 30
_PRECISE = ("modulation", "scale_shift_table", "latents_mean", "latents_std")  # stay in fp32


def convert(source: Path, target: Path, dtype: str = "bf16") -> Path:
    """Convert a file or folder of one model.

    Args:
        target: a folder that is not there yet, or empty.
        dtype: fp32, bf16, fp16 or fp8.

    Returns:
        the folder.

    Raises:
        CheckpointError: if the source cannot be read, is not known or does not fit, or the target is in use.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} is there already and not an empty folder")
    weights = read_weights(source)
    family = identify(weights)
    check_family(family, weights)
    if any(name.endswith(SCALES) for name in weights.tensors):
        raise CheckpointError(f"{source} is fp8 already: convert what it was made of")
    names = family.names(weights)
    made = (pair for name, tensor in weights.read() for pair in _converted(names[name], tensor, dtype, source))
    target.mkdir(parents=True, exist_ok=True)
    _write(made, target, {"family": family.name, "dtype": dtype, "made_from": source.name})
    config = dict(weights.config)
    if family.name == "wan":
        config = _own_config(weights)
    if config:
        (target / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return target


def _converted(name: str, tensor: Tensor, dtype: str, source: Path) -> Iterator[tuple[str, Tensor]]:
    check_finite(name, tensor, source)
    if dtype == "fp8" and _is_large_linear(name, tensor):
        values, scales = quantise_rows(tensor.float())
        yield name, values
        yield name.removesuffix(".weight") + SCALES, scales
    elif name.rsplit(".", 1)[-1] in _PRECISE:
        yield name, tensor.float()
    else:
        yield name, tensor.to(DTYPES[dtype])


def _is_large_linear(name: str, tensor: Tensor) -> bool:
    is_linear = name.startswith("blocks.") and name.endswith(".weight") and tensor.ndim == 2
    return is_linear and min(tensor.shape) >= LEAST_FEATURES and not any(n % FEATURE_MULTIPLE for n in tensor.shape)


def _write(tensors: Iterator[tuple[str, Tensor]], folder: Path, metadata: dict[str, str]) -> None:
    """Shards with their index; one file, without, if one is enough. What was begun is taken away if it fails."""
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    size = 0
    total = 0

    def flush() -> None:
        nonlocal size
        save_file(pending, folder / f"model-{len(shards) + 1:05}.safetensors", metadata)
        shards.append(list(pending))
        pending.clear()
        size = 0

    try:
        for name, tensor in tensors:
            length = math.prod(tensor.shape) * tensor.element_size()
            if pending and size + length > SHARD_BYTES:
                flush()
            pending[name] = tensor.contiguous()
            size, total = size + length, total + length
        flush()
    except BaseException:
        for file in folder.glob("model-*.safetensors"):
            file.unlink()
        raise
    if len(shards) == 1:
        (folder / "model-00001.safetensors").rename(folder / "model.safetensors")
        return
    places = {name: f"model-{index + 1:05}.safetensors" for index, names in enumerate(shards) for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def _own_config(weights: Weights) -> dict[str, Any]:
    """Of a Wan transformer, in Wan's own words."""
    config = wan_config(weights)
    names = ("dim", "ffn_dim", "num_layers", "num_heads", "in_dim", "out_dim", "text_dim", "freq_dim", "eps")
    return {name: getattr(config, name) for name in names} | {
        "_class_name": "WanModel",
        "model_type": "t2v" if config.image_dim is None else "i2v",
        "patch_size": list(config.patch_size),
    }
