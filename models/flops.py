"""Counting operations with torch's counter, which alone misses attention on a CPU and products in fp8."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


def flop_counter() -> FlopCounterMode:
    """A context that counts matrix products, convolutions and attention; a multiply and an add are two.

    Hand-written device kernels are not seen by it: KERNELS_BACKEND=torch, or count on a CPU.
    """
    # Here and not above: this module of torch brings triton with it.
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    more = {
        aten.scaled_dot_product_attention: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_mm_v2: _product_flops,
    }
    return FlopCounterMode(display=False, custom_mapping=more)


def count_flops(work: Callable[[], Any]) -> int:
    """Operations in `work`."""
    with flop_counter() as counter:
        work()
    return counter.get_total_flops()


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Shapes [.., L, d], [.., S, d], [.., S, v]; all pairs, masked ones too."""
    *batch, length, width = query
    return 2 * math.prod(batch) * length * key[-2] * (width + value[-1])


def _product_flops(left: torch.Size, right: torch.Size, *_: Any, **__: Any) -> int:
    """Shapes [L, K] and [K, M]."""
    return 2 * left[0] * left[1] * right[1]
