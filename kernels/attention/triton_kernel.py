"""Attention as one Triton kernel: flash style, online softmax, fp32 accumulators.

One program handles one tile of queries of one head. All masks come down to one interval of keys per query:
`first_key` is common to the tile (tiles never cross a key-window group) and each row has its own end. So
a tile walks first over the blocks that all its rows see whole, with no mask, then over the few that need
one.

A cached prefix is a second pair of key and value tensors whose keys come first; the tile walks over it in the same
way and then over the others. With 8-bit scores q and k are int8 with one scale a row (`int8.py`), their products
are exact in int32, and the rest is the same.

Rounding: q·k is accumulated in fp32; the softmax runs in fp32 in base 2; its weights are rounded to the
dtype of v for the second product, which is accumulated in fp32; the result is rounded once.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.int8 import key_mean
from kernels.dispatch import compute_capability, is_interpreting

LOG2_E = 1.4426950408889634


class Tile(NamedTuple):
    """How the kernel is cut: queries and keys a tile, warps a program, stages of the load pipeline."""

    queries: int
    keys: int
    warps: int
    stages: int


# (bytes an element, padded head dim) -> tile, for each family of shared memory size. None spills registers
# (tests/kernels/compile_kernels.py --all shows what a row needs, without a GPU); chosen by that and by what is
# common for these GPUs, not yet by timing: benchmarks/bench_kernels.py --tiles compares.
LARGE_SMEM_TILES = {  # compute capability 9.x and 10.x: 227 KiB a program
    (2, 64): Tile(128, 64, 4, 3),
    (2, 128): Tile(128, 128, 8, 2),
    (2, 256): Tile(64, 64, 8, 2),
    (4, 64): Tile(64, 32, 8, 2),
    (4, 128): Tile(32, 32, 8, 2),
    (4, 256): Tile(16, 16, 4, 2),
}
SMALL_SMEM_TILES = {  # everything else: 99 KiB a program
    (2, 64): Tile(128, 64, 4, 3),
    (2, 128): Tile(64, 64, 4, 2),
    (2, 256): Tile(64, 32, 8, 2),
    (4, 64): Tile(64, 32, 8, 2),
    (4, 128): Tile(32, 32, 8, 2),
    (4, 256): Tile(16, 16, 4, 2),
}


def choose_tile(element_bytes: int, padded_head_dim: int, group_length: int, key_count: int, major: int) -> Tile:
    """The tile for these sizes on compute capability `major`.x; short inputs get smaller tiles."""
    tiles = LARGE_SMEM_TILES if major in (9, 10) else SMALL_SMEM_TILES
    tile = tiles[element_bytes, max(padded_head_dim, 64)]
    queries = min(tile.queries, _padded(group_length))
    keys = min(tile.keys, _padded(key_count))
    warps = tile.warps if queries == tile.queries else min(tile.warps, 4)
    return Tile(queries, keys, warps, tile.stages)


def attention_triton(
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
    tile: Tile | None = None,
) -> Tensor:
    """Launch the kernel; arguments as in `kernels.attention.attention`, already checked.

    The result [B, N, Lq, d] is laid out in memory as [B, Lq, N, d], so that joining the heads afterwards
    is a view. `tile` overrides `choose_tile` (for tuning).
    """
    batch, heads, query_count, head_dim = q.shape
    output = q.new_empty(batch, query_count, heads, head_dim).transpose(1, 2)
    q_scales = k_scales = None
    if is_int8:
        from kernels.attention.int8_kernel import quantise_rows_triton

        if prefix_kv is not None:  # all keys need the same mean
            k, v = (torch.cat(pair, dim=2) for pair in zip(prefix_kv, (k, v), strict=True))
            prefix_kv = None
        q, q_scales = quantise_rows_triton(q)
        k, k_scales = quantise_rows_triton(k, key_mean(k))
    k_cache, v_cache = (k, v) if prefix_kv is None else prefix_kv
    cache_length = 0 if prefix_kv is None else k_cache.shape[2]
    key_count = cache_length + k.shape[2]
    groups = 1 if key_windows is None else key_windows.shape[0]
    group_length = query_count // groups
    padded_head_dim = max(_padded(head_dim), 32) if is_int8 else _padded(head_dim)
    if tile is None:
        major = compute_capability(q.device)[0]
        tile = choose_tile(v.element_size(), padded_head_dim, group_length, key_count, major)
    is_tf32_allowed = torch.get_float32_matmul_precision() != "highest"

    tiles_per_group = triton.cdiv(group_length, tile.queries)
    with torch.cuda.device_of(q):
        _attention_kernel[(groups * tiles_per_group * batch * heads,)](
            q,
            k,
            v,
            k_cache,
            v_cache,
            q_scales,
            k_scales,
            output,
            key_lengths,
            key_windows.contiguous() if key_windows is not None else None,
            *q.stride(),
            *k.stride(),
            *v.stride(),
            *k_cache.stride(),
            *v_cache.stride(),
            *output.stride(),
            key_lengths.stride(0) if key_lengths is not None else 0,
            heads,
            groups * tiles_per_group,
            query_count,
            key_count,
            cache_length,
            group_length,
            tiles_per_group,
            prefix_length,
            query_offset,
            scale * LOG2_E,
            HEAD_DIM=head_dim,
            BLOCK_D=padded_head_dim,
            BLOCK_M=tile.queries,
            BLOCK_N=tile.keys,
            HAS_LENGTHS=key_lengths is not None,
            HAS_WINDOWS=key_windows is not None,
            HAS_CACHE=prefix_kv is not None,
            IS_INT8=is_int8,
            PRECISION="tf32" if is_tf32_allowed else "ieee",
            UPCAST=is_interpreting(),
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=True,
        )
    return output


def _padded(size: int) -> int:
    """The next power of two, at least 16 (the smallest side of a tensor-core product)."""
    return max(16, triton.next_power_of_2(size))


@triton.jit
def _dot(a, b, accumulator, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    """accumulator + a b, in fp32."""
    if UPCAST:  # the interpreter multiplies the bit patterns of bf16
        return tl.dot(a.to(tl.float32), b.to(tl.float32), accumulator, input_precision=PRECISION)
    else:
        return tl.dot(a, b, accumulator, input_precision=PRECISION)


@triton.jit
def _attend_blocks(
    accumulator,
    row_max,
    row_sum,
    q,
    q_scales,
    k_ptrs,
    v_ptrs,
    k_scales_ptr,
    k_step,
    v_step,
    first_key,
    last_key,
    row_end,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_MASKED: tl.constexpr,
    IS_INT8: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Fold keys first_key..last_key into the running softmax; `k_ptrs`, `v_ptrs` point at key 0."""
    columns = tl.arange(0, BLOCK_N)
    channels = tl.arange(0, BLOCK_D)
    for start in range(first_key, last_key, BLOCK_N):
        k_block = k_ptrs + tl.cast(start, tl.int64) * k_step
        v_block = v_ptrs + tl.cast(start, tl.int64) * v_step
        if IS_MASKED:
            keys = start + columns
            k = tl.load(k_block, mask=(channels < HEAD_DIM)[:, None] & (keys < last_key)[None, :], other=0.0)
            v = tl.load(v_block, mask=(keys < last_key)[:, None] & (channels < HEAD_DIM)[None, :], other=0.0)
        elif HEAD_DIM == BLOCK_D:
            k = tl.load(k_block)
            v = tl.load(v_block)
        else:
            k = tl.load(k_block, mask=(channels < HEAD_DIM)[:, None], other=0.0)
            v = tl.load(v_block, mask=(channels < HEAD_DIM)[None, :], other=0.0)

        if IS_INT8:
            products = tl.dot(q, k, tl.zeros([q.shape[0], BLOCK_N], dtype=tl.int32), out_dtype=tl.int32)
            k_scales = tl.load(k_scales_ptr + start + columns, mask=start + columns < last_key, other=0.0)
            scores = products.to(tl.float32) * q_scales[:, None] * k_scales[None, :]
        else:
            scores = _dot(q, k, tl.zeros([q.shape[0], BLOCK_N], dtype=tl.float32), PRECISION, UPCAST)
        if IS_MASKED:
            scores = tl.where(keys[None, :] < row_end[:, None], scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
        # Rows that have seen no key yet keep -inf as their maximum; subtracting it would give NaN.
        shift = tl.where(new_max == float("-inf"), 0.0, new_max) if IS_MASKED else new_max
        weights = tl.exp2(scores * scale_log2 - shift[:, None])
        correction = tl.exp2(row_max - shift)
        row_sum = row_sum * correction + tl.sum(weights, 1)
        accumulator = accumulator * correction[:, None]
        accumulator = _dot(weights.to(v.dtype), v, accumulator, PRECISION, UPCAST)
        row_max = new_max
    return accumulator, row_max, row_sum


@triton.jit
def _attend_run(
    accumulator,
    row_max,
    row_sum,
    q,
    q_scales,
    k_head,
    v_head,
    k_scales_ptr,
    k_stride_l,
    k_stride_d,
    v_stride_l,
    v_stride_d,
    first_key,
    shortest_end,
    longest_end,
    row_end,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    IS_INT8: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Fold keys from first_key to the rows' ends: blocks that all rows see whole first, with no mask."""
    columns = tl.arange(0, BLOCK_N)
    channels = tl.arange(0, BLOCK_D)
    k_ptrs = k_head + channels[:, None] * k_stride_d + columns[None, :] * k_stride_l
    v_ptrs = v_head + columns[:, None] * v_stride_l + channels[None, :] * v_stride_d
    unmasked_end = first_key + tl.maximum(shortest_end - first_key, 0) // BLOCK_N * BLOCK_N
    accumulator, row_max, row_sum = _attend_blocks(
        accumulator, row_max, row_sum, q, q_scales, k_ptrs, v_ptrs, k_scales_ptr, k_stride_l, v_stride_l,
        first_key, unmasked_end, row_end, scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, False, IS_INT8, PRECISION, UPCAST,
    )  # fmt: skip
    return _attend_blocks(
        accumulator, row_max, row_sum, q, q_scales, k_ptrs, v_ptrs, k_scales_ptr, k_stride_l, v_stride_l,
        unmasked_end, longest_end, row_end, scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, True, IS_INT8, PRECISION, UPCAST,
    )  # fmt: skip


@triton.jit
def _attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    k_cache_ptr,
    v_cache_ptr,
    q_scales_ptr,
    k_scales_ptr,
    output_ptr,
    lengths_ptr,
    windows_ptr,
    q_stride_b,
    q_stride_n,
    q_stride_l,
    q_stride_d,
    k_stride_b,
    k_stride_n,
    k_stride_l,
    k_stride_d,
    v_stride_b,
    v_stride_n,
    v_stride_l,
    v_stride_d,
    k_cache_stride_b,
    k_cache_stride_n,
    k_cache_stride_l,
    k_cache_stride_d,
    v_cache_stride_b,
    v_cache_stride_n,
    v_cache_stride_l,
    v_cache_stride_d,
    output_stride_b,
    output_stride_n,
    output_stride_l,
    output_stride_d,
    lengths_stride,
    heads,
    tiles,
    query_count,
    key_count,
    cache_length,
    group_length,
    tiles_per_group,
    prefix_length,
    query_offset,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    HAS_WINDOWS: tl.constexpr,
    HAS_CACHE: tl.constexpr,
    IS_INT8: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    # Tiles of the prefix see fewer keys: start the long ones first.
    tile_index = tiles - 1 - tl.program_id(0) % tiles
    group = tile_index // tiles_per_group
    row_in_group = (tile_index % tiles_per_group) * BLOCK_M
    head = (tl.program_id(0) // tiles % heads).to(tl.int64)
    batch = (tl.program_id(0) // tiles // heads).to(tl.int64)

    first_key = 0
    key_end = key_count
    if HAS_LENGTHS:
        key_end = tl.minimum(key_end, tl.load(lengths_ptr + batch * lengths_stride).to(tl.int32))
    if HAS_WINDOWS:
        first_key = tl.maximum(tl.load(windows_ptr + 2 * group).to(tl.int32), 0)
        key_end = tl.minimum(key_end, tl.load(windows_ptr + 2 * group + 1).to(tl.int32))

    # Positions only grow along a tile, so its first row has the earliest end and its last row the latest.
    rows = group * group_length + row_in_group + tl.arange(0, BLOCK_M)
    rows_end = group * group_length + tl.minimum(row_in_group + BLOCK_M, group_length)
    first_position = query_offset + group * group_length + row_in_group
    prefix_end = tl.minimum(key_end, prefix_length)
    row_end = tl.where(query_offset + rows < prefix_length, prefix_end, key_end)
    shortest_end = tl.where(first_position < prefix_length, prefix_end, key_end)
    longest_end = tl.where(query_offset + rows_end - 1 < prefix_length, prefix_end, key_end)

    channels = tl.arange(0, BLOCK_D)
    tile_mask = (rows < rows_end)[:, None] & (channels < HEAD_DIM)[None, :]
    row_offsets = rows.to(tl.int64)[:, None]
    q_head = q_ptr + batch * q_stride_b + head * q_stride_n
    q = tl.load(q_head + row_offsets * q_stride_l + channels[None, :] * q_stride_d, mask=tile_mask, other=0.0)
    q_scales = tl.full([BLOCK_M], 1.0, dtype=tl.float32)
    k_scales = k_scales_ptr
    if IS_INT8:
        line = batch * heads + head
        q_scales = tl.load(q_scales_ptr + line * query_count + rows, mask=rows < rows_end, other=0.0)
        k_scales = k_scales_ptr + line * key_count
    k_head = k_ptr + batch * k_stride_b + head * k_stride_n
    v_head = v_ptr + batch * v_stride_b + head * v_stride_n

    accumulator = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    if HAS_CACHE:
        accumulator, row_max, row_sum = _attend_run(
            accumulator, row_max, row_sum, q, q_scales,
            k_cache_ptr + batch * k_cache_stride_b + head * k_cache_stride_n,
            v_cache_ptr + batch * v_cache_stride_b + head * v_cache_stride_n,
            k_scales, k_cache_stride_l, k_cache_stride_d, v_cache_stride_l, v_cache_stride_d,
            first_key, tl.minimum(shortest_end, cache_length), tl.minimum(longest_end, cache_length),
            tl.minimum(row_end, cache_length), scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, IS_INT8, PRECISION, UPCAST,
        )  # fmt: skip
        first_key = tl.maximum(first_key - cache_length, 0)
        shortest_end -= cache_length
        longest_end -= cache_length
        row_end -= cache_length
    accumulator, row_max, row_sum = _attend_run(
        accumulator, row_max, row_sum, q, q_scales, k_head, v_head, k_scales,
        k_stride_l, k_stride_d, v_stride_l, v_stride_d, first_key, shortest_end, longest_end, row_end,
        scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, IS_INT8, PRECISION, UPCAST,
    )  # fmt: skip

    # Rows that saw no key have sum 0 and accumulator 0: divide by 1.
    accumulator = accumulator / tl.where(row_sum == 0.0, 1.0, row_sum)[:, None]
    output_tile = (
        output_ptr
        + batch * output_stride_b
        + head * output_stride_n
        + row_offsets * output_stride_l
        + channels[None, :] * output_stride_d
    )
    tl.store(output_tile, accumulator.to(output_ptr.dtype.element_ty), mask=tile_mask)
