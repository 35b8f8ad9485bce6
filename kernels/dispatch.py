"""Which implementation of an op runs for given tensors."""

import importlib.util
import os
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["triton", "torch", "reference"]
BACKENDS: tuple[Backend, ...] = ("triton", "torch", "reference")
FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def select_backend(requested: str | None, *tensors: Tensor) -> Backend:
    """Name the implementation to run on `tensors` (all on one device).

    `requested` None means: Triton where it runs natively and no gradient is wanted, else "torch"; the environment
    variable KERNELS_BACKEND=torch rules Triton out, for devices on which its kernels fail their tests.
    Raises `ValueError` for an unknown name, and for "triton" where the kernels cannot run or would
    silently drop a gradient (they have no backward pass).
    """
    if requested is None:
        if not _runs_natively(tensors[0]) or os.environ.get("KERNELS_BACKEND") == "torch" or _needs_grad(tensors):
            return "torch"
        return "triton"
    if requested not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)} or None, got {requested!r}")
    if requested != "triton":
        return "reference" if requested == "reference" else "torch"
    if not is_triton_installed():
        raise ValueError('backend="triton" needs the triton package, which is not installed')
    if not tensors[0].is_cuda and not is_interpreting():
        raise ValueError(f'backend="triton" needs CUDA tensors or TRITON_INTERPRET=1, got {tensors[0].device}')
    if _needs_grad(tensors):
        raise ValueError('backend="triton" has no backward pass; use backend="torch" or torch.no_grad()')
    return "triton"


@cache
def is_triton_installed() -> bool:
    """True when the triton package can be found (it is not imported to find out)."""
    return importlib.util.find_spec("triton") is not None


def is_interpreting() -> bool:
    """True when Triton runs kernels in Python (TRITON_INTERPRET=1, set before triton is first imported)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def require_dtype(name: str, tensor: Tensor) -> None:
    """Raise `ValueError` unless the tensor is fp32, bf16 or fp16."""
    if tensor.dtype not in FLOAT_DTYPES:
        raise ValueError(f"{name} must be fp32, bf16 or fp16, got {tensor.dtype}")


def require_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise `ValueError` unless the two tensors share the device."""
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on {other.device} like {other_name}, got {tensor.device}")


def require_same(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise `ValueError` unless the two tensors share device and dtype."""
    if tensor.dtype != other.dtype or tensor.device != other.device:
        raise ValueError(
            f"{name} and {other_name} must share device and dtype, "
            f"got {tensor.dtype} on {tensor.device} and {other.dtype} on {other.device}"
        )


def has_hopper_path(device: torch.device) -> bool:
    """True where kernels that need Hopper's tensor memory accelerator are chosen: compute capability 9.x.

    The environment variable KERNELS_HOPPER=0 leaves the portable kernels, which run everywhere.
    """
    return (
        device.type == "cuda" and compute_capability(device)[0] == 9 and os.environ.get("KERNELS_HOPPER", "1") != "0"
    )


@cache
def compute_capability(device: torch.device) -> tuple[int, int]:
    """Major and minor of a CUDA device; (0, 0) for any other."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)


@cache
def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; 1 for any other, so that the interpreter runs persistent kernels too."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _needs_grad(tensors: tuple[Tensor, ...]) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _runs_natively(tensor: Tensor) -> bool:
    # A CPU tensor is answered by the first term: nothing else may cost time where PyTorch runs.
    return tensor.is_cuda and is_triton_installed() and compute_capability(tensor.device)[0] >= 8
