"""An item of golden numbers: NAME.json says what it is, NAME.safetensors holds the numbers of the reference."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from models.public.conformance import rule


class FixtureError(ValueError):
    """An item cannot be read, or lacks what it should have."""


@dataclass(frozen=True)
class Comparison:
    """How far a tensor is from the reference's, and how far it may be."""

    tensor: str
    difference: float
    limit: float
    measure: str  # "max": max|d| / absmax of the whole; "rms": rms of d / rms of the reference

    @property
    def is_passed(self) -> bool:
        return self.difference <= self.limit  # NaN fails

    @property
    def limits_taken(self) -> float:
        """The difference in limits, to find the worst of several; infinite where it is no number."""
        if math.isnan(self.difference) or self.difference > 0 == self.limit:
            return math.inf
        return self.difference / self.limit if self.limit else 0.0


@dataclass
class Fixture:
    """One item, and what has been compared with it."""

    name: str
    seed: int
    about: dict[str, Any]  # the JSON
    expected: dict[str, Tensor]
    comparisons: list[Comparison] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, name: str) -> Fixture:
        """Read an item of a folder.

        Raises:
            FixtureError: if it cannot be read.
        """
        try:
            about = json.loads((folder / f"{name}.json").read_text())
            with safe_open(folder / f"{name}.safetensors", framework="pt") as file:
                expected = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            fixture = cls(name, int(about["seed"]), about, expected)
            stored = {key.removesuffix("@values") for key in expected}
            described = set(about["tensors"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise FixtureError(f"{name} cannot be read: {error}") from error
        if stored != described:
            raise FixtureError(f"{name} describes other tensors than it stores: {sorted(stored ^ described)}")
        return fixture

    def draw(self, key: str, shape: Sequence[int], mean: float = 0.0, std: float = 1.0) -> Tensor:
        """An input of the rule, fp32."""
        return rule.normals(key, shape, self.seed, mean, std)

    def input(self, key: str) -> Tensor:
        """An input whose shape the JSON gives as a list of numbers."""
        return self.draw(key, self.about["inputs"][key])

    def compare(self, tensor: str, actual: Tensor, limit: float, measure: str = "max") -> None:
        """Hold a result, whole, against what is stored of it.

        Raises:
            FixtureError: if the item has no such tensor, or one of another shape.
        """
        described = self.about["tensors"].get(tensor)
        if described is None:
            raise FixtureError(f"{self.name} has no {tensor}")
        if list(actual.shape) != described["shape"]:
            raise FixtureError(f"{tensor} must be {described['shape']}, got {list(actual.shape)}")
        actual = actual.detach().double()
        drawn = self.expected.get(f"{tensor}@values")
        if drawn is None:
            expected, values = self.expected[tensor].double(), actual
        else:
            places = rule.positions(f"positions.{self.name}.{tensor}", len(drawn), actual.numel())
            expected, values = drawn.double(), actual.flatten()[places]
            self._compare_whole(tensor, actual, described, limit, measure)
        difference = (values - expected).abs()
        if measure == "rms":
            size = expected.square().mean().sqrt().item()
            distance = difference.square().mean().sqrt().item()
        else:
            size, distance = described["absmax"], difference.max().item()
        self.comparisons.append(Comparison(tensor, distance / max(size, 1e-12), limit, measure))

    def _compare_whole(
        self, tensor: str, actual: Tensor, described: dict[str, Any], limit: float, measure: str
    ) -> None:
        """Of a tensor of which only some values are stored, the rest by its mean and deviation."""
        gaps = actual.mean().item() - described["mean"], actual.std().item() - described["std"]
        difference = max(map(abs, gaps)) / max(described["absmax"], 1e-12)
        self.comparisons.append(Comparison(f"{tensor} (mean, deviation)", difference, limit, measure))

    def left_out(self) -> list[str]:
        """Tensors of the item that nothing was compared with."""
        return sorted(set(self.about["tensors"]) - {comparison.tensor for comparison in self.comparisons})


def in_bfloat16(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """fp32 tensors of the rule as the bf16 runs have them."""
    return {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
