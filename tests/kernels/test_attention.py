from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import kernels.attention as attention_package
from kernels.attention import attention

# Half a rounding of outputs up to 4, and of the softmax weights; the interpreter truncates to bf16 on top.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 3e-2}
DTYPES = tuple(TOLERANCE)


def make_inputs(
    query_count: int,
    key_count: int,
    head_dim: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    batch: int = 2,
    heads: int = 2,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = (query_count, key_count, key_count)
    q, k, v = (torch.randn(batch, heads, count, head_dim, generator=generator) for count in counts)
    return q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    tolerance = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


OPTIONS: dict[str, Callable[[torch.device], dict]] = {
    "scale": lambda device: {"scale": 0.3},
    "prefix_of_one": lambda device: {"prefix_length": 1},
    "prefix": lambda device: {"prefix_length": 50},
    "prefix_of_all": lambda device: {"prefix_length": 70},
    "prefix_with_offset": lambda device: {"prefix_length": 50, "query_offset": 7},
    "offset_beyond_prefix": lambda device: {"prefix_length": 50, "query_offset": 60},
    "lengths": lambda device: {"key_lengths": torch.tensor([70, 33], device=device)},
    "lengths_int32_and_empty": lambda device: {"key_lengths": torch.tensor([0, 1], device=device).int()},
    "lengths_out_of_range": lambda device: {"key_lengths": torch.tensor([-3, 500], device=device)},
    "prefix_and_lengths": lambda device: {
        "prefix_length": 20,
        "key_lengths": torch.tensor([70, 13], device=device),
    },
    "windows": lambda device: {
        "key_windows": torch.tensor([[0, 20], [15, 70], [40, 41], [60, 70], [3, 67]], device=device).int()
    },
    "windows_empty_and_out_of_range": lambda device: {
        "key_windows": torch.tensor([[5, 5], [-4, 9], [60, 99], [30, 20], [0, 70]], device=device)
    },
    "prefix_outside_window": lambda device: {
        "prefix_length": 20,
        "key_windows": torch.tensor([[30, 70]], device=device),
    },
    "everything": lambda device: {
        "scale": 0.2,
        "prefix_length": 40,
        "query_offset": 12,
        "key_lengths": torch.tensor([70, 31], device=device),
        "key_windows": torch.tensor([[0, 60], [35, 70], [0, 10], [20, 70], [0, 70]], device=device),
    },
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [32, 48, 64, 128])
@pytest.mark.parametrize(("query_count", "key_count"), [(1, 1), (17, 130), (130, 65), (65, 17)])
def test_kernel_equals_reference(device, query_count, key_count, head_dim, dtype):
    seed = head_dim + query_count
    q, k, v = make_inputs(query_count, key_count, head_dim, dtype=dtype, device=device, batch=1, seed=seed)
    assert_close(attention(q, k, v, backend="triton"), attention(q, k, v, backend="reference"))


@pytest.mark.parametrize("head_dim", [1, 8, 80, 200])
def test_kernel_pads_any_head_dim(device, head_dim):
    q, k, v = make_inputs(19, 37, head_dim, device=device)
    assert_close(attention(q, k, v, backend="triton"), attention(q, k, v, backend="reference"))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernel_options_equal_reference(device, name, dtype):
    q, k, v = make_inputs(65, 70, 32, dtype=dtype, device=device)
    options = OPTIONS[name](device)
    expected = attention(q, k, v, backend="reference", **options)
    assert_close(attention(q, k, v, backend="triton", **options), expected)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torch_options_equal_reference(name, dtype):
    q, k, v = make_inputs(65, 70, 48, dtype=dtype)
    options = OPTIONS[name](torch.device("cpu"))
    expected = attention(q, k, v, backend="reference", **options)
    assert_close(attention(q, k, v, backend="torch", **options), expected)


def test_reference_equals_softmax_written_out():
    q, k, v = make_inputs(3, 4, 8, batch=1, heads=1)
    found = attention(q, k, v, prefix_length=2, backend="reference")
    for row in range(3):
        seen = 2 if row < 2 else 4
        weights = torch.exp(k[0, 0, :seen] @ q[0, 0, row] / 8**0.5)
        expected = (weights / weights.sum()) @ v[0, 0, :seen]
        torch.testing.assert_close(found[0, 0, row], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_cached_prefix_equals_whole_window(device, backend):
    q, k, v = make_inputs(90, 90, 32, device=device)
    whole = attention(q, k, v, prefix_length=40, backend=backend)
    prefix = attention(q[:, :, :40], k[:, :, :40], v[:, :, :40], prefix_length=40, backend=backend)
    new = attention(q[:, :, 40:], k, v, prefix_length=40, query_offset=40, backend=backend)
    torch.testing.assert_close(torch.cat([prefix, new], dim=2), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_prefix_cannot_see_what_follows(device, backend):
    q, k, v = make_inputs(90, 90, 32, device=device)
    before = attention(q, k, v, prefix_length=40, backend=backend)
    k[:, :, 40:] += 1.0
    v[:, :, 40:] -= 2.0
    after = attention(q, k, v, prefix_length=40, backend=backend)
    assert torch.equal(before[:, :, :40], after[:, :, :40])
    assert not torch.equal(before[:, :, 40:], after[:, :, 40:])


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_query_without_keys_gives_zeros(device, backend):
    q, k, v = make_inputs(6, 20, 16, device=device)
    lengths = torch.tensor([0, 20], device=device)
    attended = attention(q, k, v, key_lengths=lengths, backend=backend)
    assert not attended[0].any() and attended[1].all()
    windows = torch.tensor([[0, 20], [4, 4]], device=device)
    attended = attention(q, k, v, key_windows=windows, backend=backend)
    assert attended[:, :, :3].all() and not attended[:, :, 3:].any()
    assert not attention(q, k[:, :, :0], v[:, :, :0], backend=backend).any()


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_strided_inputs_equal_contiguous(device, backend):
    generator = torch.Generator().manual_seed(3)
    packed = torch.randn(2, 33, 3, 2, 64, generator=generator).to(device)  # one projection to q, k, v
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    q, k = q[..., ::2], k[..., ::2]
    v = v[:1].expand(2, -1, -1, -1)[..., 1::2].flip(2)
    lengths = torch.tensor([33, 0, 20, 0], device=device)[::2]
    windows = torch.tensor([[0, 10, 25], [30, 33, 33]], device=device).T
    options = {"key_lengths": lengths, "key_windows": windows}
    expected = attention(*(x.contiguous() for x in (q, k, v)), backend="reference", **options)
    assert_close(attention(q, k, v, backend=backend, **options), expected)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_large_scores_do_not_overflow(device, backend):
    q, k, v = make_inputs(17, 70, 32, dtype=torch.float16, device=device)
    attended = attention(q * 100, k * 100, v, prefix_length=9, backend=backend)
    assert_close(attended, attention(q * 100, k * 100, v, prefix_length=9, backend="reference"))


def test_heads_of_kernel_output_join_without_copy(device):
    q, k, v = make_inputs(17, 20, 32, device=device)
    attended = attention(q, k, v, backend="triton")
    assert attended.transpose(1, 2).is_contiguous()


def test_gradients_flow_by_default_and_kernel_refuses_them(device):
    q, k, v = make_inputs(5, 6, 16, device=device)
    q.requires_grad_()
    attention(q, k, v).sum().backward()
    assert q.grad is not None
    with pytest.raises(ValueError, match="no backward pass"):
        attention(q, k, v, backend="triton")
    with torch.no_grad():
        attention(q, k, v, backend="triton")


def test_kernel_on_cpu_without_interpreter_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="needs CUDA tensors"):
        attention(*make_inputs(5, 6, 16), backend="triton")


def test_short_inputs_get_small_tiles(device):
    from kernels.attention.triton_kernel import LARGE_SMEM_TILES, choose_tile

    assert choose_tile(2, 128, 3600, 18000, major=9) == LARGE_SMEM_TILES[2, 128]
    tile = choose_tile(2, 64, 20, 3, major=8)
    assert (tile.queries, tile.keys) == (32, 16)


BAD = {
    "must be \\[B, N, L, d\\]": lambda q, k, v: attention(q[0], k, v),
    "must have one shape": lambda q, k, v: attention(q, k, v[:, :, :3]),
    "must agree in batch, heads": lambda q, k, v: attention(q[:, :1], k, v),
    "head dim must be 1..256, got 257": lambda q, k, v: attention(*(torch.zeros(1, 1, 2, 257),) * 3),
    "must be fp32, bf16 or fp16, got torch.float64": lambda q, k, v: attention(q.double(), k.double(), v.double()),
    "q and v must share": lambda q, k, v: attention(q, k, v.half()),
    "scale must be positive and finite, got 0": lambda q, k, v: attention(q, k, v, scale=0),
    "prefix_length must be 0..6 .*, got 7": lambda q, k, v: attention(q, k, v, prefix_length=7),
    "query_offset must be at least 0, got -1": lambda q, k, v: attention(q, k, v, query_offset=-1),
    "key_lengths must be int32 or int64": lambda q, k, v: attention(q, k, v, key_lengths=torch.ones(2)),
    "key_lengths must be \\[B\\] = \\[2\\], got \\[3\\]": lambda q, k, v: attention(
        q, k, v, key_lengths=torch.ones(3, dtype=torch.int32)
    ),
    "key_windows must be \\[G, 2\\]": lambda q, k, v: attention(q, k, v, key_windows=torch.ones(2, dtype=torch.int32)),
    "5 queries do not split into 2 equal": lambda q, k, v: attention(
        q, k, v, key_windows=torch.ones(2, 2, dtype=torch.int32)
    ),
    "key_lengths must be on cpu like q, got meta": lambda q, k, v: attention(
        q, k, v, key_lengths=torch.ones(2, dtype=torch.int32, device="meta")
    ),
    "backend must be one of": lambda q, k, v: attention(q, k, v, backend="cuda"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](*make_inputs(5, 6, 16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("heads", "head_dim"), [(28, 64), (12, 128)])
@pytest.mark.parametrize("prefix_length", [0, 7200])
def test_720p_window_equals_sdpa(heads, head_dim, prefix_length):
    q, k, v = make_inputs(18000, 18000, head_dim, dtype=torch.bfloat16, device="cuda", batch=1, heads=heads)
    expected = attention(q, k, v, prefix_length=prefix_length, backend="torch")
    assert_close(attention(q, k, v, prefix_length=prefix_length), expected)


@pytest.mark.parametrize("has_tiles", [False, True])
@pytest.mark.parametrize("key_count", [attention_package._FEW_KEYS, attention_package._FEW_KEYS + 1])
def test_few_keys_in_bf16_on_a_cpu_are_two_products(monkeypatch, key_count, has_tiles):
    fused_calls = []

    def counted(*arguments, **options):
        fused_calls.append(arguments)
        return F.scaled_dot_product_attention(*arguments, **options)

    monkeypatch.setattr(attention_package, "F", SimpleNamespace(scaled_dot_product_attention=counted))
    monkeypatch.setattr(attention_package, "_has_matrix_tiles", lambda: has_tiles)
    q, k, v = make_inputs(65, key_count, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        found = attention(q, k, v)
    assert bool(fused_calls) == (has_tiles or key_count > attention_package._FEW_KEYS)
    expected = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert (found - expected).norm() < 6e-3 * expected.norm()
    attention(q.requires_grad_(), k, v)
    assert fused_calls  # training keeps the fused kernel
