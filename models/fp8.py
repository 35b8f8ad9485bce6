"""Linear layers in fp8 for the large transformers, inference only: e4m3 with one scale a token and one a channel.

`use_fp8` puts them into the blocks of a model whose weights are loaded; files keep the weights of `nn.Linear`.

Relative L2 error of row-wise e4m3, all on a CPU (bf16 beside it):

    a layer of unit normal x and weight, 512 to 8960 features, against fp64      3.7 %       0.24 %
    the same, 4 channels of x 50 times as large                                  3.0-3.4 %   0.24 %
    LR-A2V, refiner of two random blocks of width 512, against fp32              6.6, 5.9 %  0.9, 0.7 %

Frames of presenter-256 with its weights and the blocks of both models in fp8 (`least_features` 192) are at 65.9 dB
against fp32, where bf16 in all models is at 62.4 dB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.dispatch import compute_capability

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max  # 448
SMALLEST_SCALE = 1e-30  # of a row of zeros
FEATURE_MULTIPLE = 16  # what the fp8 product asks of both features
LEAST_FEATURES = 512  # in and out, of a layer that is worth it
SCALES = ".scales"  # how a stored layer's scales are called, beside its weight


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [L, K], fp32, bf16 or fp16 → e4m3 [L, K] and fp32 scales [L]; x ≈ e4m3 · scale. A NaN makes its row NaN.

    The scale makes the largest magnitude of a row 448. Two passes over x: the second has to know the largest.
    """
    # With the dtype given, the norm reads half precision as it is, under autocast too.
    largest = torch.linalg.vector_norm(x, float("inf"), dim=1, dtype=torch.float32)
    scales = (largest / FP8_MAX).clamp_min(SMALLEST_SCALE)
    # Into `out`, so that the quotients are rounded where they are made and never written in fp32.
    values = torch.empty(x.shape, dtype=FP8, device=x.device)
    return torch.div(x, scales[:, None], out=values), scales


def has_fp8(device: torch.device) -> bool:
    """Whether a device multiplies fp8 itself: CUDA from 8.9 on. The meta device checks shapes as CUDA would."""
    return device.type == "meta" or compute_capability(device) >= (8, 9)


def fp8_product(x: Tensor, x_scales: Tensor, weight: Tensor, weight_scales: Tensor, bias: Tensor | None) -> Tensor:
    """x [L, K] and weight [M, K] in e4m3, fp32 scales [L] and [M], bias [M] → bf16 [L, M], on the tensor cores."""
    return F.scaled_mm(
        x,
        weight.t(),
        x_scales[:, None],
        F.ScalingType.RowWise,
        weight_scales[None],
        F.ScalingType.RowWise,
        bias=None if bias is None else bias.to(torch.bfloat16),
        output_dtype=torch.bfloat16,  # the one that row-wise scales with a bias have on all cards
        use_fast_accum=True,
    )


def plain_product(x: Tensor, x_scales: Tensor, weight: Tensor, weight_scales: Tensor, bias: Tensor | None) -> Tensor:
    """The definition of `fp8_product`, fp32 [L, M]: products of the same numbers and their sums in fp32. Slow."""
    with torch.autocast(x.device.type, enabled=False):
        y = F.linear(x.float(), weight.float()) * x_scales[:, None] * weight_scales
    return y if bias is None else y + bias.float()


def output_dtype(x: Tensor) -> torch.dtype:
    """What an `nn.Linear` returns for x: its dtype, or that of autocast."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


class FP8Linear(nn.Module):
    """An `nn.Linear` with its weight in e4m3, one scale an output channel; each token is rounded by a scale of its own.

    Where the device cannot multiply fp8 the same numbers are multiplied in fp32, so results agree to a rounding.
    Nothing waits for the host: it can be captured in a CUDA graph.
    """

    weight: Tensor  # e4m3 [out, in]
    scales: Tensor  # fp32 [out]
    bias: Tensor | None  # [out], in the dtype that it had

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        if self.in_features % FEATURE_MULTIPLE or self.out_features % FEATURE_MULTIPLE:
            raise ValueError(
                f"features must be multiples of {FEATURE_MULTIPLE}, got {self.in_features} and {self.out_features}"
            )
        weight, scales = quantise_rows(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in], fp32, bf16 or fp16 → [..., out] in its dtype or autocast's; on CUDA rounded to bf16 before.

        Raises:
            RuntimeError: if x wants a gradient.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("FP8Linear is for inference only: it has no gradient; use torch.no_grad()")
        rows, scales = quantise_rows(x.reshape(-1, x.shape[-1]))
        product = fp8_product if has_fp8(x.device) else plain_product
        y = product(rows, scales, self.weight, self.scales, self.bias)
        return y.to(output_dtype(x)).view(*x.shape[:-1], self.out_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FP8Linear:
        """Moves go through, changes of dtype do not: to PyTorch e4m3 is one more floating-point type to convert."""
        kept = {"weight": self.weight, "scales": self.scales}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = getattr(self, name)
            if after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


def use_fp8(module: nn.Module, least_features: int = LEAST_FEATURES) -> int:
    """Put `FP8Linear` in the place of the large linear layers of `module.blocks`; returns how many were replaced.

    Large are those with at least `least_features` in and out, both multiples of 16. Modulation, stem and head keep
    their precision: they are small, and what they say reaches every token or pixel.
    """
    replaced = 0
    for parent in list(module.get_submodule("blocks").modules()):
        for name, layer in list(parent.named_children()):
            if not isinstance(layer, nn.Linear):
                continue
            features = (layer.in_features, layer.out_features)
            if min(features) >= least_features and not any(size % FEATURE_MULTIPLE for size in features):
                setattr(parent, name, FP8Linear(layer))
                replaced += 1
    return replaced


def expect_fp8(module: nn.Module, names: Iterable[str]) -> None:
    """Make room for a file's fp8 layers: those of which `names` has scales become `FP8Linear`.

    Raises:
        ValueError: if one of them is no linear layer of the module, or too odd in size.
    """
    for name in names:
        if not name.endswith(SCALES):
            continue
        parent, _, last = name.removesuffix(SCALES).rpartition(".")
        try:
            layer = module.get_submodule(f"{parent}.{last}")
        except AttributeError:
            layer = None
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} belongs to no linear layer")
        setattr(module.get_submodule(parent), last, FP8Linear(layer))
