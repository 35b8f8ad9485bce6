"""The definition of attention: one masked softmax over all keys, in fp32."""

import torch
from torch import Tensor

from kernels.attention.int8 import quantised


def allowed_keys(
    query_count: int,
    key_count: int,
    *,
    prefix_length: int,
    query_offset: int,
    key_lengths: Tensor | None,
    key_windows: Tensor | None,
    device: torch.device,
) -> Tensor:
    """Which keys each query may see: bool [B or 1, 1, Lq, Lk].

    Key j is allowed for query i (at position `query_offset + i`) of row b when all of these hold:
    `j < key_lengths[b]`; `j < prefix_length` or the query's position is at least `prefix_length`;
    `key_windows[g, 0] <= j < key_windows[g, 1]` for the query's group g.
    """
    keys = torch.arange(key_count, device=device)
    positions = torch.arange(query_count, device=device) + query_offset
    allowed = (keys < prefix_length) | (positions >= prefix_length)[:, None]
    if key_windows is not None:
        windows = key_windows.repeat_interleave(query_count // key_windows.shape[0], dim=0)
        allowed = allowed & (keys >= windows[:, :1]) & (keys < windows[:, 1:])
    allowed = allowed[None, None]
    if key_lengths is not None:
        allowed = allowed & (keys < key_lengths[:, None, None, None])
    return allowed


def attention_reference(
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
    """softmax(scale · q kᵗ over the allowed keys) v, for q [B, N, Lq, d] and k, v [B, N, Lk, d].

    The keys and values of `prefix_kv` come before k and v. With `is_int8`, q and k are first rounded as in `int8`.
    Everything is computed in fp32 and rounded once, to the dtype of q. A query that may see no key gives
    zeros.
    """
    if prefix_kv is not None:
        k, v = (torch.cat(pair, dim=2) for pair in zip(prefix_kv, (k, v), strict=True))
    allowed = allowed_keys(
        q.shape[2],
        k.shape[2],
        prefix_length=prefix_length,
        query_offset=query_offset,
        key_lengths=key_lengths,
        key_windows=key_windows,
        device=q.device,
    )
    queries, keys = quantised(q, k) if is_int8 else (q.float(), k.float())
    scores = (queries @ keys.transpose(-1, -2)) * scale
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    weights = weights.masked_fill(~allowed, 0.0)  # softmax of an empty row is NaN
    return (weights @ v.float()).to(q.dtype)
