import math

import pytest
import torch

from kernels.pose_tokens import pose_tokens
from models import pose
from tests.kernels.comparison import DTYPES, assert_close, spread

CHANNELS = ((0, 3, 1.0), (3, 24, 0.7), (5, 5, 1.0), (20, 25, 1.3))  # one without points, two that overlap


def keypoints(*shape, dtype=torch.float32, device="cpu", seed=0):
    """x and y around the picture, some outside; visibility 0 or 1."""
    points = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2
    points[..., 2] = (points[..., 2] > 0.2).float()
    return points.to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("batch", "latents", "height", "width"), [(1, 1, 1, 1), (2, 1, 5, 3), (1, 2, 3, 17)])
def test_kernel_equals_reference(device, batch, latents, height, width, dtype):
    points = keypoints(batch, 4 * latents, 25, dtype=dtype, device=device, seed=width)
    found = pose_tokens(points, height, width, CHANNELS, backend="triton")
    assert found.shape == (batch, latents, height * width, 256)
    assert_close(found, pose_tokens(points, height, width, CHANNELS, backend="reference"))


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_channels_of_the_models(device, backend):
    points = keypoints(1, 4, pose.KEYPOINTS, device=device)
    found = pose_tokens(points, 4, 6, pose.POSE_CHANNELS, backend=backend)
    assert found.shape[-1] == pose.POSE_TOKEN_DIM
    expected = pose_tokens(points, 4, 6, pose.POSE_CHANNELS, backend="reference")
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("backend", ["triton", "torch", "reference"])
@pytest.mark.parametrize("seed", range(3))
def test_against_fp64_cell_by_cell(device, backend, seed):
    points = keypoints(1, 4, 25, device=device, seed=seed)
    tokens = pose_tokens(points, 2, 3, CHANNELS, backend=backend).reshape(2, 3, 4, len(CHANNELS), 4, 4)
    for token_row, column, frame, channel, row in ((0, 0, 0, 0, 0), (1, 2, 3, 1, 2), (0, 1, 2, 3, 3), (1, 0, 1, 2, 1)):
        start, stop, radius = CHANNELS[channel]
        y, x = 4 * token_row + row + 0.5, 4 * column + 1 + 0.5
        total = 0.0
        for px, py, visible in points[0, frame, start:stop].double().tolist():
            total += visible * math.exp(-((y - 8 * py) ** 2 + (x - 12 * px) ** 2) / (2 * radius**2))
        assert abs(float(tokens[token_row, column, frame, channel, row, 1]) - min(total, 1.5)) < 3e-6


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_strided_keypoints_and_another_dtype(device, backend):
    points = keypoints(2, 4, 25, device=device)
    found = pose_tokens(spread(points), 2, 3, CHANNELS, dtype=torch.bfloat16, ceiling=0.5, backend=backend)
    expected = pose_tokens(points, 2, 3, CHANNELS, ceiling=0.5, backend="reference")
    assert found.dtype == torch.bfloat16 and expected.max() == 0.5
    assert_close(found, expected.bfloat16())


def test_gradients_flow_by_default_and_kernel_refuses_them(device):
    points = keypoints(1, 4, 25, device=device).requires_grad_()
    pose_tokens(points, 2, 2, CHANNELS).sum().backward()
    assert points.grad is not None and points.grad.any()
    with pytest.raises(ValueError, match="no backward pass"):
        pose_tokens(points, 2, 2, CHANNELS, backend="triton")


BAD = {
    "keypoints must be \\[B, 4T, P, 3\\]": lambda p: pose_tokens(p[:, :3], 2, 2, CHANNELS),
    "keypoints must be fp32": lambda p: pose_tokens(p.double(), 2, 2, CHANNELS),
    "dtype must be fp32": lambda p: pose_tokens(p, 2, 2, CHANNELS, dtype=torch.int32),
    "must be tokens and channels, got 0 x 2": lambda p: pose_tokens(p, 0, 2, CHANNELS),
    "points within 0..25 and a radius > 0, got \\(0, 26, 1.0\\)": lambda p: pose_tokens(p, 2, 2, ((0, 26, 1.0),)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_told_in_words(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](keypoints(1, 4, 25))
