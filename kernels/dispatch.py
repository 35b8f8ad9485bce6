"""Which implementation of an op runs for given tensors."""

import importlib.util
import os
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["triton", "torch", "reference"]
BACKENDS: tuple[Backend, ...] = ("triton", "torch", "reference")


def select_backend(requested: str | None, *tensors: Tensor) -> Backend:
    """Name the implementation to run on `tensors` (all on one device).

    `requested` None means: Triton where it runs natively and no gradient is wanted, else "torch"; the environment
    variable KERNELS_BACKEND=torch rules Triton out, for devices on which its kernels fail their tests.
    Raises `ValueError` for an unknown name, and for "triton" where the kernels cannot run or would
    silently drop a gradient (they have no backward pass).
    """
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    device = tensors[0].device
    if requested is None:
        is_ruled_out = os.environ.get("KERNELS_BACKEND") == "torch"
        return "triton" if not needs_grad and not is_ruled_out and _runs_natively(device) else "torch"
    if requested not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None, got {requested!r}")
    if requested != "triton":
        return "reference" if requested == "reference" else "torch"
    if not is_triton_installed():
        raise ValueError('backend="triton" needs the triton package, which is not installed')
    if device.type != "cuda" and not is_interpreting():
        raise ValueError(f'backend="triton" needs CUDA tensors or TRITON_INTERPRET=1, got {device}')
    if needs_grad:
        raise ValueError('backend="triton" has no backward pass; use backend="torch" or torch.no_grad()')
    return "triton"


@cache
def is_triton_installed() -> bool:
    """True when the triton package can be found (it is not imported to find out)."""
    return importlib.util.find_spec("triton") is not None


def is_interpreting() -> bool:
    """True when Triton runs kernels in Python (TRITON_INTERPRET=1, set before triton is first imported)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def require_same(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise `ValueError` unless the two tensors share device and dtype."""
    if tensor.device != other.device or tensor.dtype != other.dtype:
        raise ValueError(
            f"{name} and {other_name} must share device and dtype, "
            f"got {tensor.dtype} on {tensor.device} and {other.dtype} on {other.device}"
        )


def _runs_natively(device: torch.device) -> bool:
    return device.type == "cuda" and is_triton_installed() and _compute_capability(device)[0] >= 8


@cache
def _compute_capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
