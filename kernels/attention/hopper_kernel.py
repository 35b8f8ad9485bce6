"""Attention for Hopper: keys and values by tensor descriptors (TMA), as many programs as multiprocessors.

For what streaming runs most: dense windows, prefix-causal windows, and new tokens that also see a cached prefix.
Every tile of queries sees one or two runs of keys from their start to an end, so loads need no pointers and no
masks; what a descriptor reads outside is zero. Key windows, odd head dims and fp32 stay with the portable kernel.
The same code runs in the interpreter, where it is compared with the reference. Triton 3.9 leaves this loop as it is
when asked to specialise warps on Hopper, so the kernel does not ask.

Rounding is that of `triton_kernel`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.triton_kernel import LOG2_E, _dot
from kernels.dispatch import compute_capability, is_interpreting, multiprocessors

HEAD_DIMS = (64, 128)


class HopperTile(NamedTuple):
    """Queries and keys a tile, warps a program, stages of the load pipeline, programs a multiprocessor."""

    queries: int
    keys: int
    warps: int
    stages: int
    programs: int


# By head dim; none spills registers (tests/kernels/compile_kernels.py), not yet tuned by timing. Two programs share
# a multiprocessor at head dim 64, so that one multiplies while the other takes exponentials.
TILES = {64: HopperTile(128, 64, 4, 3, 2), 128: HopperTile(128, 128, 8, 2, 1)}
CACHED_TILES = {64: TILES[64], 128: HopperTile(128, 64, 8, 3, 1)}  # two runs of keys need more registers


def is_served(q: Tensor, k: Tensor, v: Tensor, prefix_kv: tuple[Tensor, Tensor] | None) -> bool:
    """Whether descriptors can read these tensors: half precision, head dim 64 or 128, 16-byte strides."""
    tensors = (q, k, v) if prefix_kv is None else (q, k, v, *prefix_kv)
    return (
        q.dtype in (torch.bfloat16, torch.float16)
        and q.shape[-1] in HEAD_DIMS
        and all(_has_descriptor(tensor) for tensor in tensors)
    )


def _has_descriptor(x: Tensor) -> bool:
    return x.stride(3) == 1 and x.data_ptr() % 16 == 0 and all(step > 0 and step % 8 == 0 for step in x.stride()[:3])


def attention_hopper(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    prefix_length: int = 0,
    query_offset: int = 0,
    key_lengths: Tensor | None = None,
    prefix_kv: tuple[Tensor, Tensor] | None = None,
    tile: HopperTile | None = None,
) -> Tensor:
    """Launch the kernel; arguments as in `kernels.attention.attention`, already checked, `is_served` true.

    With `prefix_kv` every query has to see all of the prefix (prefix_length <= query_offset).
    """
    batch, heads, query_count, head_dim = q.shape
    cache_length = 0 if prefix_kv is None else prefix_kv[0].shape[2]
    prefix_queries = min(max(prefix_length - query_offset, 0), query_count)
    assert not (prefix_queries and prefix_kv is not None)
    if tile is None:
        tile = (TILES if prefix_kv is None else CACHED_TILES)[head_dim]
    keys = min(tile.keys, max(16, triton.next_power_of_2(k.shape[2])))
    output = q.new_empty(batch, query_count, heads, head_dim).transpose(1, 2)
    prefix_tiles = triton.cdiv(prefix_queries, tile.queries)
    tiles = triton.cdiv(query_count - prefix_queries, tile.queries)
    total = (tiles + prefix_tiles) * batch * heads
    programs = min(total, multiprocessors(q.device) * tile.programs)
    k_cache, v_cache = (k, v) if prefix_kv is None else prefix_kv
    if q.is_cuda and compute_capability(q.device)[0] >= 9:
        triton.set_allocator(_workspace)
    with torch.cuda.device_of(q):
        _hopper_kernel[(programs,)](
            q,
            k,
            v,
            k_cache,
            v_cache,
            output,
            key_lengths,
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            *k_cache.stride()[:3],
            *v_cache.stride()[:3],
            *output.stride()[:3],
            key_lengths.stride(0) if key_lengths is not None else 0,
            batch,
            heads,
            query_count,
            k.shape[2],
            cache_length,
            prefix_queries,
            prefix_length,
            tiles,
            prefix_tiles,
            scale * LOG2_E,
            HEAD_DIM=head_dim,
            BLOCK_M=tile.queries,
            BLOCK_N=keys,
            HAS_CACHE=prefix_kv is not None,
            HAS_PREFIX=prefix_queries > 0,
            HAS_LENGTHS=key_lengths is not None,
            UPCAST=is_interpreting(),
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=True,
        )
    return output


def _workspace(size: int, alignment: int, stream: int | None) -> Tensor:
    """Memory in which the kernel keeps its descriptors."""
    return torch.empty(size, device="cuda", dtype=torch.int8)


@triton.jit
def _attend_block(
    accumulator,
    row_max,
    row_sum,
    q,
    k_desc,
    v_desc,
    batch,
    head,
    start,
    count,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_MASKED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Fold the block of keys at `start` into the running softmax; at least one key is seen already or in it."""
    k = k_desc.load([batch, head, start, 0]).reshape([BLOCK_N, HEAD_DIM])
    v = v_desc.load([batch, head, start, 0]).reshape([BLOCK_N, HEAD_DIM])
    scores = _dot(q, k.T, tl.zeros([q.shape[0], BLOCK_N], dtype=tl.float32), "ieee", UPCAST)
    if IS_MASKED:
        scores = tl.where((start + tl.arange(0, BLOCK_N))[None, :] < count, scores, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
    weights = tl.exp2(scores * scale_log2 - new_max[:, None])
    correction = tl.exp2(row_max - new_max)
    row_sum = row_sum * correction + tl.sum(weights, 1)
    accumulator = accumulator * correction[:, None]
    accumulator = _dot(weights.to(v.dtype), v, accumulator, "ieee", UPCAST)
    return accumulator, new_max, row_sum


@triton.jit
def _attend_run(
    accumulator,
    row_max,
    row_sum,
    q,
    k_desc,
    v_desc,
    batch,
    head,
    count,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Fold keys 0..count: whole blocks without a mask, then what is left with one."""
    whole = tl.maximum(count, 0) // BLOCK_N * BLOCK_N
    for start in range(0, whole, BLOCK_N):
        accumulator, row_max, row_sum = _attend_block(
            accumulator, row_max, row_sum, q, k_desc, v_desc, batch, head, start, count, scale_log2,
            HEAD_DIM, BLOCK_N, False, UPCAST,
        )  # fmt: skip
    if whole < count:
        accumulator, row_max, row_sum = _attend_block(
            accumulator, row_max, row_sum, q, k_desc, v_desc, batch, head, whole, count, scale_log2,
            HEAD_DIM, BLOCK_N, True, UPCAST,
        )  # fmt: skip
    return accumulator, row_max, row_sum


@triton.jit
def _heads_of(
    ptr, batch, heads, count, stride_b, stride_n, stride_l, HEAD_DIM: tl.constexpr, BLOCK: tl.constexpr
):
    """Descriptor of [B, N, count, d] that moves blocks of tokens of one head."""
    return tl.make_tensor_descriptor(
        ptr,
        shape=[batch, heads, count, HEAD_DIM],
        strides=[stride_b, stride_n, stride_l, 1],
        block_shape=[1, 1, BLOCK, HEAD_DIM],
    )


@triton.jit
def _hopper_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    k_cache_ptr,
    v_cache_ptr,
    output_ptr,
    lengths_ptr,
    q_stride_b,
    q_stride_n,
    q_stride_l,
    k_stride_b,
    k_stride_n,
    k_stride_l,
    v_stride_b,
    v_stride_n,
    v_stride_l,
    k_cache_stride_b,
    k_cache_stride_n,
    k_cache_stride_l,
    v_cache_stride_b,
    v_cache_stride_n,
    v_cache_stride_l,
    output_stride_b,
    output_stride_n,
    output_stride_l,
    lengths_stride,
    batch_count,
    heads,
    query_count,
    key_count,
    cache_length,
    prefix_queries,
    prefix_length,
    tiles,
    prefix_tiles,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_CACHE: tl.constexpr,
    HAS_PREFIX: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    q_desc = _heads_of(
        q_ptr, batch_count, heads, query_count, q_stride_b, q_stride_n, q_stride_l, HEAD_DIM, BLOCK_M
    )
    k_desc = _heads_of(k_ptr, batch_count, heads, key_count, k_stride_b, k_stride_n, k_stride_l, HEAD_DIM, BLOCK_N)
    v_desc = _heads_of(v_ptr, batch_count, heads, key_count, v_stride_b, v_stride_n, v_stride_l, HEAD_DIM, BLOCK_N)
    output_desc = _heads_of(
        output_ptr, batch_count, heads, query_count, output_stride_b, output_stride_n, output_stride_l,
        HEAD_DIM, BLOCK_M,
    )  # fmt: skip
    if HAS_PREFIX:  # ends with the prefix, so that its last tile does not write over the first new tokens
        prefix_output_desc = _heads_of(
            output_ptr, batch_count, heads, prefix_queries, output_stride_b, output_stride_n, output_stride_l,
            HEAD_DIM, BLOCK_M,
        )  # fmt: skip
    if HAS_CACHE:
        k_cache_desc = _heads_of(
            k_cache_ptr, batch_count, heads, cache_length, k_cache_stride_b, k_cache_stride_n, k_cache_stride_l,
            HEAD_DIM, BLOCK_N,
        )  # fmt: skip
        v_cache_desc = _heads_of(
            v_cache_ptr, batch_count, heads, cache_length, v_cache_stride_b, v_cache_stride_n, v_cache_stride_l,
            HEAD_DIM, BLOCK_N,
        )  # fmt: skip

    # All long tiles before the short ones of the prefix; the tiles of a head side by side, for its keys in the L2.
    long_tiles = tiles * batch_count * heads
    all_tiles = long_tiles + prefix_tiles * batch_count * heads
    for index in range(tl.program_id(0), all_tiles, tl.num_programs(0)):
        is_long = index < long_tiles
        tiles_a_head = tl.where(is_long, tiles, tl.maximum(prefix_tiles, 1))
        place = tl.where(is_long, index, index - long_tiles)
        line = place // tiles_a_head
        batch = line // heads
        head = line % heads
        row = place % tiles_a_head * BLOCK_M + tl.where(is_long, prefix_queries, 0)
        count = tl.where(is_long, key_count, tl.minimum(key_count, prefix_length))
        if HAS_LENGTHS:
            length = tl.load(lengths_ptr + batch * lengths_stride).to(tl.int32)
            count = tl.minimum(count, length - cache_length)

        q = q_desc.load([batch, head, row, 0]).reshape([BLOCK_M, HEAD_DIM])
        accumulator = tl.zeros([BLOCK_M, HEAD_DIM], dtype=tl.float32)
        row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
        row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
        if HAS_CACHE:
            cached = cache_length
            if HAS_LENGTHS:
                cached = tl.minimum(cached, length)
            accumulator, row_max, row_sum = _attend_run(
                accumulator, row_max, row_sum, q, k_cache_desc, v_cache_desc, batch, head, cached, scale_log2,
                HEAD_DIM, BLOCK_N, UPCAST,
            )  # fmt: skip
        accumulator, row_max, row_sum = _attend_run(
            accumulator, row_max, row_sum, q, k_desc, v_desc, batch, head, count, scale_log2,
            HEAD_DIM, BLOCK_N, UPCAST,
        )  # fmt: skip

        # Rows that saw no key have sum 0 and accumulator 0: divide by 1.
        attended = accumulator / tl.where(row_sum == 0.0, 1.0, row_sum)[:, None]
        attended = attended.to(output_ptr.dtype.element_ty).reshape([1, 1, BLOCK_M, HEAD_DIM])
        if HAS_PREFIX:
            if is_long:
                output_desc.store([batch, head, row, 0], attended)
            else:
                prefix_output_desc.store([batch, head, row, 0], attended)
        else:
            output_desc.store([batch, head, row, 0], attended)
