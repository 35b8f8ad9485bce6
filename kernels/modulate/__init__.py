"""Adaptive norms of the diffusion transformers: norm, scale and shift in one pass, and the gated residual before.

    modulate            norm(x) · (1 + scale) + shift
    residual_modulate   x ← x + gate · branch, then the same of the new x

Tokens are [B, T, S, D]: T latent frames of S tokens. Scale, shift and gate are one vector a token [B, T, S, D], a
frame [B, T, 1, D], a row [B, 1, 1, D], or for all [1, 1, 1, D]; slices of one projection need no copy.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import require_device, require_dtype, select_backend
from kernels.modulate.reference import modulate_reference, residual_modulate_reference

__all__ = ["modulate", "residual_modulate"]

Norm = Literal["layer", "rms"]
MAX_WIDTH = 8192


def modulate(
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    norm: Norm = "layer",
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    backend: str | None = None,
) -> Tensor:
    """(norm(x) · weight + bias) · (1 + scale) + shift.

    Args:
        x: [B, T, S, D], fp32, bf16 or fp16, any strides; D up to 8192.
        scale, shift: broadcast to x as above, any of the dtypes (also others than x), any strides; None leaves it out.
        norm: "layer" or "rms", over D.
        weight, bias: [D] of the norm itself; None leaves it out.
        eps: added to the variance or mean square.
        backend: see `kernels`.

    Returns [B, T, S, D], contiguous ("torch": as PyTorch makes it), in the dtype of x. The kernel and the reference
    compute in fp32 and round once; "torch" rounds the norm to the dtype of x first.

    Raises `ValueError` for what does not fit.
    """
    chosen = select_backend(backend, x, *_present(scale, shift, weight, bias))
    if chosen == "torch" and backend is None:  # nothing to check that PyTorch would not
        return _modulate_torch(x, scale, shift, norm, weight, bias, eps)
    _check(x, norm, {"scale": scale, "shift": shift}, {"weight": weight, "bias": bias})
    if chosen == "triton":
        from kernels.modulate.triton_kernel import modulate_triton

        return modulate_triton(x, None, None, scale, shift, norm=norm, weight=weight, bias=bias, eps=eps)[1]
    if chosen == "torch":
        return _modulate_torch(x, scale, shift, norm, weight, bias, eps)
    return modulate_reference(x, scale, shift, norm=norm, weight=weight, bias=bias, eps=eps)


def residual_modulate(
    x: Tensor,
    branch: Tensor,
    gate: Tensor | None = None,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    *,
    norm: Norm = "layer",
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """x + gate · branch, and `modulate` of it: (new x, modulated), both [B, T, S, D] in the dtype of x.

    `branch` is like x, of any of the dtypes; `gate` like scale, None for 1. The new x is rounded before it is
    normalised. Everything else as in `modulate`.
    """
    chosen = select_backend(backend, x, branch, *_present(gate, scale, shift, weight, bias))
    if chosen != "torch" or backend is not None:
        vectors = {"branch": branch, "gate": gate, "scale": scale, "shift": shift}
        _check(x, norm, vectors, {"weight": weight, "bias": bias})
        if branch.shape != x.shape:
            raise ValueError(f"branch must be like x {list(x.shape)}, got {list(branch.shape)}")
    if chosen == "triton":
        from kernels.modulate.triton_kernel import modulate_triton

        total, y = modulate_triton(x, branch, gate, scale, shift, norm=norm, weight=weight, bias=bias, eps=eps)
        assert total is not None
        return total, y
    if chosen == "torch":
        total = (x + branch if gate is None else torch.addcmul(x, branch, gate)).to(x.dtype)
        return total, _modulate_torch(total, scale, shift, norm, weight, bias, eps)
    return residual_modulate_reference(x, branch, gate, scale, shift, norm=norm, weight=weight, bias=bias, eps=eps)


def _modulate_torch(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    norm: Norm,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    width = (x.shape[-1],)
    weight = weight if weight is None or weight.dtype == x.dtype else weight.to(x.dtype)
    if norm == "layer":
        bias = bias if bias is None or bias.dtype == x.dtype else bias.to(x.dtype)
        y = F.layer_norm(x, width, weight, bias, eps)
    else:
        y = F.rms_norm(x, width, weight, eps)
        y = y if bias is None else y + bias
    if scale is None:
        return y if shift is None else (y + shift).to(x.dtype)
    if shift is None:
        return (y * (1 + scale)).to(x.dtype)
    return torch.addcmul(shift, y, 1 + scale).to(x.dtype)


def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor is not None)


def _check(x: Tensor, norm: str, vectors: dict[str, Tensor | None], parameters: dict[str, Tensor | None]) -> None:
    if x.ndim != 4 or not 1 <= x.shape[-1] <= MAX_WIDTH:
        raise ValueError(f"x must be [B, T, S, D] with D in 1..{MAX_WIDTH}, got {list(x.shape)}")
    if norm not in ("layer", "rms"):
        raise ValueError(f"norm must be 'layer' or 'rms', got {norm!r}")
    require_dtype("x", x)
    for name, vector in vectors.items():
        if vector is None:
            continue
        require_dtype(name, vector)
        require_device(name, vector, "x", x)
        if vector.ndim != 4 or any(size not in (1, whole) for size, whole in zip(vector.shape, x.shape, strict=True)):
            raise ValueError(f"{name} must broadcast to x {list(x.shape)} in four dimensions, got {list(vector.shape)}")
    for name, parameter in parameters.items():
        if parameter is None:
            continue
        require_dtype(name, parameter)
        require_device(name, parameter, "x", x)
        if parameter.shape != x.shape[-1:]:
            raise ValueError(f"{name} must be [D] = [{x.shape[-1]}], got {list(parameter.shape)}")
