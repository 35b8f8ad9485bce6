"""Standard normal numbers that depend only on a seed and an index: Philox 4x32-10 and Box–Muller, in PyTorch.

Number n of a seed is lane n mod 4 of counter (n // 4) under the key (low, high 32 bits of the seed). The
words are computed exactly, in int64, so a seed gives the same noise on any device, batch split or launch
shape; the only difference left is in the last bits of fp32 log, sine and cosine.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox_4x32(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Ten rounds of Philox 4x32 on int64 tensors that hold 32-bit words; shapes broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # The product wraps in int64, which keeps all of its 64 bits.
        product0 = c0 * MULTIPLIERS[0]
        product1 = c2 * MULTIPLIERS[1]
        c0 = (product1 >> 32) & WORD ^ c1 ^ k0
        c1 = product1 & WORD
        c2 = (product0 >> 32) & WORD ^ c3 ^ k1
        c3 = product0 & WORD
        k0 = k0 + KEY_STEPS[0] & WORD
        k1 = k1 + KEY_STEPS[1] & WORD
    return c0, c1, c2, c3


def standard_normal(
    shape: tuple[int, ...],
    seed: int | Tensor,
    offset: int | Tensor = 0,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """fp32 normal numbers of `shape`, the same on every device.

    With an int `seed` and `offset`, element i of the flattened result is number `offset + i` of that seed.
    When either is an int64 tensor [shape[0]], rows are independent: element i of row b is number
    `offset[b] + i` of `seed[b]`, i counting inside the row, so a row does not depend on its place in the
    batch.
    """
    if isinstance(seed, Tensor) or isinstance(offset, Tensor):
        rows, count = shape[0], math.prod(shape[1:])
    else:
        rows, count = 1, math.prod(shape)
    seeds = as_rows(seed, rows, device)[:, None]
    offsets = as_rows(offset, rows, device)[:, None]

    # One block of four more than `count` needs, since the offset may start inside a block.
    blocks = (offsets >> 2) + torch.arange(count // 4 + 2, device=device)
    zero = torch.zeros_like(blocks[:1, :1])
    words = philox_4x32((blocks & WORD, blocks >> 32, zero, zero), (seeds & WORD, seeds >> 32 & WORD))
    lanes = [*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])]
    normals = torch.stack(lanes, dim=-1).flatten(1)
    if isinstance(offset, Tensor):
        normals = normals.gather(1, (offsets & 3) + torch.arange(count, device=device))
    else:
        normals = normals[:, offset & 3 : (offset & 3) + count]
    return normals.reshape(shape)


def as_rows(value: int | Tensor, rows: int, device: torch.device | str) -> Tensor:
    """`value` as int64 [rows] on `device`; an int is taken modulo 2^64."""
    if isinstance(value, Tensor):
        return value
    return torch.full((rows,), wrap_int64(value), dtype=torch.int64, device=device)


def wrap_int64(value: int) -> int:
    """`value` modulo 2^64 as a signed 64-bit number."""
    return (value + 2**63) % 2**64 - 2**63


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two normals from two words. Both uniforms are exact in fp32: 23 bits and a half, so never 0 or 1."""
    radius = torch.sqrt(-2.0 * torch.log(_uniform(first)))
    angle = _uniform(second) * (2.0 * math.pi)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def _uniform(word: Tensor) -> Tensor:
    return ((word >> 9).float() + 0.5) * 2.0**-23
