"""SoulX-FlashHead's denoiser (Pro and Lite): a Wan-shaped transformer that hears 32 audio tokens a latent frame.

Names and shapes are those of the published files. Inside, the two channels that rotary embedding turns together lie
half a head apart, where the published ones are neighbours: `half_split` moves them when weights are loaded, and nothing
else changes, for queries and keys are moved alike. So the kernels serve it.

Time steps run from 1000 (noise) to 0 (data); what is predicted is the velocity, noise minus data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from kernels.attention import attention
from kernels.modulate import modulate, residual_modulate
from models.public.audio_tokens import AudioProjection
from models.public.wan_layers import Attention, KeyValues, SelfAttention, half_split, rope_angles, sinusoids

MOST_LAYERS, MOST_WIDTH = 256, 1 << 16  # of a config.json that is believed


@dataclass(frozen=True)
class FlashHeadConfig:
    """`config.json` of a published folder; names as there. What is said of the sound is not in published files.

    Raises:
        ValueError: if the numbers do not fit each other.
    """

    dim: int
    ffn_dim: int
    in_dim: int  # channels of the noisy latents and of the reference
    out_dim: int
    text_dim: int
    freq_dim: int
    num_heads: int
    num_layers: int
    patch_size: tuple[int, int, int]
    vae_stride: tuple[int, int, int]
    eps: float = 1e-6
    has_image_input: bool = False
    audio_layers: int = 12  # of wav2vec2-base
    audio_width: int = 768
    audio_hidden: int = 512
    audio_tokens: int = 32  # a latent frame

    def __post_init__(self) -> None:
        if not (isinstance(self.eps, float) and 0 < self.eps < 1):
            raise ValueError(f"eps must be within 0 … 1, got {self.eps!r}")
        sizes = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("eps", "has_image_input")}
        for name, size in sizes.items():
            parts = size if isinstance(size, tuple) else (size,)
            wanted = 3 if name in ("patch_size", "vae_stride") else 1
            most = MOST_LAYERS if name in ("num_layers", "audio_layers") else MOST_WIDTH
            if len(parts) != wanted or any(type(part) is not int or not 1 <= part <= most for part in parts):
                raise ValueError(f"{name} must be {wanted} whole number(s) within 1 … {most}, got {size!r}")
        if self.in_dim != 2 * self.out_dim:
            raise ValueError(f"in_dim must be twice out_dim, got {self.in_dim} and {self.out_dim}")
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(f"dim {self.dim} does not divide into {self.num_heads} heads of even width")
        if self.patch_size[0] != 1:
            raise ValueError(f"patch_size must be 1 in time, got {self.patch_size}")
        if self.has_image_input:
            raise ValueError("has_image_input is not known of any published file")

    @classmethod
    def from_json(cls, text: str) -> FlashHeadConfig:
        """Of the text of a `config.json`; entries that start with _ are notes of who wrote it.

        Raises:
            ValueError: if it is no JSON object, lacks an entry, or a number is out of range.
        """
        given = json.loads(text)
        if not isinstance(given, dict):
            raise ValueError("it holds no JSON object")
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if n in known}
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        if missing := needed - values.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return cls(**values)

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def frame_stride(self) -> int:
        """Frames of a latent after the first."""
        return self.vae_stride[0]


class CrossAttention(Attention):
    """The tokens of a latent frame see the audio tokens of that frame."""

    def keys_values(self, context: Tensor) -> KeyValues:
        """Audio tokens [B, f, K, D] → keys and values [B, f, N, K, d], the same in all steps of a chunk."""
        return self.heads_of(self.norm_k(self.k(context))), self.heads_of(self.v(context))

    def forward(self, x: Tensor, keys_values: KeyValues) -> Tensor:
        """x [B, f, S, D] → the same shape."""
        q = self.heads_of(self.norm_q(self.q(x)))
        seen = attention(q.flatten(0, 1), *(part.flatten(0, 1) for part in keys_values))
        return self.o(seen.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Self-attention and MLP under the time step's modulation, cross-attention to the sound between."""

    def __init__(self, config: FlashHeadConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn, self.cross_attn = SelfAttention(config), CrossAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(torch.zeros(1, 6, config.dim))

    def forward(self, x: Tensor, modulation: Tensor, rope: KeyValues, keys_values: KeyValues) -> Tensor:
        """x [B, f, S, D], modulation [B, 6, D] → x of the same shape."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (self.modulation + modulation)[:, None, None].unbind(-2)
        attended = self.self_attn(modulate(x, scale_a, shift_a, eps=self.eps), rope)
        norm = self.norm3
        x, y = residual_modulate(x, attended, gate_a, weight=norm.weight, bias=norm.bias, eps=norm.eps)
        x, y = residual_modulate(x, self.cross_attn(y, keys_values), None, scale_m, shift_m, eps=self.eps)
        return x + self.ffn(y) * gate_m


class Head(nn.Module):
    """Tokens → patches of velocity."""

    def __init__(self, config: FlashHeadConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = nn.Linear(config.dim, config.patch_size[1] * config.patch_size[2] * config.out_dim)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x [B, f, S, D], embedding of the time step [B, D] → [B, f, S, rows · columns · C]."""
        shift, scale = (self.modulation + t[:, None])[:, None, None].unbind(-2)
        return self.head(modulate(x, scale, shift, eps=self.eps))


class FlashHead(nn.Module):
    """The denoiser. What the sound gives is made once a chunk by `hear`, and serves all its steps."""

    def __init__(self, config: FlashHeadConfig) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        patch = config.patch_size
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, kernel_size=patch, stride=patch)
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        slot_width = config.audio_layers * config.audio_width
        self.audio_proj = AudioProjection(
            config.frame_stride, dim, config.audio_hidden, slot_width, config.audio_tokens
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)

    def hear(self, audio: Tensor) -> tuple[KeyValues, ...]:
        """Windows of sound [B, F, 5, layers, width] → keys and values [B, f, N, K, d] of every block.

        Raises:
            ValueError: if F is not 1 + a multiple of the frames of a latent.
        """
        context = self.audio_proj(audio)
        return tuple(block.cross_attn.keys_values(context) for block in cast(Iterable[Block], self.blocks))

    def forward(self, latents: Tensor, timesteps: Tensor, reference: Tensor, heard: tuple[KeyValues, ...]) -> Tensor:
        """Velocity of noisy latents.

        Args:
            latents, reference: [B, C, f, h, w], h and w multiples of the patch.
            timesteps: [B] in 0 … 1000. They are rounded to the dtype of `latents`, as those that the weights were
                trained with were: in bf16 the step 937.5 is 936.
            heard: what `hear` gave.

        Returns:
            [B, C, f, h, w].
        """
        tokens = self.patch_embedding(torch.cat([latents, reference], dim=1))
        grid = tuple(tokens.shape[2:])
        x = rearrange(tokens, "b d f y x -> b f (y x) d")
        t = self.time_embedding(sinusoids(timesteps.to(x.dtype), self.config.freq_dim).to(x.dtype))
        modulation = self.time_projection(t).unflatten(1, (6, -1))
        rope = rope_angles(grid, self.config.head_dim, x.device)
        for block, keys_values in zip(self.blocks, heard, strict=True):
            x = block(x, modulation, rope, keys_values)
        return self._unpatchify(self.head(x, t), grid)

    def _unpatchify(self, patches: Tensor, grid: tuple[int, ...]) -> Tensor:
        _, rows, columns = self.config.patch_size
        pattern = "b f (y x) (rows columns c) -> b c f (y rows) (x columns)"
        return rearrange(patches, pattern, y=grid[1], rows=rows, columns=columns)


def unused_shapes(config: FlashHeadConfig) -> dict[str, tuple[int, ...]]:
    """Tensors that published files hold and that no step reads: the base model's text, and a former audio embedding."""
    dim, text, sound = config.dim, config.text_dim, config.audio_width
    return {
        "text_embedding.0.weight": (dim, text),
        "text_embedding.0.bias": (dim,),
        "text_embedding.2.weight": (dim, dim),
        "text_embedding.2.bias": (dim,),
        "audio_emb.proj.0.weight": (sound,),
        "audio_emb.proj.0.bias": (sound,),
        "audio_emb.proj.1.weight": (sound, sound),
        "audio_emb.proj.1.bias": (sound,),
        "audio_emb.proj.3.weight": (dim, sound),
        "audio_emb.proj.3.bias": (dim,),
        "audio_emb.proj.4.weight": (dim,),
        "audio_emb.proj.4.bias": (dim,),
    }


def published_shapes(config: FlashHeadConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of a published file."""
    with torch.device("meta"):
        used = {name: tuple(tensor.shape) for name, tensor in FlashHead(config).state_dict().items()}
    return used | unused_shapes(config)


def to_own_layout(published: Mapping[str, Tensor], config: FlashHeadConfig) -> Iterator[tuple[str, Tensor]]:
    """Published tensors as `FlashHead` has them; the unused ones are left out."""
    unused = unused_shapes(config)
    for name, tensor in published.items():
        if name in unused:
            continue
        is_rotated = ".self_attn." in name and name.rsplit(".", 2)[-2] in ("q", "k", "norm_q", "norm_k")
        yield name, half_split(tensor, config.num_heads) if is_rotated else tensor
