"""Counting the operations of a chunk with torch's counter."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


def count_flops(work: Callable[[], Any]) -> int:
    """Operations of matrix products, convolutions and attention in `work`; a multiply and an add are two.

    Hand-written device kernels are not seen by the counter, so count on the CPU.
    """
    # Here and not above: this module of torch brings triton with it.
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    # Torch knows these two only by their CUDA names and would count attention on the CPU as nothing.
    attention = {
        aten.scaled_dot_product_attention: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        work()
    return counter.get_total_flops()


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    """Shapes [.., L, d], [.., S, d], [.., S, v]; all pairs, masked ones too."""
    *batch, length, width = query
    return 2 * math.prod(batch) * length * key[-2] * (width + value[-1])
