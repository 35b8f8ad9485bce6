"""Forward attention, self and cross, with the masks that streaming video needs."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.attention.int8 import quantised
from kernels.attention.reference import allowed_keys, attention_reference
from kernels.dispatch import has_hopper_path, require_dtype, require_same, select_backend

MAX_HEAD_DIM = 256
_FEW_KEYS = 768


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
    prefix_kv: tuple[Tensor, Tensor] | None = None,
    is_int8: bool = False,
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
        prefix_kv: cached keys and values, both [B, N, Lc, d] like k and v, that come before k and v. Lengths, windows
            and `prefix_length` then count over Lc + Lk keys. The Triton kernels read both where they are.
        is_int8: multiply q and k as int8 (see `int8.py`; the error is stated in docs/kernels.md). "torch" and
            "reference" round in the same way and multiply in floating point.
        backend: see `kernels`.

    Lengths and windows are clamped to 0..Lk and read on the device, never on the host. A query that may
    see no key gives zeros.

    Returns [B, N, Lq, d] in the dtype of q. Scores, softmax and sums are fp32 in all backends. The Triton
    kernel and PyTorch's fused ones round the softmax weights to the dtype of v before the second product;
    the reference does not, so fp16 and bf16 differ from it by about one rounding. In fp32 the Triton
    kernel multiplies in full fp32 unless `torch.set_float32_matmul_precision` allows TF32.

    "triton" is the kernel of `hopper_kernel.py` on compute capability 9.x where it serves the call (half precision,
    head dim 64 or 128, no windows, no int8), else the portable one.

    Raises `ValueError` for shapes, dtypes, devices or options that do not fit.
    """
    cache_length = _check_inputs(q, k, v, prefix_kv)
    if scale is not None or prefix_length or query_offset or key_lengths is not None or key_windows is not None:
        _check_options(
            q, k.shape[2] + cache_length, scale, prefix_length, query_offset, key_lengths, key_windows
        )
    chosen = select_backend(backend, q, k, v)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if q.numel() == 0 or k.shape[2] + cache_length == 0:
        return torch.zeros_like(q)
    options: dict[str, Any] = {
        "scale": scale,
        "prefix_length": prefix_length,
        "query_offset": query_offset,
        "key_lengths": key_lengths,
        "prefix_kv": prefix_kv,
    }
    if chosen == "triton":
        return _attention_triton(q, k, v, key_windows, is_int8, options)
    run: Callable[..., Tensor] = attention_torch if chosen == "torch" else attention_reference
    return run(q, k, v, key_windows=key_windows, is_int8=is_int8, **options)


def _attention_triton(
    q: Tensor, k: Tensor, v: Tensor, key_windows: Tensor | None, is_int8: bool, options: dict[str, Any]
) -> Tensor:
    if has_hopper_path(q.device) and key_windows is None and not is_int8 and k.shape[2]:
        from kernels.attention.hopper_kernel import attention_hopper, is_served

        prefix_kv = options["prefix_kv"]
        sees_cache = prefix_kv is None or options["prefix_length"] <= options["query_offset"]
        if sees_cache and is_served(q, k, v, prefix_kv):
            return attention_hopper(q, k, v, **options)
    from kernels.attention.triton_kernel import attention_triton

    return attention_triton(q, k, v, key_windows=key_windows, is_int8=is_int8, **options)


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
    prefix_kv: tuple[Tensor, Tensor] | None = None,
    is_int8: bool = False,
) -> Tensor:
    """`attention` by PyTorch's fused kernels, with a mask only where slices cannot do its work."""
    if prefix_kv is not None:
        k, v = (torch.cat(pair, dim=2) for pair in zip(prefix_kv, (k, v), strict=True))
    if is_int8:
        q, k = (rounded.to(q.dtype) for rounded in quantised(q, k))
    if key_windows is not None and key_lengths is None and prefix_length <= query_offset and not q.is_cuda:
        return _attention_by_windows(q, k, v, key_windows, scale)
    if key_lengths is None and key_windows is None:
        prefix_queries = min(max(prefix_length - query_offset, 0), q.shape[2])
        if prefix_queries == 0:
            return _dense(q, k, v, scale)
        # Two dense calls: faster than one with a mask, and the fused kernels stay eligible.
        inside = _dense(q[:, :, :prefix_queries], k[:, :, :prefix_length], v[:, :, :prefix_length], scale)
        if prefix_queries == q.shape[2]:
            return inside
        outside = _dense(q[:, :, prefix_queries:], k, v, scale)
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


def _dense(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Every query over every key."""
    is_bf16_on_cpu = q.dtype == torch.bfloat16 and not q.is_cuda and not torch.is_grad_enabled()
    if is_bf16_on_cpu and k.shape[2] <= _FEW_KEYS and not _has_matrix_tiles():
        # Two products are 1.7 times as fast as the fused kernel until the scores outgrow the cache. They round the
        # scores to bf16: 0.4 % of the result instead of 0.2.
        return ((q * scale) @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, scale=scale)


@cache
def _has_matrix_tiles() -> bool:
    """Whether the CPU multiplies whole tiles (AMX), which PyTorch's fused kernel uses."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))


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


def _check_inputs(q: Tensor, k: Tensor, v: Tensor, prefix_kv: tuple[Tensor, Tensor] | None) -> int:
    """Returns the number of cached keys."""
    q_shape, k_shape = q.shape, k.shape
    if len(q_shape) != 4 or len(k_shape) != 4:
        raise ValueError(f"q and k must be [B, N, L, d], got {list(q_shape)} and {list(k_shape)}")
    if k_shape != v.shape:
        raise ValueError(f"k and v must have one shape, got {list(k_shape)} and {list(v.shape)}")
    if q_shape[:2] != k_shape[:2] or q_shape[3] != k_shape[3]:
        raise ValueError(f"q {list(q_shape)} and k {list(k_shape)} must agree in batch, heads and head dim")
    if not 1 <= q_shape[3] <= MAX_HEAD_DIM:
        raise ValueError(f"head dim must be 1..{MAX_HEAD_DIM}, got {q_shape[3]}")
    require_dtype("q", q)
    require_same("q", q, "k", k)
    require_same("q", q, "v", v)
    if prefix_kv is None:
        return 0
    for name, cached in zip(("prefix k", "prefix v"), prefix_kv, strict=True):
        require_same("q", q, name, cached)
        if cached.shape != prefix_kv[0].shape or cached.ndim != 4 or cached[:, :, :0].shape != k[:, :, :0].shape:
            raise ValueError(f"{name} must be like k {list(k_shape)} but for its tokens, got {list(cached.shape)}")
    return prefix_kv[0].shape[2]


def _check_options(
    q: Tensor,
    key_count: int,
    scale: float | None,
    prefix_length: int,
    query_offset: int,
    key_lengths: Tensor | None,
    key_windows: Tensor | None,
) -> None:
    if scale is not None and not 0.0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    if not 0 <= prefix_length <= key_count:
        raise ValueError(f"prefix_length must be 0..{key_count} (the number of keys), got {prefix_length}")
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
