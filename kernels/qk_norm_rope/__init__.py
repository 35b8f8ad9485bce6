"""RMSNorm of queries and keys and 3D rotary embedding, in one pass over both."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import require_device, require_dtype, require_same, select_backend
from kernels.qk_norm_rope.reference import norm_rope_reference

__all__ = ["qk_norm_rope"]

MAX_HEAD_DIM = 256
MAX_WIDTH = 8192  # padded heads times padded head dim


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_gain: Tensor,
    k_gain: Tensor,
    rope: tuple[Tensor, Tensor],
    *,
    eps: float = 1e-6,
    out: tuple[Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalise q and k and rotate them by the angles of their positions; halves are the pairs.

    Args:
        q, k: [B, N, L, d], d even, one shape, fp32, bf16 or fp16, any strides (slices of one projection).
        q_gain, k_gain: [d], a norm over the channels of each head, or [N, d], one norm over all heads of a token.
        rope: cosines and sines [L, d / 2], fp32, bf16 or fp16.
        eps: added to the mean square.
        out: where to write, like q and k but for strides; (q, k) themselves to work in place, or the slice of a
            buffer of keys in which the cached prefix stands already. Default: new tensors.
        backend: see `kernels`.

    Returns the two of `out`. New ones are laid out as q and k are, where those are dense. The kernel and the
    reference compute in fp32 and round once; "torch" rounds the norm to the dtype of q first.

    Raises `ValueError` for what does not fit.
    """
    cos, sin = rope
    chosen = select_backend(backend, q, k, q_gain, k_gain, cos, sin)
    if chosen != "torch" or backend is not None or out is not None:
        _check(q, k, q_gain, k_gain, cos, sin, out)
    if chosen == "triton":
        from kernels.qk_norm_rope.triton_kernel import qk_norm_rope_triton

        return qk_norm_rope_triton(q, k, q_gain, k_gain, cos, sin, eps, out)
    run = _norm_rope_torch if chosen == "torch" else norm_rope_reference
    results = run(q, q_gain, cos, sin, eps), run(k, k_gain, cos, sin, eps)
    if out is None:
        return results
    for target, result in zip(out, results, strict=True):
        target.copy_(result)
    return out


def _norm_rope_torch(x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    dtype = x.dtype
    gain, cos, sin = (part if part.dtype == dtype else part.to(dtype) for part in (gain, cos, sin))
    if gain.ndim == 1:
        x = F.rms_norm(x, (x.shape[-1],), gain, eps)
    else:
        tokens = F.rms_norm(x.transpose(1, 2).flatten(2), (gain.numel(),), gain.flatten(), eps)
        x = tokens.unflatten(2, gain.shape).transpose(1, 2)
    x = x if x.dtype == dtype else x.to(dtype)  # autocast norms in fp32
    first, second = x.chunk(2, dim=-1)
    if torch.is_grad_enabled():
        return torch.cat(
            [torch.addcmul(first * cos, second, sin, value=-1), torch.addcmul(first * sin, second, cos)], dim=-1
        )
    crossed = first * sin  # the rest in place, in what the norm has made: a quarter faster on a CPU
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(crossed)
    return x


def _check(
    q: Tensor, k: Tensor, q_gain: Tensor, k_gain: Tensor, cos: Tensor, sin: Tensor, out: tuple[Tensor, Tensor] | None
) -> None:
    if q.ndim != 4 or q.shape != k.shape:
        raise ValueError(f"q and k must be [B, N, L, d] of one shape, got {list(q.shape)} and {list(k.shape)}")
    heads, length, head_dim = q.shape[1:]
    if head_dim % 2 or not 2 <= head_dim <= MAX_HEAD_DIM:
        raise ValueError(f"head dim must be even and within 2..{MAX_HEAD_DIM}, got {head_dim}")
    require_dtype("q", q)
    require_same("q", q, "k", k)
    for name, gain in (("q_gain", q_gain), ("k_gain", k_gain)):
        require_dtype(name, gain)
        require_device(name, gain, "q", q)
        if tuple(gain.shape) not in ((head_dim,), (heads, head_dim)):
            raise ValueError(f"{name} must be [{head_dim}] or [{heads}, {head_dim}], got {list(gain.shape)}")
    if q_gain.ndim != k_gain.ndim:
        raise ValueError("q_gain and k_gain must have one shape")
    for name, angles in (("cosines", cos), ("sines", sin)):
        require_dtype(name, angles)
        require_device(name, angles, "q", q)
        if tuple(angles.shape) != (length, head_dim // 2):
            raise ValueError(f"{name} must be [L, d / 2] = [{length}, {head_dim // 2}], got {list(angles.shape)}")
    if out is not None:
        for name, target in zip(("out[0]", "out[1]"), out, strict=True):
            require_same(name, target, "q", q)
            if target.shape != q.shape:
                raise ValueError(f"{name} must be like q {list(q.shape)}, got {list(target.shape)}")
