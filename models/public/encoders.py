"""What Wan looks at beside noise: UMT5 of the prompt, CLIP's view of the first frame; through `transformers`.

Folders are those of the `-Diffusers` releases: `text_encoder` and `tokenizer`, `image_encoder`. Nothing is fetched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import CheckpointError
from models.public.folders import read_weights

TEXT_TOKENS = 512
IMAGE_SIZE = 224
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TextEncoder:
    """Prompts → what Wan's text embedding takes: UMT5's last states, zeros after the prompt's end."""

    def __init__(self, model: nn.Module, tokenizer: Any, tokens: int = TEXT_TOKENS) -> None:
        self.model, self.tokenizer, self.tokens = model.eval(), tokenizer, tokens

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> TextEncoder:
        """Of a folder that holds `text_encoder` and `tokenizer`.

        Raises:
            CheckpointError: if one of them is missing or cannot be read.
        """
        from transformers import AutoTokenizer, UMT5EncoderModel

        model = _from_folder(UMT5EncoderModel, folder / "text_encoder", dtype)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder / 'tokenizer'} is not a readable tokenizer: {_line(error)}") from error
        return cls(model.to(device), tokenizer)

    @torch.inference_mode()
    def __call__(self, prompts: list[str]) -> Tensor:
        """[B, tokens, 4096] in the model's dtype; longer prompts are cut."""
        given = self.tokenizer(
            prompts, max_length=self.tokens, padding="max_length", truncation=True, return_tensors="pt"
        )
        device = next(self.model.parameters()).device
        ids, mask = given["input_ids"].to(device), given["attention_mask"].to(device)
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states * mask[..., None].to(states.dtype)


class ImageEncoder:
    """A picture → what Wan's image embedding takes: the last but one of CLIP's hidden states."""

    def __init__(self, model: nn.Module, size: int = IMAGE_SIZE) -> None:
        self.model, self.size = model.eval(), size

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> ImageEncoder:
        """Of an `image_encoder` folder.

        Raises:
            CheckpointError: if it is missing or cannot be read.
        """
        from transformers import CLIPVisionModel

        return cls(_from_folder(CLIPVisionModel, folder, dtype).to(device))

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in -1 … 1, squeezed to a square as Wan does → [B, 257, 1280] in the model's dtype."""
        parameter = next(self.model.parameters())
        size = (self.size, self.size)
        small = F.interpolate(pictures.float(), size=size, mode="bicubic", align_corners=False) / 2 + 0.5
        mean, std = (torch.tensor(values, device=small.device).view(3, 1, 1) for values in (_CLIP_MEAN, _CLIP_STD))
        pixels = ((small - mean) / std).to(parameter.device, parameter.dtype)
        return self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]


def _from_folder(kind: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    read_weights(folder)  # says what is wrong in a sentence, and refuses pickles before anything reads them
    try:
        return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"{folder} does not hold a {kind.__name__}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
