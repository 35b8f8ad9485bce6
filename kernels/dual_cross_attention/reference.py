"""The definition of decoupled cross-attention (Eq. 4): two softmaxes of one query, added."""

import torch
from torch import Tensor


def dual_cross_attention_reference(
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
    """softmax(q text_kᵗ) text_v + softmax(q audio_kᵗ) audio_v in fp32, rounded once to the dtype of q.

    q [B, N, T, S, d]; text [B, N, Lt, d], of which row b has `text_lengths[b]`; audio [B, A, N, T, K, d], of which a
    token of frame t reads the keys of that frame in its own stream. A row without text gives the audio part alone.
    """
    queries = q.float()
    scores = torch.einsum("bntsd,bnld->bntsl", queries, text_k.float()) * scale
    if text_lengths is not None:
        hidden = torch.arange(text_k.shape[2], device=q.device) >= text_lengths[:, None]
        scores = scores.masked_fill(hidden[:, None, None, None], -torch.inf)
    from_text = torch.einsum("bntsl,bnld->bntsd", scores.softmax(dim=-1).nan_to_num(0.0), text_v.float())

    scores = torch.einsum("bntsd,bantkd->bantsk", queries, audio_k.float()) * scale
    streams = torch.einsum("bantsk,bantkd->bantsd", scores.softmax(dim=-1), audio_v.float())
    if stream_index is None:
        return (from_text + streams[:, 0]).to(q.dtype)
    index = stream_index[:, None, None, None, :, None].expand_as(streams[:, :1])
    return (from_text + streams.gather(1, index.long())[:, 0]).to(q.dtype)
