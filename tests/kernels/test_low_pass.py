import math

import pytest
import torch
from torch import Tensor

from kernels.low_pass import filter_radius, low_pass, low_pass_noise, standard_normal
from kernels.low_pass.philox import KEY_STEPS, MULTIPLIERS, philox_4x32

# fp32: last bits; fp16: its rounding of values up to 4; bf16 likewise, and the interpreter truncates to it.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3.2e-2}
DTYPES = tuple(TOLERANCE)
SHAPES = [(1, 2, 1, 1, 1), (2, 2, 1, 5, 7), (1, 1, 1, 16, 16), (2, 1, 2, 1, 40), (1, 1, 1, 19, 17)]


def make_latents(shape, dtype=torch.float32, device="cpu", seed=0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype and found.is_contiguous()
    torch.testing.assert_close(found.float(), expected.float(), atol=TOLERANCE[found.dtype], rtol=0.0)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    """The known answers of philox4x32-10 in Random123."""
    words = philox_4x32(*(tuple(torch.tensor([int(w, 16)]) for w in text.split()) for text in (counter, key)))
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def normal_in_plain_python(seed: int, index: int) -> float:
    counter, key = [index // 4 % 2**32, index // 4 >> 32, 0, 0], [seed % 2**32, seed >> 32 & 0xFFFFFFFF]
    for _ in range(10):
        first, second = counter[0] * MULTIPLIERS[0], counter[2] * MULTIPLIERS[1]
        counter = [
            second >> 32 ^ counter[1] ^ key[0],
            second % 2**32,
            first >> 32 ^ counter[3] ^ key[1],
            first % 2**32,
        ]
        key = [(word + step) % 2**32 for word, step in zip(key, KEY_STEPS, strict=True)]
    lane = index % 4
    first, second = (((word >> 9) + 0.5) / 2**23 for word in counter[lane // 2 * 2 :][:2])
    angle = 2 * math.pi * second
    return math.sqrt(-2 * math.log(first)) * (math.sin(angle) if lane % 2 else math.cos(angle))


@pytest.mark.parametrize(("seed", "offset"), [(0, 0), (7, 3), (-1, 2**33 + 1), (2**64 - 2, 2**40 + 2)])
def test_noise_equals_plain_python(seed, offset):
    found = standard_normal((11,), seed, offset)
    expected = [normal_in_plain_python(seed % 2**64, offset + i) for i in range(11)]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-6, rtol=0.0)


def test_noise_is_standard_normal():
    for seed in range(3):
        noise = standard_normal((1_000_000,), seed).double()
        assert abs(noise.mean()) < 4e-3 and abs(noise.var() - 1.0) < 6e-3
        assert abs((noise**3).mean()) < 1.2e-2 and abs((noise**4).mean() - 3.0) < 4e-2
        for lag in (1, 2, 4, 256):
            assert abs((noise[lag:] * noise[:-lag]).mean()) < 5e-3
        for level, share in ((1.0, 0.15866), (2.0, 0.02275), (3.0, 0.00135)):
            for tail in (noise > level, noise < -level):
                assert abs(tail.double().mean() - share) < 5 * math.sqrt(share / len(noise))


def test_seeds_give_unrelated_noise():
    first, second = standard_normal((200_000,), 1), standard_normal((200_000,), 2)
    assert abs((first * second).mean()) < 0.012


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_reference_equals_written_out_convolution(sigma):
    latents = make_latents((1, 2, 2, 9, 12))
    radius = filter_radius(sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = torch.outer(taps, taps) / taps.sum() ** 2
    frames = torch.nn.functional.pad(latents.reshape(4, 1, 9, 12), (radius,) * 4, mode="reflect")
    expected = torch.nn.functional.conv2d(frames, kernel[None, None]).reshape(latents.shape)
    torch.testing.assert_close(low_pass(latents, sigma, backend="reference"), expected, atol=2e-6, rtol=0.0)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_filter_keeps_flat_frames_and_lowers_detail(device, backend):
    flat = torch.full((1, 1, 1, 6, 8), 3.25, device=device)
    torch.testing.assert_close(low_pass(flat, 1.5, backend=backend), flat, atol=3e-6, rtol=0.0)
    board = (torch.arange(8, device=device)[:, None] + torch.arange(8, device=device)) % 2 * 2.0 - 1.0
    assert low_pass(board[None, None, None], 1.5, backend=backend).abs().max() < 0.02
    latents = make_latents((1, 1, 1, 4, 4), device=device)
    assert torch.equal(low_pass(latents, 0.0, backend=backend), latents)


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filter_equals_reference(device, shape, dtype, backend):
    sigma = 1.0 if dtype == torch.float32 else 0.7
    latents = make_latents(shape, dtype, device, seed=shape[-1])
    assert_close(low_pass(latents, sigma, backend=backend), low_pass(latents, sigma, backend="reference"))


@pytest.mark.parametrize("backend", ["triton", "torch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_filter_with_noise_equals_reference(device, shape, dtype, backend):
    rows = torch.arange(shape[0], device=device)
    cases: list[tuple] = [(0, 0), (2**63 + 5, 3), (-7, 2**34 + 1), (rows + 2**40, 5), (9, rows * 6 + 1)]
    for number, (seed, offset) in enumerate(cases):
        latents = make_latents(shape, dtype, device, number)
        found = low_pass_noise(latents, 0.4, 0.7, seed, offset, backend=backend)
        assert_close(found, low_pass_noise(latents, 0.4, 0.7, seed, offset, backend="reference"))


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_filter_wider_than_the_frame_equals_reference(device, backend):
    latents = make_latents((1, 1, 1, 3, 5), device=device)
    assert_close(low_pass(latents, 4.0, backend=backend), low_pass(latents, 4.0, backend="reference"))


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_strided_latents_equal_contiguous(device, backend):
    latents = make_latents((2, 7, 9, 2, 4), device=device).permute(0, 3, 4, 1, 2)[:, :, ::2, 1:, ::2]
    latents = torch.cat([latents[:1], latents[:1]]).narrow(0, 0, 1).expand(2, -1, -1, -1, -1)
    found = low_pass_noise(latents, 0.8, 0.7, 4, backend=backend)
    assert_close(found, low_pass_noise(latents.contiguous(), 0.8, 0.7, 4, backend="reference"))


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_noise_does_not_depend_on_the_split_of_the_batch(device, backend):
    latents = make_latents((3, 2, 1, 5, 3), device=device)
    whole = low_pass_noise(latents, 0.4, 0.7, 11, backend=backend)
    row_size = latents[0].numel()
    parts = [
        low_pass_noise(latents[row : row + 1], 0.4, 0.7, 11, offset=row * row_size, backend=backend) for row in range(3)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_rows_with_own_seeds_do_not_depend_on_the_batch(device, backend):
    latents = make_latents((3, 2, 1, 5, 3), device=device)
    seeds = torch.tensor([5, 2**40, -3], device=device)
    offsets = torch.tensor([0, 30, 7], device=device)
    whole = low_pass_noise(latents, 0.4, 0.7, seeds, offsets, backend=backend)
    for row in range(3):
        alone = low_pass_noise(latents[row : row + 1], 0.4, 0.7, int(seeds[row]), int(offsets[row]), backend=backend)
        torch.testing.assert_close(alone[0], whole[row], atol=1e-6, rtol=0.0)


def test_offsets_continue_the_stream():
    whole = standard_normal((40,), 3)
    parts = [standard_normal((size,), 3, start) for start, size in ((0, 5), (5, 2), (7, 33))]
    assert torch.equal(torch.cat(parts), whole)


def test_gradients_flow_by_default(device):
    latents = make_latents((1, 1, 1, 4, 4), device=device).requires_grad_()
    low_pass_noise(latents, 1.0, 0.7, 0).sum().backward()
    assert latents.grad is not None
    with pytest.raises(ValueError, match="no backward pass"):
        low_pass(latents, 1.0, backend="triton")


def test_filter_made_in_inference_mode_can_be_trained_through():
    latents = make_latents((1, 1, 1, 23, 29))
    with torch.inference_mode():
        low_pass(latents, 1.1)
    low_pass(latents.requires_grad_(), 1.1).sum().backward()
    assert latents.grad is not None


BAD = {
    "must be a non-empty \\[B, C, T, h, w\\], got \\[4, 4\\]": lambda z: low_pass(z[0, 0, 0], 1.0),
    "must be fp32, bf16 or fp16, got torch.float64": lambda z: low_pass(z.double(), 1.0),
    "sigma must be 0..16 latent pixels, got -1": lambda z: low_pass(z, -1.0),
    "sigma must be 0..16 latent pixels, got nan": lambda z: low_pass(z, math.nan),
    "noise_scale must be finite, got inf": lambda z: low_pass_noise(z, 1.0, math.inf, 0),
    "seed must be an int or int64 \\[B\\] = \\[2\\], got 0.5": lambda z: low_pass_noise(z, 1.0, 0.7, 0.5),
    "seed must be .*, got torch.int32 \\[2\\]": lambda z: low_pass_noise(z, 1.0, 0.7, torch.ones(2).int()),
    "seed must be .*, got torch.int64 \\[3\\]": lambda z: low_pass_noise(z, 1.0, 0.7, torch.ones(3).long()),
    "offset must be .*, got -1": lambda z: low_pass_noise(z, 1.0, 0.7, 0, -1),
    "seed must be on cpu like the latents, got meta": lambda z: low_pass_noise(
        z, 1.0, 0.7, torch.ones(2, dtype=torch.int64, device="meta")
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](make_latents((2, 1, 1, 4, 4)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_noise_equals_cpu_noise():
    latents = make_latents((2, 16, 5, 44, 80))
    on_cpu = low_pass_noise(latents, 1.0, 0.7, 1234, 77)
    on_gpu = low_pass_noise(latents.cuda(), 1.0, 0.7, 1234, 77)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=5e-6, rtol=0.0)
