import pytest
import torch

from kernels.qk_norm_rope import qk_norm_rope
from tests.kernels.comparison import DTYPES, assert_close, normal, spread

SHAPES = [(1, 1, 1, 2), (2, 3, 5, 16), (1, 2, 7, 24), (2, 5, 3, 64)]


def inputs(shape, dtype=torch.float32, device="cpu", seed=0, gain_shape=None):
    q, k = (normal(*shape, seed=seed + i, dtype=dtype, device=device) for i in (0, 1))
    gains = [1 + 0.3 * normal(*(gain_shape or shape[3:]), seed=seed + i, device=device) for i in (2, 3)]
    angles = 9 * normal(shape[2], shape[3] // 2, seed=seed + 4, device=device)
    return q, k, *gains, (angles.cos(), angles.sin())


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("is_across_heads", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(device, shape, dtype, is_across_heads, backend):
    gain_shape = (shape[1], shape[3]) if is_across_heads else None
    arguments = inputs(shape, dtype, device, seed=sum(shape), gain_shape=gain_shape)
    found = qk_norm_rope(*arguments, backend=backend)
    expected = qk_norm_rope(*arguments, backend="reference")
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1 if backend == "triton" else 3)  # PyTorch rounds after the norm as well


def exact(x, gain, rope, eps=1e-6):
    x = x.double()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * gain.double()
    pairs = torch.complex(*x.chunk(2, -1)) * torch.complex(*(part.double() for part in rope))
    return torch.cat([pairs.real, pairs.imag], -1)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_against_complex_fp64(device, backend, seed):
    q, k, q_gain, k_gain, rope = inputs((1, 2, 5, 48), device=device, seed=10 * seed)
    found = qk_norm_rope(q, k, q_gain, k_gain, rope, backend=backend)
    assert (found[0].double() - exact(q, q_gain, rope)).abs().max() < 3e-6
    assert (found[1].double() - exact(k, k_gain, rope)).abs().max() < 3e-6


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_in_place_equals_new(device, backend):
    q, k, *rest = inputs((2, 3, 5, 16), device=device)
    expected = qk_norm_rope(q, k, *rest, backend="reference")
    out = qk_norm_rope(q, k, *rest, out=(q, k), backend=backend)
    assert out[0] is q and out[1] is k
    for one, other in zip(out, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_keys_may_go_behind_a_cached_prefix(device, backend):
    q, k, *rest = inputs((2, 3, 5, 16), device=device)
    buffer = torch.zeros(2, 9, 3, 16, device=device).transpose(1, 2)
    qk_norm_rope(q, k, *rest, out=(q, buffer[:, :, 4:]), backend=backend)
    assert not buffer[:, :, :4].any()
    expected = qk_norm_rope(*inputs((2, 3, 5, 16), device=device), backend="reference")[1]
    assert_close(buffer[:, :, 4:], expected)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_strided_inputs_equal_contiguous(device, backend):
    q, k, q_gain, k_gain, (cos, sin) = inputs((2, 3, 5, 16), device=device)
    packed = torch.stack([q, k]).permute(1, 3, 0, 2, 4).contiguous()  # one projection [B, L, 2, N, d]
    strided_q, strided_k = packed.permute(2, 0, 3, 1, 4)
    strided = (strided_q, spread(strided_k), spread(q_gain), k_gain, (spread(cos), spread(sin)))
    found = qk_norm_rope(*strided, backend=backend)
    expected = qk_norm_rope(q, k, q_gain, k_gain, (cos, sin), backend="reference")
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_gradients_flow_by_default_and_kernel_refuses_them(device):
    q, k, *rest = inputs((1, 1, 2, 8), device=device)
    q.requires_grad_()
    qk_norm_rope(q, k, *rest)[0].sum().backward()
    assert q.grad is not None
    with pytest.raises(ValueError, match="no backward pass"):
        qk_norm_rope(q, k, *rest, backend="triton")


BAD = {
    "must be \\[B, N, L, d\\] of one shape": lambda q, k, g, h, r: qk_norm_rope(q, k[:, :1], g, h, r, out=(q, k)),
    "head dim must be even": lambda q, k, g, h, r: qk_norm_rope(q[..., :7], k[..., :7], g, h, r, out=(q, k)),
    "q and k must share": lambda q, k, g, h, r: qk_norm_rope(q, k.half(), g, h, r, out=(q, k)),
    "k_gain must be \\[8\\] or \\[2, 8\\]": lambda q, k, g, h, r: qk_norm_rope(q, k, g, h[:4], r, out=(q, k)),
    "must have one shape": lambda q, k, g, h, r: qk_norm_rope(q, k, g, h.expand(2, -1), r, out=(q, k)),
    "sines must be \\[L, d / 2\\] = \\[3, 4\\]": lambda q, k, g, h, r: qk_norm_rope(
        q, k, g, h, (r[0], r[1][:2]), out=(q, k)
    ),
    "out\\[1\\] must be like q": lambda q, k, g, h, r: qk_norm_rope(q, k, g, h, r, out=(q, k[:, :, :2])),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](*inputs((1, 2, 3, 8)))
