"""Checks of what is done to pictures: colour match and cover resize."""

from __future__ import annotations

import re

import numpy as np
import torch

from models.colour import lab_statistics, lab_to_rgb, match_colours, to_lab
from models.public.conformance import rule
from models.public.conformance.fixture import Fixture
from models.public.cover import cover_resize

LIMIT = 1e-5
BF16_LIMIT = 0.0  # the same roundings in the same places


@torch.inference_mode()
def check_colour_match(fixture: Fixture) -> None:
    """The match at two strengths, in bf16, of a flat picture, and both ways of Lab."""
    source = fixture.draw("input.colour.source", (1, 3, 4, 10, 14), std=0.5)
    picture = fixture.draw("input.colour.ref", (1, 3, 1, 10, 14), mean=0.1, std=0.3).clamp(-1, 1)
    reference = lab_statistics(picture)
    for strength in (1.0, 0.5):
        fixture.compare(f"out.strength{strength}", match_colours(source, reference, strength), LIMIT)
    lab = to_lab(source)
    fixture.compare("mid.lab_of_source", lab, LIMIT)
    fixture.compare("mid.rgb_back_of_lab", lab_to_rgb(lab), LIMIT)
    flat = torch.full((1, 3, 2, 10, 14), 0.2)
    fixture.compare("out.flat_source", match_colours(flat, reference), LIMIT)
    in_bf16 = match_colours(source.to(torch.bfloat16), lab_statistics(picture.to(torch.bfloat16)))
    fixture.compare("out.strength1.0_bf16", in_bf16.float(), BF16_LIMIT)


def check_cover_resize(fixture: Fixture) -> None:
    """Pictures of random bytes, of the sizes that the tensors' names say."""
    for tensor in fixture.about["tensors"]:
        rows, columns, height, width = map(int, re.findall(r"\d+", tensor))
        key = f"input.image.{rows}x{columns}"
        pixels = (rule.words(key, fixture.seed, rows * columns * 3) >> np.uint64(56)).astype(np.uint8)
        made = cover_resize(pixels.reshape(rows, columns, 3), height, width)
        fixture.compare(tensor, torch.from_numpy(made.copy()).permute(2, 0, 1)[None, :, None].float(), 0.0)
