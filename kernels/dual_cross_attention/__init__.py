"""Decoupled cross-attention of the audio-to-video model: text and sound, each with its own softmax (Eq. 4).

    softmax(q text_kᵗ) text_v + softmax(q audio_kᵗ) audio_v

Each latent frame hears its own window of audio keys, and each place of the picture its own sound stream.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import require_device, require_dtype, require_same, select_backend
from kernels.dual_cross_attention.reference import dual_cross_attention_reference

__all__ = ["dual_cross_attention"]

MAX_HEAD_DIM = 256


def dual_cross_attention(
    q: Tensor,
    text_k: Tensor,
    text_v: Tensor,
    audio_k: Tensor,
    audio_v: Tensor,
    *,
    scale: float | None = None,
    stream_index: Tensor | None = None,
    text_lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Both attentions of Eq. 4 and their sum; with Triton in one launch that reads q once.

    Args:
        q: [B, N, T, S, d], T latent frames of S tokens; fp32, bf16 or fp16, any strides; d is 1 to 256.
        text_k, text_v: [B, N, Lt, d], like q in dtype and device, any strides.
        audio_k, audio_v: [B, A, N, T, K, d], K keys a frame of each of A sound streams, like q, any strides. Windows
            that overlap in one sequence of keys need no copy: `sequence.unfold(dim, K, step)` is such a view.
        scale: of the scores, > 0; default 1 / sqrt(d).
        stream_index: int32 or int64 [B, S], the stream in 0..A-1 of each token of the picture; None: all hear the
            first one.
        text_lengths: int32 or int64 [B]; row b sees its first `text_lengths[b]` text keys. A row that sees none
            gives the audio part alone.
        backend: see `kernels`.

    Returns [B, N, T, S, d] in the dtype of q; from Triton laid out in memory as [B, T, S, N, d], so that joining the
    heads is a view. The kernel keeps both sums in fp32 and rounds once; the softmax weights are rounded to the dtype
    of the values. "torch" rounds each attention and then the sum. A stream index out of range is undefined.

    Raises `ValueError` for what does not fit.
    """
    chosen = select_backend(backend, q, text_k, text_v, audio_k, audio_v)
    _check(q, text_k, text_v, audio_k, audio_v, scale, stream_index, text_lengths)
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    run: Callable[..., Tensor] = dual_cross_attention_reference
    if chosen == "triton":
        from kernels.dual_cross_attention.triton_kernel import dual_cross_attention_triton

        run = dual_cross_attention_triton
    elif chosen == "torch":
        run = _dual_cross_attention_torch
    return run(
        q, text_k, text_v, audio_k, audio_v, scale=scale, stream_index=stream_index, text_lengths=text_lengths
    )


def _dual_cross_attention_torch(
    q: Tensor,
    text_k: Tensor,
    text_v: Tensor,
    audio_k: Tensor,
    audio_v: Tensor,
    *,
    scale: float,
    stream_index: Tensor | None,
    text_lengths: Tensor | None,
) -> Tensor:
    """PyTorch's fused attention once for the text and once a stream, and a gather where there are several."""
    frames, tokens = q.shape[2:4]
    mask = None
    if text_lengths is not None:
        # An empty row is NaN in some of PyTorch's kernels: let it see everything, then erase its result.
        lengths = text_lengths.view(-1, 1, 1, 1)
        mask = (torch.arange(text_k.shape[2], device=q.device) < lengths) | (lengths <= 0)
    from_text = F.scaled_dot_product_attention(q.flatten(2, 3), text_k, text_v, attn_mask=mask, scale=scale)
    if text_lengths is not None:
        from_text = from_text.masked_fill(lengths <= 0, 0.0)
    from_text = from_text.unflatten(2, (frames, tokens))
    frame_q = _by_frame(q)  # PyTorch's fused kernels take four dimensions
    streams = audio_k.shape[1] if stream_index is not None else 1
    heard = [
        F.scaled_dot_product_attention(frame_q, _by_frame(audio_k[:, a]), _by_frame(audio_v[:, a]), scale=scale)
        .unflatten(0, (-1, frames))
        .transpose(1, 2)
        for a in range(streams)
    ]
    if stream_index is None:
        return from_text + heard[0]
    joined = torch.stack(heard, dim=1)
    index = stream_index[:, None, None, None, :, None].expand_as(joined[:, :1])
    return from_text + joined.gather(1, index.long())[:, 0]


def _by_frame(x: Tensor) -> Tensor:
    """[B, N, T, L, d] → [B·T, N, L, d]; a view in the layout of a projection."""
    return x.transpose(1, 2).flatten(0, 1)


def _check(
    q: Tensor,
    text_k: Tensor,
    text_v: Tensor,
    audio_k: Tensor,
    audio_v: Tensor,
    scale: float | None,
    stream_index: Tensor | None,
    text_lengths: Tensor | None,
) -> None:
    if len(q.shape) != 5 or not 1 <= q.shape[-1] <= MAX_HEAD_DIM:
        raise ValueError(f"q must be [B, N, T, S, d] with d in 1..{MAX_HEAD_DIM}, got {list(q.shape)}")
    batch, heads, frames, tokens, head_dim = q.shape
    require_dtype("q", q)
    for name, values in (("text_k", text_k), ("text_v", text_v), ("audio_k", audio_k), ("audio_v", audio_v)):
        require_same("q", q, name, values)
    if len(text_k.shape) != 4 or text_k.shape != text_v.shape or text_k[:, :, :0].shape != (batch, heads, 0, head_dim):
        raise ValueError(
            f"text_k and text_v must be [{batch}, {heads}, Lt, {head_dim}] of one shape,"
            f" got {list(text_k.shape)} and {list(text_v.shape)}"
        )
    found = tuple(audio_k.shape)
    is_six = len(found) == 6 and audio_k.shape == audio_v.shape
    if not is_six or found != (batch, found[1], heads, frames, found[4], head_dim):
        raise ValueError(
            f"audio_k and audio_v must be [{batch}, A, {heads}, {frames}, K, {head_dim}] of one shape,"
            f" got {list(audio_k.shape)} and {list(audio_v.shape)}"
        )
    if not text_k.shape[2] or not found[1] or not found[4]:
        raise ValueError("there must be at least one text key, one stream and one audio key a frame")
    if scale is not None and not 0.0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}")
    for name, indices, shape in (
        ("stream_index", stream_index, (batch, tokens)),
        ("text_lengths", text_lengths, (batch,)),
    ):
        if indices is None:
            continue
        if indices.dtype not in (torch.int32, torch.int64) or tuple(indices.shape) != shape:
            raise ValueError(
                f"{name} must be int32 or int64 {list(shape)}, got {indices.dtype} {list(indices.shape)}"
            )
        require_device(name, indices, "q", q)
