"""Weights folders: one safetensors file a component, half precision, with the configuration they were made for.

A folder holds `config.json` (preset name and the configuration of every component) and `<component>.safetensors`.
Nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from models.configs import Preset
from models.errors import CheckpointError

WEIGHTS_ROOT = Path(__file__).parent / "weights"
COMPONENTS = ("vae", "audio", "text", "animator", "lr_a2v", "pose", "refiner", "tiny_decoder")


def components(preset: Preset) -> tuple[str, ...]:
    """The components that a preset has."""
    return tuple(name for name in COMPONENTS if getattr(preset, name) is not None)


def shipped_weights(preset_name: str) -> Path:
    """Folder of the weights that come with the package."""
    return WEIGHTS_ROOT / preset_name


def component_config(preset: Preset, component: str) -> dict:
    """Configuration of one component as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(getattr(preset, component))))


def write_config(folder: Path, preset: Preset) -> None:
    """Write `config.json` of a weights folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"preset": preset.name} | {name: component_config(preset, name) for name in components(preset)}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def save_component(folder: Path, component: str, module: nn.Module, metadata: dict[str, str] | None = None) -> Path:
    """Write a component's weights in half precision; atomic. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }
    target = folder / f"{component}.safetensors"
    partial = target.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.replace(target)
    return target


def load_component(folder: Path, component: str, module: nn.Module) -> None:
    """Load a component's weights into a module.

    Raises:
        CheckpointError: if the file is missing, broken, or does not fit the module.
    """
    path = folder / f"{component}.safetensors"
    if not path.is_file():
        raise CheckpointError(f"no weights for {component}: {path} does not exist")
    load_weights(path, module)


def load_weights(path: Path, module: nn.Module, prefix: str = "") -> None:
    """Load a safetensors file into a module.

    Args:
        prefix: of the names that are read, in the file as in the module; others are left alone.

    Raises:
        CheckpointError: if the file is missing, broken or no safetensors, or does not fit the module.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    expected = module.state_dict()
    if missing := sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(f"{path} lacks {len(missing)} tensors, the first {missing[0]}")
    if unknown := sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(f"{path} has {len(unknown)} tensors too many, the first {unknown[0]}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {list(tensor.shape)}, the preset wants {list(expected[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite")
    module.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()})


def check_config(folder: Path, preset: Preset) -> None:
    """Hold a weights folder's configuration against a preset.

    Raises:
        CheckpointError: if `config.json` is missing or broken, or another configuration.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a weights folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict) or config.get("preset") != preset.name:
        found = config.get("preset") if isinstance(config, dict) else None
        raise CheckpointError(f"{folder} holds weights of preset {found!r}, not of {preset.name!r}")
    for component in components(preset):
        if config.get(component) != component_config(preset, component):
            raise CheckpointError(f"{path}: the configuration of {component} is not that of preset {preset.name!r}")
