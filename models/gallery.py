"""The gallery: presenters that come with the weights. All of them are synthetic people."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

# The same folder as `models.checkpoints.WEIGHTS_ROOT`; named again, for the live server's media process lists the
# gallery and must not load torch.
WEIGHTS_ROOT = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Avatar:
    """A shipped presenter: name, reference picture, the preset whose weights know it, a line about it.

    square: (left, top, right, bottom) of the picture's pixels that a square canvas shows; None for the middle.
    """

    name: str
    picture: Path
    preset: str
    description: str
    prompt: str
    square: tuple[int, int, int, int] | None = None


def list_avatars(root: Path = WEIGHTS_ROOT) -> list[Avatar]:
    """All presenters of all shipped presets, in the gallery's order."""
    avatars = []
    for index in sorted(root.glob("*/gallery/gallery.json")):
        for entry in json.loads(index.read_text()):
            avatars.append(
                Avatar(
                    name=entry["name"],
                    picture=index.parent / entry["picture"],
                    preset=index.parent.parent.name,
                    description=entry["description"],
                    prompt=entry["prompt"],
                    square=tuple(entry["square"]) if "square" in entry else None,
                )
            )
    return avatars


def find_avatar(name: str) -> Avatar:
    """Presenter by name.

    Raises:
        ValueError: if there is none of that name.
    """
    avatars = list_avatars()
    for avatar in avatars:
        if avatar.name == name:
            return avatar
    raise ValueError(f"unknown avatar {name!r}; there are {', '.join(avatar.name for avatar in avatars) or 'none'}")


def load_picture(avatar: Avatar) -> Tensor:
    """Reference picture as float32 [3, H, W] in 0 … 1."""
    import torch

    pixels = np.array(Image.open(avatar.picture).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
