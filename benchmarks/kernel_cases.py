"""What `bench_kernels` times: for every op the shapes of a preset, its bytes and FLOP, and who else can do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.attention import attention
from kernels.dispatch import has_hopper_path
from kernels.dual_cross_attention import dual_cross_attention
from kernels.low_pass import filter_radius, low_pass_noise
from kernels.modulate import residual_modulate
from kernels.norm_act import norm_act
from kernels.pose_tokens import pose_tokens
from kernels.qk_norm_rope import qk_norm_rope
from kernels.rgb_to_i420 import rgb_to_i420
from models.configs import Preset
from models.pose import KEYPOINTS, POSE_CHANNELS

Result = Tensor | tuple[Tensor, ...]
Run = tuple[str, Callable[[], Result]]
MAX_SCORE_BYTES = 24 * 2**30  # a reference that would hold more scores than this is not timed
CHECKED_QUERIES = 64  # at each end, where the whole reference is too large
# Largest difference from the reference, relative to 1 + its magnitude: a rounding of the result, and for attention
# of the softmax weights before it.
TOLERANCES = {torch.float32: 2e-4, torch.float16: 4e-3, torch.bfloat16: 3.2e-2}
OTHER_TILES = [  # of the portable attention kernel
    (128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2), (128, 128, 8, 3), (64, 64, 4, 3), (64, 128, 4, 3),
]  # fmt: skip
OTHER_HOPPER_TILES = [
    (128, 64, 4, 3, 2), (128, 128, 8, 3, 1), (128, 128, 8, 2, 1), (128, 64, 8, 3, 1), (128, 64, 8, 2, 2),
    (64, 64, 4, 3, 2),
]  # fmt: skip


class Case(Protocol):
    """One call of one op. Bytes are each input and the output once; FLOP what the definition needs."""

    @property
    def name(self) -> str: ...

    @property
    def op(self) -> str: ...

    def flop(self) -> int: ...

    def bytes(self, element_size: int) -> int: ...

    def runs(self, dtype: torch.dtype, device: torch.device, has_tiles: bool) -> Iterator[Run]:
        """The implementations, ours first; "reference" last if it can be timed."""

    def checked(self, result: Result, dtype: torch.dtype, device: torch.device) -> tuple[Result, Result]:
        """What to compare of our result, and the same of the reference."""


def normal(*shape: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device).to(dtype)


class WholeCase:
    """A case whose reference is compared whole. Subclasses give `call`, which takes a backend."""

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        """The op with its inputs made; takes `backend`."""
        raise NotImplementedError

    def runs(self, dtype: torch.dtype, device: torch.device, has_tiles: bool) -> Iterator[Run]:
        call = self.call(dtype, device)
        yield "ours", call
        if device.type == "cuda":
            yield "torch", partial(call, backend="torch")
        yield "reference", partial(call, backend="reference")

    def checked(self, result: Result, dtype: torch.dtype, device: torch.device) -> tuple[Result, Result]:
        return result, self.call(dtype, device)(backend="reference")


@dataclass(frozen=True)
class AttentionCase:
    """Shapes and mask of one self-attention call, in rows of `batch` (windows of the picture, or sessions).

    With `is_cached`, the first `prefix_length` keys are a cache of their own and the queries are the new tokens.
    """

    name: str
    heads: int
    head_dim: int
    query_count: int
    key_count: int
    prefix_length: int = 0
    query_offset: int = 0
    batch: int = 1
    is_cached: bool = False
    op: str = "attention"

    def visible_pairs(self) -> int:
        """Query-key pairs of one head that are not masked."""
        inside = min(max(self.prefix_length - self.query_offset, 0), self.query_count)
        return inside * self.prefix_length + (self.query_count - inside) * self.key_count

    def flop(self) -> int:
        return 4 * self.batch * self.heads * self.head_dim * self.visible_pairs()

    def bytes(self, element_size: int) -> int:
        tokens = 2 * self.query_count + 2 * self.key_count
        return self.batch * self.heads * self.head_dim * tokens * element_size

    def score_bytes(self) -> int:
        """What the reference holds at once: scores, masked scores and weights in fp32."""
        return 12 * self.batch * self.heads * self.query_count * self.key_count

    def tensors(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as [B, N, L, d] in the memory order of a projection, [B, L, N, d]."""
        counts = (self.query_count, self.key_count, self.key_count)
        q, k, v = (
            normal(self.batch, count, self.heads, self.head_dim, dtype=dtype, device=device, seed=seed).transpose(1, 2)
            for seed, count in enumerate(counts)
        )
        return q, k, v

    def runs(self, dtype: torch.dtype, device: torch.device, has_tiles: bool) -> Iterator[Run]:
        q, k, v = self.tensors(dtype, device)
        masks: dict[str, Any] = {"prefix_length": self.prefix_length, "query_offset": self.query_offset}
        new, options = (k, v), dict(masks)
        if self.is_cached:
            cut = self.prefix_length
            new = (k[:, :, cut:], v[:, :, cut:])
            options["prefix_kv"] = (k[:, :, :cut].clone(), v[:, :, :cut].clone())
        yield "ours", partial(attention, q, *new, **options)
        if device.type == "cuda":
            yield from self._cuda_runs(q, new, (k, v), options, masks, has_tiles)
        elif self.prefix_length <= self.query_offset:
            yield "sdpa", partial(F.scaled_dot_product_attention, q, k, v)
        if self.score_bytes() <= MAX_SCORE_BYTES:
            yield "reference", partial(attention, q, k, v, backend="reference", **masks)

    def _cuda_runs(
        self,
        q: Tensor,
        new: tuple[Tensor, Tensor],
        joined: tuple[Tensor, Tensor],
        options: dict[str, Any],
        masks: dict[str, Any],
        has_tiles: bool,
    ) -> Iterator[Run]:
        from kernels.attention.hopper_kernel import HopperTile, attention_hopper, is_served
        from kernels.attention.triton_kernel import Tile, attention_triton

        scale = self.head_dim**-0.5
        yield "ours int8", partial(attention, q, *new, is_int8=True, **options)
        is_hopper = has_hopper_path(q.device) and is_served(q, *new, options.get("prefix_kv"))
        if is_hopper:
            yield "ours portable", partial(attention_triton, q, *new, scale=scale, **options)
        for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
            yield f"sdpa {name}", partial(_with_sdpa_backend, backend, q, *joined, masks)
        if not has_tiles:
            return
        for numbers in OTHER_TILES:
            yield f"tile {numbers}", partial(attention_triton, q, *new, scale=scale, tile=Tile(*numbers), **options)
        for hopper_numbers in OTHER_HOPPER_TILES if is_hopper else ():
            tile = HopperTile(*hopper_numbers)
            yield f"hopper {hopper_numbers}", partial(attention_hopper, q, *new, scale=scale, tile=tile, **options)

    def checked(self, result: Result, dtype: torch.dtype, device: torch.device) -> tuple[Result, Result]:
        """The first and the last queries, against all keys."""
        assert isinstance(result, Tensor)
        q, k, v = self.tensors(dtype, device)
        count = min(CHECKED_QUERIES, self.query_count)
        found, expected = [], []
        for first in (0, self.query_count - count):
            rows = slice(first, first + count)
            found.append(result[:, :, rows])
            offset = self.query_offset + first
            expected.append(
                attention(
                    q[:, :, rows], k, v, backend="reference", prefix_length=self.prefix_length, query_offset=offset
                )
            )
        return tuple(found), tuple(expected)


def _with_sdpa_backend(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, masks: dict[str, Any]) -> Tensor:
    with sdpa_kernel(backend):
        return attention(q, k, v, backend="torch", **masks)


@dataclass(frozen=True)
class DualCase(WholeCase):
    """One decoupled cross-attention: `streams` sounds, of which each token hears one."""

    name: str
    heads: int
    head_dim: int
    frames: int
    tokens: int
    text_keys: int
    audio_keys: int
    streams: int = 1
    batch: int = 1
    op: str = "dual_cross_attention"

    def flop(self) -> int:
        keys = self.text_keys + self.audio_keys
        return 4 * self.batch * self.heads * self.head_dim * self.frames * self.tokens * keys

    def bytes(self, element_size: int) -> int:
        queries, audio = self.frames * self.tokens, self.streams * self.frames * self.audio_keys
        return self.batch * self.heads * self.head_dim * 2 * (queries + self.text_keys + audio) * element_size

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        make = partial(normal, dtype=dtype, device=device)
        q = make(self.batch, self.frames, self.tokens, self.heads, self.head_dim).permute(0, 3, 1, 2, 4)
        text_k, text_v = make(2, self.batch, self.text_keys, self.heads, self.head_dim, seed=1).transpose(2, 3)
        audio_shape = (2, self.batch, self.streams, self.frames, self.audio_keys, self.heads, self.head_dim)
        audio_k, audio_v = make(*audio_shape, seed=2).permute(0, 1, 2, 5, 3, 4, 6)
        index = None
        if self.streams > 1:  # people stand side by side
            index = torch.arange(self.tokens, device=device) * self.streams // self.tokens
            index = index.expand(self.batch, -1).contiguous()
        return partial(dual_cross_attention, q, text_k, text_v, audio_k, audio_v, stream_index=index)


@dataclass(frozen=True)
class ModulateCase(WholeCase):
    """Gated residual, LayerNorm, scale and shift, one vector a frame."""

    name: str
    frames: int
    tokens: int
    width: int
    batch: int = 1
    op: str = "modulate"

    def flop(self) -> int:
        return 10 * self.batch * self.frames * self.tokens * self.width

    def bytes(self, element_size: int) -> int:
        return self.batch * self.frames * (4 * self.tokens + 3) * self.width * element_size

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        make = partial(normal, dtype=dtype, device=device)
        x, branch = (make(self.batch, self.frames, self.tokens, self.width, seed=seed) for seed in (0, 1))
        shift, scale, gate = make(self.batch, self.frames, 1, 6, self.width, seed=2).unbind(-2)[:3]
        return partial(residual_modulate, x, branch, gate, scale, shift)


@dataclass(frozen=True)
class QKNormRopeCase(WholeCase):
    """RMSNorm of q and k, slices of one projection, and their rotation."""

    name: str
    heads: int
    head_dim: int
    tokens: int
    batch: int = 1
    op: str = "qk_norm_rope"

    def flop(self) -> int:
        return 2 * 10 * self.batch * self.tokens * self.heads * self.head_dim

    def bytes(self, element_size: int) -> int:
        numbers = 4 * self.batch * self.tokens * self.heads * self.head_dim
        return numbers * element_size + self.tokens * self.head_dim * 4

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        packed = normal(self.batch, self.tokens, 3, self.heads, self.head_dim, dtype=dtype, device=device)
        q, k, _ = packed.permute(2, 0, 3, 1, 4)
        angles = normal(self.tokens, self.head_dim // 2, dtype=torch.float32, device=device, seed=1)
        gain = torch.ones(self.head_dim, dtype=dtype, device=device)
        return partial(qk_norm_rope, q, k, gain, gain, (angles.cos(), angles.sin()))


@dataclass(frozen=True)
class PoseCase(WholeCase):
    """Keypoints to tokens."""

    name: str
    latents: int
    height: int
    width: int
    batch: int = 1
    op: str = "pose_tokens"

    def flop(self) -> int:
        """Two products and a sum a cell and point of its channel; exponentials are not counted."""
        return 2 * KEYPOINTS * self.batch * self.latents * 4 * 16 * self.height * self.width

    def bytes(self, element_size: int) -> int:
        keypoints = self.batch * 4 * self.latents * KEYPOINTS * 3 * 4
        return keypoints + self.batch * self.latents * self.height * self.width * 512 * element_size

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        generator = torch.Generator(device).manual_seed(0)
        points = torch.rand(self.batch, 4 * self.latents, KEYPOINTS, 3, generator=generator, device=device).ceil_()
        points[..., :2] = torch.rand(points[..., :2].shape, generator=generator, device=device)
        return partial(pose_tokens, points, self.height, self.width, POSE_CHANNELS, dtype=dtype)


@dataclass(frozen=True)
class LowPassCase(WholeCase):
    """Shape and filter of one low-pass and noise call."""

    name: str
    shape: tuple[int, int, int, int, int]
    sigma: float = 1.0
    op: str = "low_pass"

    def flop(self) -> int:
        """Two passes of the separable filter; the noise is integer work and not counted."""
        return 2 * 2 * (2 * filter_radius(self.sigma) + 1) * torch.Size(self.shape).numel()

    def bytes(self, element_size: int) -> int:
        return 2 * torch.Size(self.shape).numel() * element_size

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        return partial(low_pass_noise, normal(*self.shape, dtype=dtype, device=device), self.sigma, 0.7, 1)


@dataclass(frozen=True)
class I420Case(WholeCase):
    """Frames to planes."""

    name: str
    frames: int
    height: int
    width: int
    op: str = "rgb_to_i420"

    def flop(self) -> int:
        return self.frames * self.height * self.width * (6 + 3 + 3)

    def bytes(self, element_size: int) -> int:
        return self.frames * self.height * self.width * (6 * element_size + 3) // 2

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        generator = torch.Generator(device).manual_seed(0)
        shape = (self.frames, 3, self.height, self.width)
        return partial(rgb_to_i420, torch.rand(shape, generator=generator, device=device).to(dtype))

    def checked(self, result: Result, dtype: torch.dtype, device: torch.device) -> tuple[Result, Result]:
        """How far samples are apart beyond one step: where fp32 sums differ, a half may be rounded the other way."""
        expected = self.call(dtype, device)(backend="reference")
        assert isinstance(result, Tensor) and isinstance(expected, Tensor)
        return (result.int() - expected.int()).abs().clamp_min(1) - 1, torch.zeros_like(result, dtype=torch.int32)


@dataclass(frozen=True)
class NormActCase(WholeCase):
    """Norm and activation of one layer of a Wan-style decoder."""

    name: str
    shape: tuple[int, ...]
    is_channels_last: bool
    op: str = "norm_act"

    def flop(self) -> int:
        return 8 * torch.Size(self.shape).numel()

    def bytes(self, element_size: int) -> int:
        return 2 * torch.Size(self.shape).numel() * element_size

    def call(self, dtype: torch.dtype, device: torch.device) -> Callable[..., Result]:
        x = normal(*self.shape, dtype=dtype, device=device)
        if self.is_channels_last:
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        return partial(norm_act, x, torch.ones(self.shape[1], dtype=dtype, device=device))


def preset_cases(preset: Preset, label: str, text_tokens: int | None = None) -> list[Case]:
    """Every op at the shapes of a steady chunk of a preset."""
    m, n = preset.motion_latents, preset.chunk_latents
    frames, prefix = 1 + m + n, 1 + m
    lr, hr = preset.lr_a2v.transformer, preset.refiner.transformer
    (lr_h, lr_w), (hr_h, hr_w) = preset.lr_latent_size, preset.hr_latent_size
    lr_tokens, hr_tokens = lr_h * lr_w // 4, hr_h * hr_w // 4
    text_keys = text_tokens or preset.text.tokens
    window = hr.attention_window
    hr_rows = 1 if window is None else hr_tokens // window**2
    hr_row = hr_tokens // hr_rows
    dual = DualCase(
        f"{label} LR dual", lr.heads, lr.head_dim, frames, lr_tokens, text_keys, preset.lr_a2v.audio_window
    )
    cases: list[Case] = [
        *window_cases(f"{label} HR {hr.heads}x{hr.head_dim}", hr.heads, hr.head_dim, hr_row, frames, prefix, hr_rows),
        *window_cases(f"{label} LR {lr.heads}x{lr.head_dim}", lr.heads, lr.head_dim, lr_tokens, frames, prefix),
        dual,
        replace(dual, name=f"{label} LR dual, 2 streams", streams=2),
        ModulateCase(f"{label} HR modulate", frames, hr_tokens, hr.width),
        ModulateCase(f"{label} LR modulate", frames, lr_tokens, lr.width),
        QKNormRopeCase(f"{label} HR norm, rope", hr.heads, hr.head_dim, frames * hr_tokens),
        QKNormRopeCase(f"{label} LR norm, rope", lr.heads, lr.head_dim, frames * lr_tokens),
        PoseCase(f"{label} pose tokens", frames, lr_h, lr_w),
        LowPassCase(f"{label} low-pass", (m + n, 16, 1, lr_h, lr_w), preset.low_pass_sigma),
        I420Case(f"{label} I420", 4 * n, *preset.hr_size),
    ]
    return cases


def window_cases(
    name: str, heads: int, head_dim: int, tokens: int, latents: int, prefix_latents: int, batch: int = 1
) -> list[Case]:
    """Self-attention over a window of `latents`, the first of which are the prefix: whole, masked and cached."""
    whole, prefix = latents * tokens, prefix_latents * tokens
    return [
        AttentionCase(f"{name} bidirectional", heads, head_dim, whole, whole, batch=batch),
        AttentionCase(f"{name} prefix-causal", heads, head_dim, whole, whole, prefix, batch=batch),
        AttentionCase(f"{name} cached", heads, head_dim, whole - prefix, whole, prefix, prefix, batch, True),
    ]
