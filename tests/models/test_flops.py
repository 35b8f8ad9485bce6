from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from models.flops import count_flops
from models.fp8 import FP8Linear


@pytest.mark.parametrize("guard", [torch.inference_mode, torch.no_grad])
def test_attention_on_the_cpu_is_counted(guard) -> None:
    query, key, value = torch.randn(2, 3, 10, 32), torch.randn(2, 3, 20, 32), torch.randn(2, 3, 20, 32)

    @guard()
    def attend() -> None:
        F.scaled_dot_product_attention(query, key, value)
        F.scaled_dot_product_attention(query, key, value, attn_mask=torch.zeros(10, 20))

    assert count_flops(attend) == 2 * (2 * 2 * 3 * 10 * 20 * (32 + 32))


@pytest.mark.parametrize("guard", [torch.inference_mode, torch.no_grad])
def test_products_and_convolutions_are_counted(guard) -> None:
    @guard()
    def work() -> None:
        F.linear(torch.ones(7, 5), torch.ones(3, 5))
        F.conv2d(torch.ones(1, 3, 8, 8), torch.ones(5, 3, 3, 3))
        torch.einsum("ij,jk->ik", torch.ones(3, 4), torch.ones(4, 5))

    assert count_flops(work) == 2 * (7 * 5 * 3 + 36 * 5 * 27 + 3 * 4 * 5)


def test_products_in_fp8_are_counted_like_others() -> None:
    x, linear = torch.zeros(2, 3, 32), torch.nn.Linear(32, 48)
    with torch.inference_mode():
        for layer in (linear, FP8Linear(linear)):
            assert count_flops(lambda layer=layer: layer(x)) == 2 * 6 * 32 * 48
    left, right = (torch.zeros((16, 32), dtype=torch.float8_e4m3fn) for _ in range(2))
    scale, kind = torch.ones(1), F.ScalingType.TensorWise

    def product() -> None:  # what a GPU does
        F.scaled_mm(left, right.t(), scale, kind, scale, kind, output_dtype=torch.bfloat16)

    assert count_flops(product) == 2 * 16 * 32 * 16
