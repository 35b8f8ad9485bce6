"""RMSNorm over the channels and SiLU: what stands before every convolution of a Wan-style VAE."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import require_device, require_dtype, require_same, select_backend
from kernels.norm_act.reference import norm_act_reference

__all__ = ["norm_act"]

MAX_CHANNELS = 2048


def norm_act(
    x: Tensor,
    gain: Tensor,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-12,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """SiLU(RMSNorm(x) · gain + bias), the norm over the channels of each pixel.

    Args:
        x: [B, C, ...] with one to three dimensions of pixels, fp32, bf16 or fp16; channels first or last in memory, or
            any other strides. C up to 2048.
        gain, bias: [C]. With the default eps this is the norm of the Wan VAE: x / |x| · sqrt(C) · gain.
        eps: added to the mean square.
        out: where to write, like x, its pixels at one distance from each other: for instance the frames after the
            cached ones in the padded input of a causal convolution, `buffer[:, :, 2:]`. Default: a new tensor in the
            layout of x.
        backend: see `kernels`.

    The kernel and the reference compute in fp32 and round once; "torch" rounds after each step.

    Raises `ValueError` for what does not fit.
    """
    chosen = select_backend(backend, x, gain, *(() if bias is None else (bias,)))
    if chosen != "torch" or backend is not None or out is not None:
        _check(x, gain, bias, out)
    if chosen == "triton":
        from kernels.norm_act.triton_kernel import norm_act_triton

        return norm_act_triton(x, gain, bias, eps, out)
    y = _norm_act_torch(x, gain, bias, eps) if chosen == "torch" else norm_act_reference(x, gain, bias, eps)
    return y if out is None else out.copy_(y)


def _norm_act_torch(x: Tensor, gain: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    shape = (1, -1, *[1] * (x.ndim - 2))
    # The norm of a vector is one pass with fp32 sums, in half precision too.
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    factor = torch.rsqrt(norms.square() / x.shape[1] + eps).to(x.dtype)
    y = x * factor * gain.to(x.dtype).view(shape)
    return F.silu(y if bias is None else y + bias.to(x.dtype).view(shape))


def _check(x: Tensor, gain: Tensor, bias: Tensor | None, out: Tensor | None) -> None:
    if not 3 <= x.ndim <= 5 or not 1 <= x.shape[1] <= MAX_CHANNELS:
        raise ValueError(
            f"x must be [B, C, ...] with one to three dimensions of pixels and C in 1..{MAX_CHANNELS},"
            f" got {list(x.shape)}"
        )
    require_dtype("x", x)
    for name, parameter in (("gain", gain), ("bias", bias)):
        if parameter is None:
            continue
        require_dtype(name, parameter)
        require_device(name, parameter, "x", x)
        if tuple(parameter.shape) != (x.shape[1],):
            raise ValueError(f"{name} must be [C] = [{x.shape[1]}], got {list(parameter.shape)}")
    if out is not None:
        require_same("out", out, "x", x)
        if out.shape != x.shape:
            raise ValueError(f"out must be like x {list(x.shape)}, got {list(out.shape)}")
        if out.flatten(2).data_ptr() != out.data_ptr():
            raise ValueError(f"the pixels of out must be at one distance from each other, got strides {out.stride()}")
