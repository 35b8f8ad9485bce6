"""Weights of the portrait networks as they are shipped: fp16 safetensors and one `config.json`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

FACE_THRESHOLD = 0.4  # score from which a box is a face


def save_weights(path: Path, networks: nn.Module) -> None:
    """All parameters and statistics of networks in half precision."""
    state = {name: value for name, value in networks.state_dict().items() if "num_batches" not in name}
    save_file({name: value.detach().to(torch.float16).contiguous() for name, value in state.items()}, path)


def save_landmarks(folder: Path, networks: nn.Module) -> None:
    """`landmarks.safetensors` and `config.json` of a folder, as `FaceFinder.load` reads them."""
    save_weights(folder / "landmarks.safetensors", networks)
    write_config(folder, face_threshold=FACE_THRESHOLD)


def write_config(folder: Path, **values: float) -> None:
    """Put values into `config.json`, which keeps its others."""
    path = folder / "config.json"
    stored = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(stored | values, indent=1) + "\n")
