"""Both attentions of Eq. 4 as one Triton kernel: q is read once, the sum written once.

One program handles one tile of tokens of one latent frame and one head: first the text, then the audio keys of that
frame, each with an online softmax. The keys of all streams are walked over as one run with a mask, except that a
tile passes over the streams that none of its tokens hears.

Rounding: scores, softmax and both sums are fp32; the softmax weights are rounded to the dtype of the values; the sum
of the two results is rounded once.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.attention.triton_kernel import LOG2_E, _dot, _padded
from kernels.dispatch import is_interpreting


class Tile(NamedTuple):
    """Tokens, text keys and audio keys a step, warps a program, stages of the load pipeline."""

    tokens: int
    text_keys: int
    audio_keys: int
    warps: int
    stages: int


# (bytes an element, padded head dim) -> tile; none spills registers on Hopper (tests/kernels/compile_kernels.py),
# not yet tuned by timing.
TILES = {
    (2, 64): Tile(128, 64, 32, 4, 2),
    (2, 128): Tile(128, 64, 32, 8, 2),
    (2, 256): Tile(64, 32, 32, 8, 2),
    (4, 64): Tile(64, 32, 32, 8, 2),
    (4, 128): Tile(32, 16, 16, 8, 2),
    (4, 256): Tile(16, 16, 16, 4, 2),
}


def choose_tile(element_bytes: int, padded_head_dim: int, tokens: int, text_keys: int, audio_keys: int) -> Tile:
    """The tile for these sizes; short inputs get smaller ones."""
    tile = TILES[element_bytes, max(padded_head_dim, 64)]
    queries = min(tile.tokens, _padded(tokens))
    warps = tile.warps if queries == tile.tokens else min(tile.warps, 4)
    return Tile(
        queries, min(tile.text_keys, _padded(text_keys)), min(tile.audio_keys, _padded(audio_keys)), warps, tile.stages
    )


def dual_cross_attention_triton(
    q: Tensor,
    text_k: Tensor,
    text_v: Tensor,
    audio_k: Tensor,
    audio_v: Tensor,
    *,
    scale: float,
    stream_index: Tensor | None,
    text_lengths: Tensor | None,
    tile: Tile | None = None,
) -> Tensor:
    """Launch the kernel; arguments as in `kernels.dual_cross_attention`, already checked. `tile` is for tuning."""
    batch, heads, frames, tokens, head_dim = q.shape
    output = q.new_empty(batch, frames, tokens, heads, head_dim).permute(0, 3, 1, 2, 4)
    if q.numel() == 0:
        return output
    padded_head_dim = _padded(head_dim)
    text_count, audio_count = text_k.shape[2], audio_k.shape[4]
    tile = choose_tile(q.element_size(), padded_head_dim, tokens, text_count, audio_count) if tile is None else tile
    is_tf32_allowed = torch.get_float32_matmul_precision() != "highest"
    with torch.cuda.device_of(q):
        _dual_cross_attention_kernel[(triton.cdiv(tokens, tile.tokens), frames, batch * heads)](
            q,
            text_k,
            text_v,
            audio_k,
            audio_v,
            output,
            stream_index,
            text_lengths,
            *q.stride(),
            *text_k.stride(),
            *text_v.stride(),
            *audio_k.stride(),
            *audio_v.stride(),
            *output.stride(),
            *(stream_index.stride() if stream_index is not None else (0, 0)),
            text_lengths.stride(0) if text_lengths is not None else 0,
            heads,
            tokens,
            text_count,
            audio_count,
            audio_k.shape[1],
            scale * LOG2_E,
            HEAD_DIM=head_dim,
            BLOCK_D=padded_head_dim,
            BLOCK_M=tile.tokens,
            BLOCK_N=tile.text_keys,
            BLOCK_A=tile.audio_keys,
            HAS_STREAMS=stream_index is not None,
            HAS_LENGTHS=text_lengths is not None,
            PRECISION="tf32" if is_tf32_allowed else "ieee",
            UPCAST=is_interpreting(),
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=True,
        )
    return output


@triton.jit
def _attend_masked(
    accumulator,
    row_max,
    row_sum,
    q,
    k_ptr,
    v_ptr,
    k_step,
    k_stride_d,
    v_step,
    v_stride_d,
    count,
    is_hearing,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Fold keys 0..count into the running softmax of the rows that `is_hearing`."""
    channels = tl.arange(0, BLOCK_D)
    is_channel = channels < HEAD_DIM
    for start in range(0, count, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        is_key = keys < count
        places = keys.to(tl.int64)
        k = tl.load(
            k_ptr + channels[:, None] * k_stride_d + places[None, :] * k_step,
            mask=is_channel[:, None] & is_key[None, :],
            other=0.0,
        )
        v = tl.load(
            v_ptr + places[:, None] * v_step + channels[None, :] * v_stride_d,
            mask=is_key[:, None] & is_channel[None, :],
            other=0.0,
        )
        scores = _dot(q, k, tl.zeros([q.shape[0], BLOCK], dtype=tl.float32), PRECISION, UPCAST)
        is_seen = is_key[None, :]
        if HAS_ROWS:
            is_seen = is_seen & is_hearing[:, None]
        scores = tl.where(is_seen, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1) * scale_log2)
        # Rows that have heard nothing yet keep -inf as their maximum; subtracting it would give NaN.
        shift = tl.where(new_max == float("-inf"), 0.0, new_max)
        weights = tl.exp2(scores * scale_log2 - shift[:, None])
        correction = tl.exp2(row_max - shift)
        row_sum = row_sum * correction + tl.sum(weights, 1)
        accumulator = accumulator * correction[:, None]
        accumulator = _dot(weights.to(v.dtype), v, accumulator, PRECISION, UPCAST)
        row_max = new_max
    return accumulator, row_max, row_sum


@triton.jit
def _dual_cross_attention_kernel(
    q_ptr,
    text_k_ptr,
    text_v_ptr,
    audio_k_ptr,
    audio_v_ptr,
    output_ptr,
    streams_ptr,
    lengths_ptr,
    q_stride_b,
    q_stride_n,
    q_stride_t,
    q_stride_s,
    q_stride_d,
    text_k_stride_b,
    text_k_stride_n,
    text_k_stride_l,
    text_k_stride_d,
    text_v_stride_b,
    text_v_stride_n,
    text_v_stride_l,
    text_v_stride_d,
    audio_k_stride_b,
    audio_k_stride_a,
    audio_k_stride_n,
    audio_k_stride_t,
    audio_k_stride_l,
    audio_k_stride_d,
    audio_v_stride_b,
    audio_v_stride_a,
    audio_v_stride_n,
    audio_v_stride_t,
    audio_v_stride_l,
    audio_v_stride_d,
    output_stride_b,
    output_stride_n,
    output_stride_t,
    output_stride_s,
    output_stride_d,
    streams_stride_b,
    streams_stride_s,
    lengths_stride,
    heads,
    tokens,
    text_count,
    audio_count,
    streams,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_A: tl.constexpr,
    HAS_STREAMS: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    PRECISION: tl.constexpr,
    UPCAST: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    frame = tl.program_id(1).to(tl.int64)
    batch = (tl.program_id(2) // heads).to(tl.int64)
    head = (tl.program_id(2) % heads).to(tl.int64)
    channels = tl.arange(0, BLOCK_D)
    is_row = rows < tokens
    tile_mask = is_row[:, None] & (channels < HEAD_DIM)[None, :]
    row_offsets = rows.to(tl.int64)[:, None]
    q_frame = q_ptr + batch * q_stride_b + head * q_stride_n + frame * q_stride_t
    q = tl.load(q_frame + row_offsets * q_stride_s + channels[None, :] * q_stride_d, mask=tile_mask, other=0.0)

    if HAS_LENGTHS:
        text_count = tl.minimum(text_count, tl.load(lengths_ptr + batch * lengths_stride).to(tl.int32))
    accumulator = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    accumulator, row_max, row_sum = _attend_masked(
        accumulator, row_max, row_sum, q,
        text_k_ptr + batch * text_k_stride_b + head * text_k_stride_n,
        text_v_ptr + batch * text_v_stride_b + head * text_v_stride_n,
        text_k_stride_l, text_k_stride_d, text_v_stride_l, text_v_stride_d, text_count, is_row,
        scale_log2, HEAD_DIM, BLOCK_D, BLOCK_N, False, PRECISION, UPCAST,
    )  # fmt: skip
    # Rows without text have sum 0 and accumulator 0: divide by 1.
    from_text = accumulator / tl.where(row_sum == 0.0, 1.0, row_sum)[:, None]

    accumulator = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    audio_k_frame = audio_k_ptr + batch * audio_k_stride_b + head * audio_k_stride_n + frame * audio_k_stride_t
    audio_v_frame = audio_v_ptr + batch * audio_v_stride_b + head * audio_v_stride_n + frame * audio_v_stride_t
    if HAS_STREAMS:
        index_ptrs = streams_ptr + batch * streams_stride_b + rows * streams_stride_s
        index = tl.load(index_ptrs, mask=is_row, other=0).to(tl.int32)
        first = tl.maximum(tl.min(tl.where(is_row, index, streams), 0), 0)
        last = tl.minimum(tl.max(tl.where(is_row, index, -1), 0), streams - 1)
        for stream in range(first, last + 1):
            offset = tl.cast(stream, tl.int64)
            accumulator, row_max, row_sum = _attend_masked(
                accumulator, row_max, row_sum, q,
                audio_k_frame + offset * audio_k_stride_a, audio_v_frame + offset * audio_v_stride_a,
                audio_k_stride_l, audio_k_stride_d, audio_v_stride_l, audio_v_stride_d, audio_count, index == stream,
                scale_log2, HEAD_DIM, BLOCK_D, BLOCK_A, True, PRECISION, UPCAST,
            )  # fmt: skip
    else:
        accumulator, row_max, row_sum = _attend_masked(
            accumulator, row_max, row_sum, q, audio_k_frame, audio_v_frame,
            audio_k_stride_l, audio_k_stride_d, audio_v_stride_l, audio_v_stride_d, audio_count, is_row,
            scale_log2, HEAD_DIM, BLOCK_D, BLOCK_A, False, PRECISION, UPCAST,
        )  # fmt: skip
    result = from_text + accumulator / tl.where(row_sum == 0.0, 1.0, row_sum)[:, None]

    output_tile = (
        output_ptr
        + batch * output_stride_b
        + head * output_stride_n
        + frame * output_stride_t
        + row_offsets * output_stride_s
        + channels[None, :] * output_stride_d
    )
    tl.store(output_tile, result.to(output_ptr.dtype.element_ty), mask=tile_mask)
