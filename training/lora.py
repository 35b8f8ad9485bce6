"""LoRA on a loaded Wan base (`peft`): which layers, what is trained beside them, files of what was trained, merging."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from models.errors import CheckpointError
from models.public.wan_base import WanLRA2V, WanRefiner

ADAPTED = r"wan\.blocks\.\d+\.(self_attn|cross_attn)\.(q|k|v|o)|wan\.blocks\.\d+\.ffn\.[02]"
ADDED = ("_audio.", "audio_position", "degraded.", "pose.", "prompt")  # what the base does not have: trained whole


def add_lora(model: WanLRA2V | WanRefiner, rank: int, alpha: int | None = None) -> dict[str, nn.Parameter]:
    """Freeze a base, put LoRA on its linear layers, and leave what was added to it open.

    LoRA starts at zero, so the model still gives what its base gives. It is kept in fp32, as is what was added: a step
    of AdamW is smaller than bf16 can tell.

    Args:
        rank: of the LoRA.
        alpha: its scale times the rank; None: the rank.

    Returns:
        what is trained, by name.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=ADAPTED), model)
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if "lora_" in name or any(part in name for part in ADDED):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
            trained[name] = parameter
    return trained


def save_trained(path: Path, trained: dict[str, nn.Parameter], rank: int, alpha: int | None = None) -> None:
    """Write what was trained, in fp32; atomic."""
    partial = path.with_suffix(".partial")
    metadata = {"rank": str(rank), "alpha": str(alpha or rank)}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in trained.items()}, partial, metadata)
    partial.replace(path)


def load_trained(path: Path, model: WanLRA2V | WanRefiner) -> None:
    """Put what was trained on a loaded base, merged into its layers: as fast as the base.

    Raises:
        CheckpointError: if the file cannot be read, or was trained on another shape.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        rank, alpha = int(metadata["rank"]), int(metadata["alpha"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is not a file of trained LoRA weights: {error}") from error
    trained = add_lora(model, rank, alpha)
    if trained.keys() != tensors.keys() or any(trained[name].shape != tensors[name].shape for name in trained):
        raise CheckpointError(f"{path} was trained on another model: {len(tensors)} tensors, {len(trained)} fit here")
    with torch.no_grad():
        for name, tensor in tensors.items():
            trained[name].copy_(tensor)
    merge(model)


def merge(model: nn.Module) -> None:
    """Add each LoRA to its layer, and put the layer back in its place."""
    from peft.tuners.lora import LoraLayer

    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoraLayer):
                layer.merge(safe_merge=True)
                setattr(parent, name, layer.get_base_layer())
    model.requires_grad_(False)


def lora_norm(trained: dict[str, nn.Parameter]) -> Tensor:
    """Root of the mean square of what was zero at the start: 0 means that nothing was learned."""
    outer = [tensor.detach() for name, tensor in trained.items() if "lora_B" in name]
    return torch.cat([tensor.flatten() for tensor in outer]).square().mean().sqrt()
