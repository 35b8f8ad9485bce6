import pytest
import torch
import torch.nn.functional as F

from kernels.modulate import modulate, residual_modulate
from tests.kernels.comparison import DTYPES, assert_close, normal, spread

# x [B, T, S, D], and the shape of scale, shift and gate
SHAPES = [
    ((1, 1, 1, 1), (1, 1, 1, 1)),
    ((2, 3, 5, 24), (2, 3, 1, 24)),
    ((2, 2, 3, 33), (2, 2, 3, 33)),
    ((1, 3, 7, 130), (1, 1, 1, 130)),
    ((2, 1, 3, 65), (2, 1, 1, 1)),
]


def inputs(shape, vector_shape, dtype, device, vector_dtype=None):
    x, branch = (normal(*shape, seed=seed, dtype=dtype, device=device) for seed in (0, 1))
    vectors = [normal(*vector_shape, seed=seed, dtype=vector_dtype or dtype, device=device) for seed in (2, 3, 4)]
    parameters = {name: normal(shape[-1], seed=5, dtype=dtype, device=device) for name in ("weight", "bias")}
    return x, branch, vectors, parameters


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "vector_shape"), SHAPES, ids=str)
def test_modulate_equals_reference(device, shape, vector_shape, dtype, norm, backend):
    x, _, (_, scale, shift), parameters = inputs(shape, vector_shape, dtype, device)
    for options in ({}, {"scale": scale}, {"scale": scale, "shift": shift}, parameters):
        found = modulate(x, norm=norm, backend=backend, **options)
        factor = 1 if backend == "triton" else 3  # PyTorch rounds after the norm as well
        assert_close(found, modulate(x, norm=norm, backend="reference", **options), factor)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "vector_shape"), SHAPES, ids=str)
def test_residual_modulate_equals_reference(device, shape, vector_shape, dtype, backend):
    x, branch, (gate, scale, shift), _ = inputs(shape, vector_shape, dtype, device)
    # The norm of one channel, or of rows that a last bit of x makes flat, is all rounding: only x is compared there.
    for vectors in ((None, None, None), (gate, scale, shift)):
        found = residual_modulate(x, branch, *vectors, norm="rms", backend=backend)
        expected = residual_modulate(x, branch, *vectors, norm="rms", backend="reference")
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, 1 if backend == "triton" and dtype == torch.float32 else 3)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_vectors_may_be_fp32_beside_half_precision_tokens(device, backend):
    x, branch, vectors, _ = inputs((2, 3, 5, 24), (2, 3, 1, 24), torch.bfloat16, device, torch.float32)
    found = residual_modulate(x, branch.float(), *vectors, backend=backend)
    expected = residual_modulate(x, branch.float(), *vectors, backend="reference")
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 3)


@pytest.mark.parametrize("seed", range(3))
def test_kernel_against_fp64(device, seed):
    x, scale, shift = (normal(1, 2, 3, 100, seed=3 * seed + i, device=device) for i in range(3))
    exact = F.layer_norm(x.double(), (100,), eps=1e-5) * (1 + scale.double()) + shift.double()
    found = modulate(x + 10.0, scale, shift, backend="triton")  # a mean that is large beside the deviation
    assert (found.double() - exact).abs().max() < 2e-5
    assert (modulate(x, scale, shift, backend="reference").double() - exact).abs().max() < 5e-6


def test_strided_inputs_and_slices_of_one_projection_equal_contiguous(device):
    x, branch = (spread(normal(2, 3, 5, 12, seed=seed, device=device)) for seed in (0, 1))
    modulation = normal(2, 3, 1, 6, 12, seed=2, device=device)
    shift, scale, gate = modulation.unbind(-2)[:3]
    copies = [tensor.contiguous() for tensor in (x, branch, gate, scale, shift)]
    expected = residual_modulate(*copies, backend="reference")
    for one, other in zip(residual_modulate(x, branch, gate, scale, shift, backend="triton"), expected, strict=True):
        assert_close(one, other)
        assert one.is_contiguous()


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_norm_is_of_what_was_rounded(device, backend):
    """A later layer reads the rounded x back: both outputs speak of the same numbers. bf16 has 258 and then 260."""
    x = torch.full((1, 1, 3, 40), 258.0, dtype=torch.bfloat16, device=device)
    branch = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(device) * 0.9
    total, y = residual_modulate(x, branch, backend=backend)
    assert torch.equal(total, x) and y.abs().max() < 0.1


def test_torch_equals_what_the_block_computes():
    x, branch, (gate, scale, shift), _ = inputs((2, 3, 5, 24), (2, 3, 1, 24), torch.float32, "cpu")
    total, y = residual_modulate(x, branch, gate, scale, shift)
    torch.testing.assert_close(total, x + branch * gate, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(y, F.layer_norm(total, (24,)) * (1 + scale) + shift, atol=2e-6, rtol=2e-6)


def test_gradients_flow_by_default_and_kernel_refuses_them(device):
    x = normal(1, 1, 2, 8, device=device).requires_grad_()
    modulate(x).sum().backward()
    assert x.grad is not None
    with pytest.raises(ValueError, match="no backward pass"):
        modulate(x, backend="triton")


BAD = {
    "x must be \\[B, T, S, D\\]": lambda x: modulate(x[0], backend="reference"),
    "x must be fp32, bf16 or fp16": lambda x: modulate(x.double(), backend="reference"),
    "norm must be 'layer' or 'rms', got 'batch'": lambda x: modulate(x, norm="batch", backend="reference"),
    "scale must broadcast to x": lambda x: modulate(x, x[:, :, :2], backend="reference"),
    "shift must broadcast to x .* in four dimensions": lambda x: modulate(x, None, x[0], backend="reference"),
    "gate must be fp32": lambda x: residual_modulate(x, x, x.long(), backend="reference"),
    "branch must be like x": lambda x: residual_modulate(x, x[:, :1, :1], backend="reference"),
    "weight must be \\[D\\] = \\[8\\]": lambda x: modulate(x, weight=torch.ones(7), backend="reference"),
    "bias must be on cpu like x, got meta": lambda x: modulate(
        x, bias=torch.ones(8, device="meta"), backend="reference"
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](normal(1, 2, 3, 8))
