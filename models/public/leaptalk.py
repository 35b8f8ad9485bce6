"""LeapTalk on FlashHead Pro: a LoRA that makes one step from the reference of four from noise, and its audio_proj.

The LoRA is merged into the weights in fp32 before they are rounded, so that a chunk costs what FlashHead's step costs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.errors import CheckpointError

_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


def merge_lora(published: Mapping[str, Tensor], lora: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Weights of a published file with a LoRA (PEFT's names) added, W + scale · B A, in the dtype of W.

    Raises:
        CheckpointError: if a pair is not whole or fits no weight.
    """
    merged = dict(published)
    for name, down in lora.items():
        if not name.startswith(_PREFIX) or not name.endswith((_DOWN, _UP)):
            raise CheckpointError(f"{name} is no LoRA tensor of this family")
        if not name.endswith(_DOWN):
            if name.removesuffix(_UP) + _DOWN not in lora:
                raise CheckpointError(f"the LoRA has {name} without its lora_A")
            continue
        target = name.removeprefix(_PREFIX).removesuffix(_DOWN) + ".weight"
        up, weight = lora.get(name.removesuffix(_DOWN) + _UP), published.get(target)
        if up is None:
            raise CheckpointError(f"the LoRA has {name} without its lora_B")
        if weight is None:
            raise CheckpointError(f"the LoRA changes {target}, which the base does not have")
        if (up.shape[0], down.shape[1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]:
            shapes = f"{list(up.shape)} and {list(down.shape)}"
            raise CheckpointError(f"the LoRA of {target} has shapes {shapes}, the weight is {list(weight.shape)}")
        change = up.to(torch.float32) @ down.to(torch.float32)
        merged[target] = torch.add(weight.to(torch.float32), change, alpha=scale).to(weight.dtype)
    return merged


def with_audio_projection(published: Mapping[str, Tensor], projection: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a published file with all of audio_proj replaced.

    Raises:
        CheckpointError: if a tensor is missing, unknown or of another shape.
    """
    prefix = "audio_proj."
    wanted = {name.removeprefix(prefix): tensor for name, tensor in published.items() if name.startswith(prefix)}
    if odd := sorted(wanted.keys() ^ projection.keys()):
        raise CheckpointError(f"audio_proj must have the tensors of the base's, but differs in {', '.join(odd)}")
    for name, tensor in projection.items():
        if tensor.shape != wanted[name].shape:
            found, expected = list(tensor.shape), list(wanted[name].shape)
            raise CheckpointError(f"audio_proj's {name} has shape {found}, the base's {expected}")
    replaced = {prefix + name: tensor.to(wanted[name].dtype) for name, tensor in projection.items()}
    return {**published, **replaced}
