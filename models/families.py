"""Talking models by the name of a preset: the paper's pipeline at its scales, and portraits at their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from models.talking import TalkingModel

PORTRAIT = "portrait-"
PORTRAIT_SIZES = {"512": (512, 512), "720x1280": (1280, 720), "1280x720": (720, 1280)}  # width x height → height, width


def is_portrait(name: str) -> bool:
    """Whether a preset moves a picture of anyone, and takes pictures of any size."""
    return name.startswith(PORTRAIT)


def frame_size(name: str) -> tuple[int, int]:
    """Height and width of a preset's frames, pixels, without loading anything.

    Raises:
        ValueError: if there is no preset of that name.
    """
    from models.presets import PRESETS

    if name in PRESETS:
        return PRESETS[name]().hr_size
    if is_portrait(name) and name.removeprefix(PORTRAIT) in PORTRAIT_SIZES:
        return PORTRAIT_SIZES[name.removeprefix(PORTRAIT)]
    known = ", ".join([*(PORTRAIT + size for size in PORTRAIT_SIZES), *PRESETS])
    raise ValueError(f"unknown preset {name!r}; there are {known}")


def portrait_preset(size: tuple[int, int]) -> str:
    """The preset whose portraits have this height and width.

    Raises:
        ValueError: if there is none.
    """
    for name, known in PORTRAIT_SIZES.items():
        if known == size:
            return PORTRAIT + name
    raise ValueError(f"no portrait is {size[1]}x{size[0]} pixels; there are {', '.join(PORTRAIT_SIZES)}")


def load_model(
    name: str,
    weights: Path | None = None,
    device: torch.device | str = "cpu",
    precision: str = "auto",
    has_graphs: bool = False,
) -> TalkingModel[Any, Any]:
    """The models of a preset.

    Args:
        weights: a folder instead of the one that comes with the package.
        precision, has_graphs: see `AvatarPipeline.load`; portraits have but one precision, and no graphs.

    Raises:
        ValueError: if there is no such preset or precision, or the preset does not run on the device.
        CheckpointError: if the weights are missing, broken, or made for another preset.
    """
    size = frame_size(name)
    if is_portrait(name):
        import torch

        from models.portrait.pipeline import PortraitPipeline

        if torch.device(device).type != "cpu":
            raise ValueError(f"portraits are moved on the processor; device must be cpu, got {device}")
        return PortraitPipeline.load(size, weights)
    from models.pipeline import AvatarPipeline

    return AvatarPipeline.load(name, weights, device, precision, has_graphs)
