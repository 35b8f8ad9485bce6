"""Inputs for the kernels' tests, and comparison of results that are rounded once."""

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# A rounding of numbers up to 4 (fp32: last bits of sums); the interpreter truncates to bf16 instead of rounding.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3.2e-2}


def normal(
    *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """Unit normal numbers, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def assert_close(found: Tensor, expected: Tensor, factor: float = 1.0) -> None:
    """Same dtype and shape, and values within `factor` times the tolerance of the dtype (absolute and relative)."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    tolerance = TOLERANCE[found.dtype] * factor
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


def spread(x: Tensor) -> Tensor:
    """The same numbers with every other element of memory between them, last dimension first."""
    wide = torch.empty(*x.shape[::-1], 2, dtype=x.dtype, device=x.device)
    view = wide[..., 0].permute(*reversed(range(x.ndim)))
    view.copy_(x)
    assert not view.is_contiguous() or x.numel() <= 1
    return view
