"""Attention over a cached prefix, with 8-bit scores, and by the Hopper kernel under the interpreter."""

import pytest
import torch
from torch import Tensor

from kernels.attention import attention
from kernels.attention.int8 import key_mean, quantise_rows
from tests.kernels.test_attention import TOLERANCE, assert_close, make_inputs

CACHED = 21


def split(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The same keys and values with the first ones as a cache of other strides."""
    cache = (k[:, :, :CACHED].transpose(2, 3).contiguous().transpose(2, 3), v[:, :, :CACHED].clone())
    return k[:, :, CACHED:], v[:, :, CACHED:], cache


CACHE_OPTIONS = {
    "plain": {},
    "new_tokens_only": {"prefix_length": CACHED, "query_offset": CACHED},
    "prefix_inside_cache": {"prefix_length": 9, "query_offset": 4},
    "prefix_beyond_cache": {"prefix_length": 30, "query_offset": 10},
    "lengths": {"key_lengths": torch.tensor([10, 40])},
    "windows": {"key_windows": torch.tensor([[0, 9], [15, 40], [25, 47]])},
}


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("name", CACHE_OPTIONS)
def test_cache_equals_joined_keys(device, name, backend):
    q, k, v = make_inputs(33, 47, 32, device=device)
    options = {key: x.to(device) if isinstance(x, Tensor) else x for key, x in CACHE_OPTIONS[name].items()}
    expected = attention(q, k, v, backend="reference", **options)
    new_k, new_v, cache = split(k, v)
    assert_close(attention(q, new_k, new_v, prefix_kv=cache, backend=backend, **options), expected)
    assert_close(attention(q, new_k, new_v, prefix_kv=cache, backend="reference", **options), expected)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_cache_may_hold_all_keys(device, backend):
    q, k, v = make_inputs(5, 20, 16, device=device)
    empty = k[:, :, :0]
    found = attention(q, empty, empty, prefix_kv=(k, v), backend=backend)
    assert_close(found, attention(q, k, v, backend="reference"))


def test_cache_that_does_not_fit_is_told_in_words():
    q, k, v = make_inputs(5, 6, 16)
    with pytest.raises(ValueError, match="prefix k must be like k .* but for its tokens, got \\[2, 1, 6, 16\\]"):
        attention(q, k, v, prefix_kv=(k[:, :1], v[:, :1]))
    with pytest.raises(ValueError, match="q and prefix v must share device and dtype"):
        attention(q, k, v, prefix_kv=(k, v.half()))
    with pytest.raises(ValueError, match="prefix_length must be 0..12 .*, got 13"):
        attention(q, k, v, prefix_kv=(k, v), prefix_length=13)


# --- 8-bit scores


def with_outliers(k: Tensor) -> Tensor:
    """Keys that share a large part in every sixteenth channel, as trained models have."""
    return k + (20.0 * (torch.arange(k.shape[-1], device=k.device) % 16 == 0)).to(k.dtype)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = q.double(), k.double(), v.double()
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_int8_error_against_fp64_is_as_stated(head_dim, seed):
    """1.2 % of the result on unit normal heads, and no more with keys that share large channels."""
    q, k, v = make_inputs(64, 512, head_dim, seed=seed, batch=1)
    for keys in (k, with_outliers(k)):
        found = attention(q, keys, v, is_int8=True, backend="reference")
        assert 1e-4 < relative_error(found, exact(q, keys, v)) < 1.2e-2


def test_smoothing_is_what_keeps_shared_channels_harmless():
    q, k, v = make_inputs(64, 512, 64, batch=1)
    k = with_outliers(k)
    rough = [integers * scales[..., None] for integers, scales in (quantise_rows(q), quantise_rows(k))]
    smooth = attention(q, k, v, is_int8=True, backend="reference")
    expected = exact(q, k, v)
    assert relative_error(smooth, expected) < 0.3 * relative_error(attention(*rough, v), expected)


def test_quantised_rows_use_the_whole_range_and_return_the_numbers():
    _, k, _ = make_inputs(1, 40, 24)
    integers, scales = quantise_rows(k, key_mean(k))
    assert integers.dtype == torch.int8 and (integers.abs().amax(-1) == 127).all()
    back = integers * scales[..., None] + key_mean(k)
    assert ((back - k).abs() <= 0.5001 * scales[..., None] + 1e-6).all()
    integers, _ = quantise_rows(torch.zeros(1, 1, 3, 8))
    assert not integers.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("head_dim", [20, 64])
def test_int8_kernel_equals_reference(device, dtype, head_dim):
    q, k, v = make_inputs(19, 45, head_dim, dtype=dtype, device=device)
    k = with_outliers(k)
    options = {"prefix_length": 11, "key_lengths": torch.tensor([45, 17], device=device), "is_int8": True}
    found = attention(q, k, v, backend="triton", **options)
    expected = attention(q, k, v, backend="reference", **options)
    # An integer that lies on a half may be rounded the other way by a last bit: one step of one channel.
    tolerance = max(TOLERANCE[dtype], 2e-3)
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        attention(q, k, v, backend="torch", **options).float(), expected.float(), atol=3e-2, rtol=3e-2
    )


def test_int8_kernel_takes_a_cache(device):
    q, k, v = make_inputs(19, 47, 32, device=device)
    expected = attention(q, k, v, is_int8=True, backend="reference")
    new_k, new_v, cache = split(k, v)
    found = attention(q, new_k, new_v, prefix_kv=cache, is_int8=True, backend="triton")
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


# --- the Hopper kernel, which is the same code in the interpreter


def hopper_tile(device: torch.device):
    """A small one for the interpreter; on a GPU the one that is used."""
    from kernels.attention.hopper_kernel import HopperTile

    return None if device.type == "cuda" else HopperTile(32, 16, 4, 2, 1)


HOPPER_OPTIONS = {
    "dense": {},
    "prefix": {"prefix_length": 40},
    "prefix_of_all": {"prefix_length": 70, "query_offset": 5},
    "partly_cached": {"prefix_length": 40, "query_offset": 7},
    "lengths": {"key_lengths": torch.tensor([70, 0])},
    "prefix_and_lengths": {"prefix_length": 50, "key_lengths": torch.tensor([33, 64])},
}


@pytest.mark.parametrize("name", HOPPER_OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_hopper_kernel_equals_reference(device, name, dtype):
    from kernels.attention.hopper_kernel import attention_hopper, is_served

    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < 9:
        pytest.skip("needs Hopper or the interpreter")
    packed = torch.randn(2, 70, 3, 2, 64, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    q = q[:, :, :65]
    options = {key: x.to(device) if isinstance(x, Tensor) else x for key, x in HOPPER_OPTIONS[name].items()}
    assert is_served(q, k, v, None)
    found = attention_hopper(q, k, v, scale=0.2, tile=hopper_tile(device), **options)
    assert_close(found, attention(q, k, v, scale=0.2, backend="reference", **options))


def test_hopper_kernel_reads_a_cache_where_it_is(device):
    from kernels.attention.hopper_kernel import attention_hopper

    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < 9:
        pytest.skip("needs Hopper or the interpreter")
    q, k, v = make_inputs(33, 47, 64, dtype=torch.float16, device=device)
    new_k, new_v, cache = k[:, :, CACHED:], v[:, :, CACHED:], (k[:, :, :CACHED].clone(), v[:, :, :CACHED].clone())
    for options in ({}, {"key_lengths": torch.tensor([13, 30], device=device)}):
        found = attention_hopper(q, new_k, new_v, scale=0.1, prefix_kv=cache, tile=hopper_tile(device), **options)
        assert_close(found, attention(q, k, v, scale=0.1, backend="reference", **options))


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("fp32", lambda x: x.float()),
        ("head dim 32", lambda x: x[..., :32]),
        ("channels apart", lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2)),
        ("rows of 130 bytes", lambda x: torch.nn.functional.pad(x, (0, 1))[..., :64]),
    ],
)
def test_what_descriptors_cannot_read_goes_to_the_portable_kernel(device, reason, change):
    from kernels.attention.hopper_kernel import is_served

    q, k, v = make_inputs(4, 4, 64, dtype=torch.float16)
    assert is_served(q, k, v, None) and not is_served(*(change(x) for x in (q, k, v)), None), reason


def test_hopper_is_chosen_by_capability(device, monkeypatch):
    import kernels.attention as package
    from kernels.attention import hopper_kernel

    calls = []
    monkeypatch.setattr(package, "has_hopper_path", lambda device: True)
    monkeypatch.setattr(hopper_kernel, "attention_hopper", lambda q, k, v, **options: calls.append(options) or q)
    q, k, v = make_inputs(4, 4, 64, dtype=torch.float16, device=device)
    attention(q, k, v, backend="triton")
    assert len(calls) == 1
    attention(q, k, v, key_windows=torch.tensor([[0, 3]], device=device), backend="triton")
    attention(q, k, v, is_int8=True, backend="triton")
    attention(q, k, v, prefix_kv=(k, v), prefix_length=6, backend="triton")
    assert len(calls) == 1
