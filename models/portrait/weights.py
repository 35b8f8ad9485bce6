"""Weights of the portraits' networks: one safetensors file a component, one `config.json` for all of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from models.checkpoints import save_component
from models.errors import CheckpointError

Config = TypeVar("Config")


def save_portrait_component(folder: Path, name: str, module: nn.Module, config: Any) -> None:
    """Write a component and its frozen dataclass; other components of the folder stay as they are."""
    save_component(folder, name, module)
    path = folder / "config.json"
    configs = json.loads(path.read_text()) if path.is_file() else {}
    configs[name] = dataclasses.asdict(config)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(dict(sorted(configs.items())), indent=1) + "\n")
    partial.replace(path)


def read_portrait_config(folder: Path, name: str, kind: type[Config]) -> Config:
    """The configuration that a component was saved with.

    Raises:
        CheckpointError: if `config.json` is missing, broken, or of another kind.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text())[name]
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a weights folder: it has no config.json") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} has no configuration of {name} that can be used: {error}") from error
