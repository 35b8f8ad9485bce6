import pytest
import torch

from kernels.attention import attention
from kernels.dual_cross_attention import dual_cross_attention
from models.configs import TransformerConfig
from models.layers import Conditions, DualCrossAttention
from tests.kernels.comparison import DTYPES, assert_close, normal, spread

# batch, heads, frames, tokens, head dim, text keys, streams, audio keys a frame
SIZES = [(1, 1, 1, 1, 1, 1, 1, 1), (2, 2, 3, 17, 32, 5, 1, 8), (1, 3, 2, 33, 24, 37, 2, 19), (1, 1, 2, 5, 64, 70, 3, 5)]


def inputs(sizes, dtype=torch.float32, device="cpu", seed=0):
    batch, heads, frames, tokens, head_dim, text, streams, audio = sizes
    shapes = (
        (batch, heads, frames, tokens, head_dim),
        *((batch, heads, text, head_dim),) * 2,
        *((batch, streams, heads, frames, audio, head_dim),) * 2,
    )
    tensors = [normal(*shape, seed=seed + i, dtype=dtype, device=device) for i, shape in enumerate(shapes)]
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(streams, (batch, tokens), generator=generator).to(device)
    return tensors, (index if streams > 1 else None)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_reference(device, sizes, dtype, backend):
    tensors, index = inputs(sizes, dtype, device, seed=sum(sizes))
    for scale in (None, 0.3):
        found = dual_cross_attention(*tensors, scale=scale, stream_index=index, backend=backend)
        assert_close(found, dual_cross_attention(*tensors, scale=scale, stream_index=index, backend="reference"))


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_against_fp64_token_by_token(device, backend, seed):
    (q, text_k, text_v, audio_k, audio_v), index = inputs((1, 2, 2, 3, 16, 4, 2, 5), device=device, seed=20 * seed)
    found = dual_cross_attention(q, text_k, text_v, audio_k, audio_v, stream_index=index, backend=backend)

    def attend(query, keys, values):
        return (keys.double() @ query.double() / 4.0).softmax(0) @ values.double()

    for head in range(2):
        for frame in range(2):
            for token in range(3):
                query, stream = q[0, head, frame, token], index[0, token]
                expected = attend(query, text_k[0, head], text_v[0, head])
                expected += attend(query, audio_k[0, stream, head, frame], audio_v[0, stream, head, frame])
                assert (found[0, head, frame, token].double() - expected).abs().max() < 3e-6


def test_equals_two_calls_of_attention(device):
    (q, text_k, text_v, audio_k, audio_v), _ = inputs((2, 2, 3, 17, 32, 5, 1, 8), device=device)
    from_text = attention(q.flatten(2, 3), text_k, text_v).unflatten(2, (3, 17))
    keys, values = (audio[:, 0].flatten(2, 3) for audio in (audio_k, audio_v))
    windows = torch.tensor([[0, 8], [8, 16], [16, 24]], device=device)
    from_audio = attention(q.flatten(2, 3), keys, values, key_windows=windows).unflatten(2, (3, 17))
    found = dual_cross_attention(q, text_k, text_v, audio_k, audio_v, backend="triton")
    assert_close(found, from_text + from_audio)


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_equals_the_layer_of_the_models(device, streams, backend):
    torch.manual_seed(0)
    layer = DualCrossAttention(TransformerConfig(width=48, layers=1, heads=3), text_width=8, audio_width=12).to(device)
    layer.out = torch.nn.Identity()  # it starts at zero
    x, text, audio = (normal(*shape, device=device) for shape in ((2, 2, 10, 48), (2, 4, 8), (2, streams, 2, 5, 12)))
    index = torch.arange(20, device=device).reshape(2, 10) % streams if streams > 1 else None
    with torch.no_grad():
        expected = layer(x, Conditions(text, audio, index))
        q = layer.q_norm(layer.q(layer.norm(x)).unflatten(-1, (3, 16))).permute(0, 3, 1, 2, 4)
        text_k, text_v = layer.text_kv(text).unflatten(-1, (2, 3, 16)).permute(2, 0, 3, 1, 4)
        audio_k, audio_v = layer.audio_kv(audio).unflatten(-1, (2, 3, 16)).permute(4, 0, 1, 5, 2, 3, 6)
        text_k, audio_k = layer.text_k_norm(text_k), layer.audio_k_norm(audio_k)
        found = dual_cross_attention(q, text_k, text_v, audio_k, audio_v, stream_index=index, backend=backend)
    joined = found.permute(0, 2, 3, 1, 4).flatten(3)
    torch.testing.assert_close(joined, expected, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_ragged_text_equals_cut_text(device, backend):
    tensors, index = inputs((3, 2, 2, 9, 16, 6, 2, 5), device=device)
    lengths = torch.tensor([6, 0, 2], device=device)
    found = dual_cross_attention(*tensors, stream_index=index, text_lengths=lengths, backend=backend)
    expected = dual_cross_attention(*tensors, stream_index=index, text_lengths=lengths, backend="reference")
    assert_close(found, expected)
    q, text_k, text_v, audio_k, audio_v = (x[2:] for x in tensors)
    cut = dual_cross_attention(q, text_k[:, :, :2], text_v[:, :, :2], audio_k, audio_v, stream_index=index[2:])
    assert_close(found[2:], cut)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_tokens_hear_only_their_own_stream_and_frame(device, backend):
    (q, text_k, text_v, audio_k, audio_v), _ = inputs((1, 2, 2, 8, 16, 3, 2, 5), device=device)
    index = (torch.arange(8, device=device) % 2)[None].int()
    before = dual_cross_attention(q, text_k, text_v, audio_k, audio_v, stream_index=index, backend=backend)
    audio_v = audio_v.clone()
    audio_v[:, 1, :, 0] += 1.0
    after = dual_cross_attention(q, text_k, text_v, audio_k, audio_v, stream_index=index, backend=backend)
    is_changed = (after != before).any(-1)[0, 0]
    assert torch.equal(is_changed[0], index[0] == 1) and not is_changed[1].any()


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_strided_inputs_and_overlapping_windows_equal_copies(device, backend):
    (q, text_k, text_v, _, _), _ = inputs((2, 2, 3, 7, 16, 5, 1, 6), device=device)
    sequence_k, sequence_v = (normal(2, 1, 2, 10, 16, seed=seed, device=device) for seed in (7, 8))
    windows = [sequence.unfold(3, 6, 2).transpose(-1, -2) for sequence in (sequence_k, sequence_v)]  # 3 windows of 6
    expected = dual_cross_attention(q, text_k, text_v, *(x.contiguous() for x in windows), backend="reference")
    found = dual_cross_attention(spread(q), spread(text_k), text_v, *windows, backend=backend)
    assert_close(found, expected)


def test_heads_of_kernel_output_join_without_copy(device):
    tensors, _ = inputs((2, 2, 3, 5, 16, 5, 1, 6), device=device)
    assert dual_cross_attention(*tensors, backend="triton").permute(0, 2, 3, 1, 4).is_contiguous()


def test_gradients_flow_by_default_and_kernel_refuses_them(device):
    (q, *rest), _ = inputs((1, 1, 1, 2, 8, 2, 1, 2), device=device)
    q.requires_grad_()
    dual_cross_attention(q, *rest).sum().backward()
    assert q.grad is not None
    with pytest.raises(ValueError, match="no backward pass"):
        dual_cross_attention(q, *rest, backend="triton")


BAD = {
    "q must be \\[B, N, T, S, d\\]": lambda q, *x: dual_cross_attention(q[0], *x),
    "q and audio_v must share": lambda *x: dual_cross_attention(*x[:4], x[4].half()),
    "text_k and text_v must be \\[1, 2, Lt, 8\\]": lambda q, k, v, *x: dual_cross_attention(q, k[:, :1], v[:, :1], *x),
    "audio_k and audio_v must be \\[1, A, 2, 3, K, 8\\]": lambda *x: dual_cross_attention(
        *x[:3], x[3][:, :, :, :2], x[4][:, :, :, :2]
    ),
    "at least one text key": lambda q, k, v, *x: dual_cross_attention(q, k[:, :, :0], v[:, :, :0], *x),
    "scale must be positive": lambda *x: dual_cross_attention(*x, scale=-1.0),
    "stream_index must be int32 or int64 \\[1, 4\\]": lambda *x: dual_cross_attention(
        *x, stream_index=torch.zeros(1, 4)
    ),
    "text_lengths must be int32 or int64 \\[1\\]": lambda *x: dual_cross_attention(
        *x, text_lengths=torch.zeros(2, dtype=torch.int32)
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    tensors, _ = inputs((1, 2, 3, 4, 8, 5, 2, 6))
    with pytest.raises(ValueError, match=message):
        BAD[message](*tensors)
