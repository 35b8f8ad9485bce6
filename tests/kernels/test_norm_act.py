import pytest
import torch
import torch.nn.functional as F

from kernels.norm_act import norm_act
from tests.kernels.comparison import DTYPES, assert_close, normal, spread

SHAPES = [(1, 1, 1), (2, 3, 5), (1, 24, 3, 7), (2, 16, 2, 3, 5), (1, 96, 1, 2, 3), (1, 130, 2, 1, 9)]


def channels_last(x):
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_layouts_equal_reference_and_stay(device, shape, dtype, backend):
    sizes = (shape, shape[1:2], shape[1:2])
    x, gain, bias = (normal(*size, seed=seed, dtype=dtype, device=device) for seed, size in enumerate(sizes))
    for x_laid_out in (x, channels_last(x)):
        for options in ({}, {"bias": bias}):
            found = norm_act(x_laid_out, gain, backend=backend, **options)
            expected = norm_act(x, gain, backend="reference", **options)
            assert_close(found, expected, 1 if backend == "triton" else 4)  # PyTorch rounds after each step
            if backend == "triton":
                assert found.stride() == torch.empty_like(x_laid_out).stride()


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_against_fp64(device, backend, seed):
    x, gain = normal(2, 40, 3, 5, seed=seed, device=device), normal(40, seed=seed + 9, device=device)
    exact = F.silu(F.normalize(x.double(), dim=1) * 40**0.5 * gain.double()[:, None, None])  # as the Wan VAE has it
    assert (norm_act(x, gain, backend=backend).double() - exact).abs().max() < 3e-6


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_zeros_stay_zeros_and_large_numbers_finite(device, backend):
    x = torch.zeros(1, 8, 2, 2, device=device)
    gain = torch.ones(8, device=device)
    assert not norm_act(x, gain, backend=backend).any()
    assert norm_act(x + 1e4, gain * 200, backend=backend).isfinite().all()


STRIDED = {
    "every other number": lambda x: spread(x),
    "every other channel of channels last": lambda x: channels_last(x.repeat_interleave(2, dim=1))[:, ::2],
    "rows and columns exchanged": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "cropped": lambda x: F.pad(x, (1, 2, 1, 1))[:, :, 1:-1, 1:-2],
}


@pytest.mark.parametrize("name", STRIDED)
def test_odd_strides_equal_contiguous(device, name):
    x, gain = normal(2, 6, 3, 5, device=device), normal(6, seed=1, device=device)
    strided = STRIDED[name](x)
    assert strided.stride() != x.stride() and torch.equal(strided, x)
    assert_close(norm_act(strided, spread(gain), backend="triton"), norm_act(x, gain, backend="reference"))


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_out_may_be_the_frames_behind_a_cache(device, backend):
    x, gain = normal(1, 6, 2, 3, 4, device=device), normal(6, seed=1, device=device)
    buffer = torch.full((1, 6, 4, 3, 4), 7.0, device=device)
    norm_act(x, gain, out=buffer[:, :, 2:], backend=backend)
    assert (buffer[:, :, :2] == 7).all()
    assert_close(buffer[:, :, 2:], norm_act(x, gain, backend="reference"))


def test_gradients_flow_by_default_and_kernel_refuses_them(device):
    x, gain = normal(1, 4, 2, 2, device=device).requires_grad_(), torch.ones(4, device=device)
    norm_act(x, gain).sum().backward()
    assert x.grad is not None
    with pytest.raises(ValueError, match="no backward pass"):
        norm_act(x, gain, backend="triton")


BAD = {
    "x must be \\[B, C, ...\\]": lambda x, g: norm_act(x[0, 0], g, backend="reference"),
    "x must be fp32, bf16 or fp16": lambda x, g: norm_act(x.double(), g, backend="reference"),
    "gain must be \\[C\\] = \\[4\\]": lambda x, g: norm_act(x, g[:3], backend="reference"),
    "bias must be on cpu like x, got meta": lambda x, g: norm_act(x, g, g.to("meta"), backend="reference"),
    "out must be like x": lambda x, g: norm_act(x, g, out=x[:, :2], backend="reference"),
    "pixels of out must be at one distance": lambda x, g: norm_act(
        x, g, out=torch.zeros(1, 4, 2, 5)[..., :3], backend="reference"
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](normal(1, 4, 2, 3), torch.ones(4))
