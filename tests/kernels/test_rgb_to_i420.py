import pytest
import torch

from kernels.rgb_to_i420 import rgb_to_i420
from tests.kernels.comparison import DTYPES, spread

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
SIZES = [(1, 2, 2), (2, 6, 10), (1, 4, 34), (3, 2, 70)]


def pictures(count, height, width, dtype=torch.float32, device="cpu", seed=0):
    """Colours around 0 … 1, some outside."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 3, height, width, generator=generator) * 1.2 - 0.1).to(device, dtype)


def exact(frames, standard):
    """Samples before rounding, in fp64: Y [T, H, W] and U, V [T, H/2, W/2]."""
    kr, kb = WEIGHTS[standard]
    red, green, blue = frames.double().clamp(0, 1).unbind(1)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = (128 + 112 * (part - y) / (1 - weight) for part, weight in ((blue, kb), (red, kr)))
    count, height, width = y.shape
    u, v = (plane.reshape(count, height // 2, 2, width // 2, 2).mean((2, 4)) for plane in chroma)
    return 16 + 219 * y, u, v


def planes(i420):
    count, lines, width = i420.shape
    height = lines * 2 // 3
    u, v = i420[:, height:].reshape(count, 2, height // 2, width // 2).unbind(1)
    return i420[:, :height], u, v


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
@pytest.mark.parametrize("standard", WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_against_fp64(device, size, dtype, standard, backend):
    frames = pictures(*size, dtype=dtype, device=device, seed=sum(size))
    found = rgb_to_i420(frames, standard=standard, backend=backend)
    assert found.dtype == torch.uint8 and found.shape == (size[0], size[1] * 3 // 2, size[2])
    for plane, expected in zip(planes(found), exact(frames, standard), strict=True):
        assert (plane.double() - expected).abs().max() <= 0.5 + 1e-4  # rounded to the nearest


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
def test_white_black_and_primary_colours(device, backend):
    """The values that every table of BT.601 shows."""
    colours = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]], device=device)
    found = rgb_to_i420(colours[:, :, None, None].expand(-1, -1, 2, 2), backend=backend)
    samples = [[int(plane[i, 0, 0]) for plane in planes(found)] for i in range(5)]
    assert samples == [[235, 128, 128], [16, 128, 128], [81, 90, 240], [145, 54, 34], [41, 240, 110]]


@pytest.mark.parametrize(("height", "standard"), [(576, "bt601"), (578, "bt709")])
def test_standard_follows_the_lines(height, standard):
    frames = pictures(1, height, 2)
    found = rgb_to_i420(frames)
    assert torch.equal(found, rgb_to_i420(frames, standard=standard))
    assert not torch.equal(found, rgb_to_i420(frames, standard="bt601" if standard == "bt709" else "bt709"))


def test_chroma_lies_between_its_four_pixels(device):
    frames = torch.zeros(1, 3, 4, 6, device=device)
    frames[0, 0, 2:, 2:4] = 1.0  # red
    frames[0, 0, 0, 0] = 1.0  # a quarter of a sample
    for backend in ("triton", "torch", "reference"):
        _, _, v = planes(rgb_to_i420(frames, backend=backend))
        assert v[0].tolist() == [[156, 128, 128], [128, 240, 128]]


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_strided_frames_and_given_planes(device, backend):
    frames = pictures(2, 4, 6, device=device)
    expected = rgb_to_i420(frames, backend="reference")
    out = torch.zeros(3, 6, 6, dtype=torch.uint8, device=device)
    for strided in (spread(frames), frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)):
        assert rgb_to_i420(strided, out=out[1:], backend=backend).data_ptr() == out[1:].data_ptr()
        assert (out[1:].int() - expected.int()).abs().max() <= 1 and not out[0].any()


BAD = {
    "frames must be \\[T, 3, H, W\\]": lambda x: rgb_to_i420(x[0]),
    "height and width must be even": lambda x: rgb_to_i420(x[:, :, 1:]),
    "frames must be fp32, bf16 or fp16, got torch.uint8": lambda x: rgb_to_i420(x.byte()),
    "standard must be one of bt601, bt709": lambda x: rgb_to_i420(x, standard="bt2020"),
    "out must be contiguous uint8 \\[2, 6, 6\\]": lambda x: rgb_to_i420(x, out=torch.zeros(2, 6, 6)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](pictures(2, 4, 6))
