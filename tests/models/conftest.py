"""A tiny pipeline with random weights, every zero-initialised layer filled, so that nothing is the identity."""

from __future__ import annotations

import pytest
import torch

from models.pipeline import AvatarPipeline
from models.presets import tiny


def fill_zero_weights(module: torch.nn.Module) -> None:
    """Random values for every parameter that starts at zero: otherwise the residual branches say nothing."""
    for parameter in module.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)


@pytest.fixture(scope="session")
def pipeline() -> AvatarPipeline:
    torch.manual_seed(0)
    pipeline = AvatarPipeline(tiny())
    for component in (pipeline.vae, pipeline.lr_a2v, pipeline.refiner, pipeline.pose):
        fill_zero_weights(component)
    with torch.no_grad():
        pipeline.pose.coarse.linear.bias.fill_(0.5)
    return pipeline


@pytest.fixture
def reference() -> torch.Tensor:
    return torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sound() -> torch.Tensor:
    return 0.2 * torch.randn(48 * 640, generator=torch.Generator().manual_seed(2))
