"""Forward attention, self and cross, with the masks that streaming video needs."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention.reference import allowed_keys, attention_reference
from kernels.dispatch import require_same, select_backend

MAX_HEAD_DIM = 256
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    prefix_length: int = 0,
    query_offset: int = 0,
    key_lengths: Tensor | None = None,
    key_windows: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """softmax(scale · q kᵗ) v over the keys each query may see.

    Args:
        q: [B, N, Lq, d], fp32, bf16 or fp16, any strides; d is 1 to 256 (padded to a power of two).
        k, v: [B, N, Lk, d], dtype and device of q, any strides.
        scale: factor of the scores, > 0; default 1 / sqrt(d).
        prefix_length: P. Queries at positions below P see only keys below P; the others see every key.
            So the first P tokens do not depend on the rest, and their keys and values can be cached.
        query_offset: position of the first query. With cached prefix keys and values, pass the queries of
            the new tokens only, with `query_offset` = number of tokens before them.
        key_lengths: int32 or int64 [B]; row b sees only its first `key_lengths[b]` keys.
        key_windows: int32 or int64 [G, 2]; queries form G equal runs (Lq divisible by G; for instance one
            run a latent frame), and run g sees only the keys `start <= j < end` of its window.
        backend: see `kernels`.

    Lengths and windows are clamped to 0..Lk and read on the device, never on the host. A query that may
    see no key gives zeros.

    Returns [B, N, Lq, d] in the dtype of q. Scores, softmax and sums are fp32 in all backends. The Triton
    kernel and PyTorch's fused ones round the softmax weights to the dtype of v before the second product;
    the reference does not, so fp16 and bf16 differ from it by about one rounding. In fp32 the Triton
    kernel multiplies in full fp32 unless `torch.set_float32_matmul_precision` allows TF32.

    Raises `ValueError` for shapes, dtypes, devices or options that do not fit.
    """
    _check_inputs(q, k, v)
    _check_options(q, k, scale, prefix_length, query_offset, key_lengths, key_windows)
    chosen = select_backend(backend, q, k, v)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if q.numel() == 0 or k.shape[2] == 0:
        return torch.zeros_like(q)
    run: Callable[..., Tensor] = attention_torch if chosen == "torch" else attention_reference
    if chosen == "triton":
        from kernels.attention.triton_kernel import attention_triton

        run = attention_triton
    return run(
        q,
        k,
        v,
        scale=scale,
        prefix_length=prefix_length,
        query_offset=query_offset,
        key_lengths=key_lengths,
        key_windows=key_windows,
    )


def attention_torch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    prefix_length: int = 0,
    query_offset: int = 0,
    key_lengths: Tensor | None = None,
    key_windows: Tensor | None = None,
) -> Tensor:
    """`attention` by PyTorch's fused kernels, with a mask only where slices cannot do its work."""
    if key_windows is not None and key_lengths is None and prefix_length <= query_offset and not q.is_cuda:
        return _attention_by_windows(q, k, v, key_windows, scale)
    if key_lengths is None and key_windows is None:
        prefix_queries = min(max(prefix_length - query_offset, 0), q.shape[2])
        if prefix_queries == 0:
            return F.scaled_dot_product_attention(q, k, v, scale=scale)
        # Two dense calls: faster than one with a mask, and the fused kernels stay eligible.
        inside = F.scaled_dot_product_attention(
            q[:, :, :prefix_queries], k[:, :, :prefix_length], v[:, :, :prefix_length], scale=scale
        )
        if prefix_queries == q.shape[2]:
            return inside
        outside = F.scaled_dot_product_attention(q[:, :, prefix_queries:], k, v, scale=scale)
        return torch.cat([inside, outside], dim=2)
    allowed = allowed_keys(
        q.shape[2],
        k.shape[2],
        prefix_length=prefix_length,
        query_offset=query_offset,
        key_lengths=key_lengths,
        key_windows=key_windows,
        device=q.device,
    )
    # An empty row is NaN in some of PyTorch's kernels: let it see everything, then erase its result.
    has_keys = allowed.any(dim=-1, keepdim=True)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed | ~has_keys, scale=scale)
    return attended.masked_fill(~has_keys, 0.0)


def _attention_by_windows(q: Tensor, k: Tensor, v: Tensor, key_windows: Tensor, scale: float) -> Tensor:
    """One call a group on slices of the keys: about twice as fast on a CPU as one call with a mask."""
    parts = []
    for queries, window in zip(q.chunk(key_windows.shape[0], dim=2), key_windows.tolist(), strict=True):
        start, end = max(window[0], 0), min(window[1], k.shape[2])
        if start < end:
            keys, values = k[:, :, start:end], v[:, :, start:end]
            parts.append(F.scaled_dot_product_attention(queries, keys, values, scale=scale))
        else:
            parts.append(torch.zeros_like(queries))
    return torch.cat(parts, dim=2)


def _check_inputs(q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.ndim != 4 or k.ndim != 4:
        raise ValueError(f"q and k must be [B, N, L, d], got {list(q.shape)} and {list(k.shape)}")
    if k.shape != v.shape:
        raise ValueError(f"k and v must have one shape, got {list(k.shape)} and {list(v.shape)}")
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q {list(q.shape)} and k {list(k.shape)} must agree in batch, heads and head dim")
    if not 1 <= q.shape[3] <= MAX_HEAD_DIM:
        raise ValueError(f"head dim must be 1..{MAX_HEAD_DIM}, got {q.shape[3]}")
    if q.dtype not in DTYPES:
        raise ValueError(f"q must be fp32, bf16 or fp16, got {q.dtype}")
    require_same("q", q, "k", k)
    require_same("q", q, "v", v)


def _check_options(
    q: Tensor,
    k: Tensor,
    scale: float | None,
    prefix_length: int,
    query_offset: int,
    key_lengths: Tensor | None,
    key_windows: Tensor | None,
) -> None:
    if scale is not None and not 0.0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    if not 0 <= prefix_length <= k.shape[2]:
        raise ValueError(f"prefix_length must be 0..{k.shape[2]} (the number of keys), got {prefix_length}")
    if query_offset < 0:
        raise ValueError(f"query_offset must be at least 0, got {query_offset}")
    if key_lengths is not None:
        _check_indices("key_lengths", key_lengths, q)
        if key_lengths.shape != (q.shape[0],):
            raise ValueError(f"key_lengths must be [B] = [{q.shape[0]}], got {list(key_lengths.shape)}")
    if key_windows is not None:
        _check_indices("key_windows", key_windows, q)
        if key_windows.ndim != 2 or key_windows.shape[0] == 0 or key_windows.shape[1] != 2:
            raise ValueError(f"key_windows must be [G, 2] with G >= 1, got {list(key_windows.shape)}")
        if q.shape[2] % key_windows.shape[0]:
            raise ValueError(f"{q.shape[2]} queries do not split into {key_windows.shape[0]} equal groups")


def _check_indices(name: str, indices: Tensor, q: Tensor) -> None:
    if indices.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} must be int32 or int64, got {indices.dtype}")
    if indices.device != q.device:
        raise ValueError(f"{name} must be on {q.device} like q, got {indices.device}")
