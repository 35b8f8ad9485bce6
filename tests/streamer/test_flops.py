from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from streamer.flops import count_flops


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
