"""Layers of the diffusion transformers: RoPE, attention, the block that both of them stack, and the way in and out.

Tokens keep the layout [B, T, S, D] between layers: T latent frames of S = h·w tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kernels.attention import attention
from kernels.dual_cross_attention import dual_cross_attention
from kernels.modulate import modulate, residual_modulate
from kernels.qk_norm_rope import qk_norm_rope
from models.configs import TransformerConfig

Grid = tuple[int, int, int]  # latent frames, token rows, token columns
KeyValues = tuple[Tensor, Tensor]  # of one attention layer, each [B, N, L, d]; B counts windows where there are some


def start_at_zero(layer: nn.Module) -> None:
    """Set a layer's weights and bias to zero: its branch says nothing until it has learned."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def activation(x: Tensor) -> Tensor:
    """Of all convolutions."""
    return F.leaky_relu(x, 0.1)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, the second started near zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="leaky_relu")
        nn.init.normal_(self.second.weight, std=0.003)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(activation(self.first(activation(x))))


class GELU(nn.Module):
    """GELU by its tanh approximation.

    In half precision on a CPU, where no gradient is wanted, by the error function instead: a quarter of the time, and
    never further than 5e-4 from it.
    """

    def forward(self, x: Tensor) -> Tensor:
        is_rounded = x.dtype != torch.float32 and not x.is_cuda and not torch.is_grad_enabled()
        return F.gelu(x, approximate="none" if is_rounded else "tanh")


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, with a learned gain; keeps the dtype, under autocast too."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.gain.to(x.dtype), self.eps).to(x.dtype)


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding [..., dim] of timesteps in 0 … 1 (Vaswani et al., scaled by 1000)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(1e4) * torch.arange(half, device=timesteps.device) / half)
    angles = timesteps[..., None] * 1000 * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope_3d(
    grid: Grid, head_dim: int, device: torch.device, first: int = 0, base: float = 100.0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [T·h·w, head_dim / 2] of 3D rotary embedding; time, rows, columns share 2 : 3 : 3.

    The halves of a head are the pairs that are rotated. Of the grid's T latent frames those from `first` on.
    """
    time_dim, space_dim = head_dim // 4, head_dim * 3 // 8

    def angles(positions: Tensor, dim: int) -> Tensor:
        return positions.flatten()[:, None] * base ** (-torch.arange(0, dim, 2, device=device) / dim)

    axes = [torch.arange(start, size, device=device).float() for start, size in zip((first, 0, 0), grid, strict=True)]
    t, y, x = torch.meshgrid(*axes, indexing="ij")
    all_angles = torch.cat([angles(t, time_dim), angles(y, space_dim), angles(x, space_dim)], dim=1)
    return all_angles.cos(), all_angles.sin()


class SelfAttention(nn.Module):
    """3D self-attention with q/k RMSNorm and RoPE, over all tokens or over shifted windows of the picture.

    A window spans all latent frames, so that every layer reads identity from the prefix (§3.2). Every second
    layer shifts its windows by half of one. `config.prefix_causal` keeps the prefix from seeing the new latents.
    """

    def __init__(self, config: TransformerConfig, shifted: bool) -> None:
        super().__init__()
        self.config = config
        self.shifted = shifted
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width)
        self.q_norm, self.k_norm = RMSNorm(config.head_dim), RMSNorm(config.head_dim)
        with torch.no_grad():  # queries start equal to keys: tokens first look at what resembles them
            self.qkv.weight[config.width : 2 * config.width] = self.qkv.weight[: config.width]

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], grid: Grid, prefix: int, prefix_kv: KeyValues | None = None
    ) -> tuple[Tensor, KeyValues]:
        """Attend.

        Args:
            x: [B, T, S, D].
            rope: of x's tokens.
            grid: of x.
            prefix: so many latent frames at the front of x are clean.
            prefix_kv: what this layer gave for a clean prefix that comes before x and is not part of it.

        Returns:
            y of x's shape, and the keys and values of x's tokens.
        """
        frames, height, width = grid
        q, k, v = rearrange(self.qkv(x), "b t s (three n d) -> three b n (t s) d", three=3, n=self.config.heads)
        q, k = qk_norm_rope(q, k, self.q_norm.gain, self.k_norm.gain, rope, eps=self.q_norm.eps)
        window = self.config.attention_window
        if window is None or (window >= height and window >= width):
            y = self._attend(q, k, v, prefix * height * width, prefix_kv)
            return self.out(rearrange(y, "b n (t s) d -> b t s (n d)", t=frames)), (k, v)
        q, k, v = (self._to_windows(a, grid, window) for a in (q, k, v))
        y = self._attend(q, k, v, prefix * window * window, prefix_kv)
        return self.out(self._from_windows(y, grid, window)), (k, v)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, prefix_tokens: int, prefix_kv: KeyValues | None) -> Tensor:
        if prefix_kv is None:
            return attention(q, k, v, prefix_length=prefix_tokens if self.config.prefix_causal else 0)
        before = prefix_kv[0].shape[2]
        return attention(q, k, v, prefix_length=before, query_offset=before, prefix_kv=prefix_kv)

    def _to_windows(self, x: Tensor, grid: Grid, window: int) -> Tensor:
        frames, height, width = grid
        x = rearrange(x, "b n (t y x) d -> b n t y x d", t=frames, y=height)
        if self.shifted:
            x = x.roll((-(window // 2), -(window // 2)), dims=(3, 4))
        return rearrange(x, "b n t (y p) (x q) d -> (b y x) n (t p q) d", p=window, q=window)

    def _from_windows(self, x: Tensor, grid: Grid, window: int) -> Tensor:
        frames, height, width = grid
        x = rearrange(
            x, "(b y x) n (t p q) d -> b t (y p) (x q) (n d)", y=height // window, x=width // window, t=frames, p=window
        )
        if self.shifted:
            x = x.roll((window // 2, window // 2), dims=(2, 3))
        return rearrange(x, "b t y x c -> b t (y x) c")


@dataclass(frozen=True)
class Conditions:
    """What cross-attention reads: text [B, Lt, Dt]; audio [B, A, T, K, Da] (A sound streams, K tokens a latent);
    stream_index [B, S] int64, the stream of each token of the picture, or None when A = 1."""

    text: Tensor
    audio: Tensor
    stream_index: Tensor | None = None


def select_stream(values: Tensor, stream_index: Tensor | None) -> Tensor:
    """Values [B, A, T, …] of A sound streams → [B, T, S or 1, …], each token with those of its own stream."""
    if stream_index is None:
        return values[:, 0].unsqueeze(2)
    batch = torch.arange(values.shape[0], device=values.device)[:, None]
    return values[batch, stream_index].transpose(1, 2)


class DualCrossAttention(nn.Module):
    """Decoupled cross-attention, Eq. 4: CA(x, text) + CA(x, audio), the audio with keys and values of its own."""

    def __init__(self, config: TransformerConfig, text_width: int, audio_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.text_kv = nn.Linear(text_width, 2 * config.width, bias=False)
        self.audio_kv = nn.Linear(audio_width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width)
        self.q_norm, self.text_k_norm, self.audio_k_norm = (RMSNorm(config.head_dim) for _ in range(3))
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, conditions: Conditions) -> Tensor:
        """x [B, T, S, D] → the residual of the same shape."""
        return self.attend(self.norm(x), conditions)

    def attend(self, normed: Tensor, conditions: Conditions) -> Tensor:
        """What `forward` makes of x that has been through the norm already."""
        q = self.q_norm(rearrange(self.q(normed), "b t s (n d) -> b n t s d", n=self.heads))
        text_k, text_v = rearrange(self.text_kv(conditions.text), "b l (two n d) -> two b n l d", two=2, n=self.heads)
        audio_k, audio_v = rearrange(
            self.audio_kv(conditions.audio), "b a t k (two n d) -> two b a n t k d", two=2, n=self.heads
        )
        y = dual_cross_attention(
            q,
            self.text_k_norm(text_k),
            text_v,
            self.audio_k_norm(audio_k),
            audio_v,
            stream_index=conditions.stream_index,
        )
        return self.out(rearrange(y, "b n t s d -> b t s (n d)"))


class Block(nn.Module):
    """DiT block: AdaLN self-attention, optional decoupled cross-attention, AdaLN MLP.

    The modulation is one projection shared by all blocks plus a table of the block's own.
    """

    def __init__(self, config: TransformerConfig, index: int, text_width: int = 0, audio_width: int = 0) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.attention = SelfAttention(config, shifted=index % 2 == 1)
        self.cross = DualCrossAttention(config, text_width, audio_width) if audio_width else None
        self.mlp = nn.Sequential(nn.Linear(config.width, hidden), GELU(), nn.Linear(hidden, config.width))
        # Gates start open, since the branches start at zero: with gates near zero as well they hardly learn.
        self.scale_shift_table = nn.Parameter(torch.tensor([0.0, 0, 1, 0, 0, 1])[:, None].repeat(1, config.width))
        for last in (self.attention.out, self.mlp[2]):
            start_at_zero(last)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rope: tuple[Tensor, Tensor],
        grid: Grid,
        prefix: int,
        conditions: Conditions | None = None,
        prefix_kv: KeyValues | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """x [B, T, S, D], modulation [B, T, S or 1, 6, D] → x of the same shape, and its keys and values.

        `rope`, `grid`, `prefix` and `prefix_kv` are those of `SelfAttention`.
        """
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.scale_shift_table).unbind(-2)
        attended, keys_values = self.attention(modulate(x, scale_a, shift_a), rope, grid, prefix, prefix_kv)
        if self.cross is None or conditions is None:
            x, y = residual_modulate(x, attended, gate_a, scale_m, shift_m)
        else:
            norm = self.cross.norm
            x, y = residual_modulate(x, attended, gate_a, weight=norm.weight, bias=norm.bias, eps=norm.eps)
            x, y = residual_modulate(x, self.cross.attend(y, conditions), None, scale_m, shift_m)
        return x + self.mlp(y) * gate_m, keys_values


class BlockStack(nn.ModuleList):
    """All blocks of a transformer, over a window of which the first latents are clean."""

    def __init__(self, config: TransformerConfig, text_width: int = 0, audio_width: int = 0) -> None:
        super().__init__(Block(config, index, text_width, audio_width) for index in range(config.layers))
        self.config = config

    def forward(
        self,
        tokens: Tensor,
        modulation: Tensor,
        grid: Grid,
        new: int,
        conditions: Conditions | None = None,
        prefix_kv: Sequence[KeyValues] | None = None,
    ) -> tuple[Tensor, tuple[KeyValues, ...]]:
        """Through all of them.

        Args:
            tokens: [B, T, S, D] of the window; of its new latents only where there is a prefix_kv.
            modulation: [B, T, S or 1, 6, D] of the same latents.
            grid: of the whole window.
            new: latents at its end that are not clean.
            prefix_kv: by block, what this gave for the window's clean latents alone.

        Returns:
            tokens, and of a window that is all clean the keys and values by block; else none.

        Raises:
            ValueError: if keys and values of a prefix are asked for or given without `prefix_causal`: they would
                depend on what follows it.
        """
        is_prefix = new == 0
        if (is_prefix or prefix_kv is not None) and not self.config.prefix_causal:
            raise ValueError("keys and values of a prefix can only be kept where prefix_causal is on")
        clean = grid[0] - new
        first = 0 if prefix_kv is None else clean
        rope = rope_3d(grid, self.config.head_dim, tokens.device, first)
        shape, kept = (grid[0] - first, *grid[1:]), []
        for index, block in enumerate(self):
            known = None if prefix_kv is None else prefix_kv[index]
            tokens, keys_values = block(tokens, modulation, rope, shape, clean - first, conditions, known)
            if is_prefix:
                kept.append(keys_values)
        return tokens, tuple(kept)


def unpatchify(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens [B, T, H/2·W/2, C·4] → latents [B, C, T, H, W]; in memory [B, T, H, W, C], as convolutions like it."""
    patches = rearrange(tokens, "b t (y x) c -> (b t) c y x", y=height // 2)
    return F.pixel_shuffle(patches, 2).unflatten(0, tokens.shape[:2]).transpose(1, 2)


class LatentStem(nn.Module):
    """Latents → features at their own resolution, and tokens of 2×2 patches of features and latents."""

    def __init__(self, channels: int, features: int, width: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(channels, features, 3, padding=1)
        self.block = ResidualBlock(features)
        self.project = nn.Linear(4 * (features + channels), width)

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, C, T, H, W] → (tokens [B, T, H/2·W/2, D], features [B, F, T, H, W])."""
        batch = latents.shape[0]
        flat = rearrange(latents, "b c t h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
        features = self.block(self.input(flat))
        # `project` is a map of patches of 2×2; as a convolution it needs no copy of them.
        kernel = self.project.weight.unflatten(1, (-1, 2, 2))
        joined = torch.cat([features, flat.to(features.dtype)], dim=1)
        tokens = rearrange(F.conv2d(joined, kernel, self.project.bias, stride=2), "(b t) d y x -> b t (y x) d", b=batch)
        return tokens, rearrange(features, "(b t) c h w -> b c t h w", b=batch)


class LatentHead(nn.Module):
    """Tokens → latents by a linear map, plus convolutions that join what neighbouring tokens say.

    The convolutions see the stem's features as well. Starts at zero.
    """

    def __init__(self, width: int, features: int, channels: int, blocks: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.direct = nn.Linear(width, 4 * channels)
        self.project = nn.Linear(width, 4 * features)
        self.blocks = nn.ModuleList(ResidualBlock(features) for _ in range(blocks))
        self.output = nn.Conv2d(features, channels, 3, padding=1)
        for last in (self.direct, self.output):
            start_at_zero(last)

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Tokens [B, T, H/2·W/2, D], features [B, F, T, H, W] → [B, C, T, H, W]."""
        size, tokens = features.shape[3:], self.norm(tokens)
        hidden = rearrange(features + unpatchify(self.project(tokens), *size), "b c t h w -> (b t) c h w")
        for block in self.blocks:
            hidden = block(hidden)
        joined = rearrange(self.output(activation(hidden)), "(b t) c h w -> b c t h w", b=tokens.shape[0])
        return unpatchify(self.direct(tokens), *size) + joined
