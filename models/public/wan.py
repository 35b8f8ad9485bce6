"""Wan's video transformers (2.1 T2V and I2V, 2.2 TI2V-5B): our own implementation, the base of larger models here.

Names and shapes of the parameters are those of Wan's published files; `WAN_FROM_DIFFUSERS` turns those of
`WanTransformer3DModel` into them. The pairs of rotary embedding lie half a head apart in memory, where the published
ones are neighbours (`to_own_layout`).

Time steps run from 1000 (noise) to 0 (data), one for all or one a latent frame or one a token, as the clean first frame
of TI2V-5B wants; what is predicted is the velocity, noise minus data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kernels.attention import attention
from kernels.modulate import modulate, residual_modulate
from models.errors import CheckpointError
from models.public.wan_layers import Attention, KeyValues, SelfAttention, half_split, rope_angles, sinusoids

MAX_LAYERS = 200  # a config.json that says more is no model, and would take hours to find out


@dataclass(frozen=True)
class WanConfig:
    """Shape of a Wan transformer; `image_dim` is the width of CLIP features, None without any."""

    dim: int = 1536
    ffn_dim: int = 8960
    num_layers: int = 30
    num_heads: int = 12
    in_dim: int = 16
    out_dim: int = 16
    text_dim: int = 4096
    freq_dim: int = 256
    image_dim: int | None = None
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6

    def __post_init__(self) -> None:
        sizes = (self.dim, self.ffn_dim, self.num_layers, self.num_heads, self.in_dim, self.out_dim, self.text_dim)
        if any(type(size) is not int or size <= 0 for size in (*sizes, self.freq_dim)):
            raise ValueError(f"all sizes must be whole numbers above 0, got {self}")
        if self.num_layers > MAX_LAYERS:
            raise ValueError(f"num_layers must be at most {MAX_LAYERS}, got {self.num_layers}")
        if self.dim % self.num_heads or self.head_dim % 2:
            raise ValueError(f"dim {self.dim} does not divide into {self.num_heads} heads of even width")
        if len(self.patch_size) != 3 or self.patch_size[0] != 1:
            raise ValueError(f"patch_size must be 1 in time, got {self.patch_size}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> WanConfig:
        """What a `config.json` says: Wan's own, or diffusers'.

        Raises:
            CheckpointError: if a value is missing, or asks for what there is not here.
        """
        try:
            return _from_diffusers(config) if "num_attention_heads" in config else _from_wan(config)
        except KeyError as error:
            raise CheckpointError(f"config.json lacks {error.args[0]}") from error
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"config.json holds a value of the wrong kind: {error}") from error


def _from_diffusers(config: Mapping[str, Any]) -> WanConfig:
    unknown = {"qk_norm": "rms_norm_across_heads", "cross_attn_norm": True, "pos_embed_seq_len": None}
    for name, wanted in unknown.items():
        if config.get(name, wanted) != wanted:
            raise CheckpointError(f"config.json has {name} {config[name]}, only {wanted} is known")
    return WanConfig(
        dim=config["num_attention_heads"] * config["attention_head_dim"],
        ffn_dim=config["ffn_dim"],
        num_layers=config["num_layers"],
        num_heads=config["num_attention_heads"],
        in_dim=config["in_channels"],
        out_dim=config["out_channels"] or config["in_channels"],
        text_dim=config["text_dim"],
        freq_dim=config["freq_dim"],
        image_dim=config.get("image_dim"),
        patch_size=tuple(config["patch_size"]),
        eps=config["eps"],
    )


def _from_wan(config: Mapping[str, Any]) -> WanConfig:
    names = ("dim", "ffn_dim", "num_layers", "num_heads", "in_dim", "out_dim", "freq_dim", "eps")
    return WanConfig(
        **{name: config[name] for name in names},
        text_dim=config.get("text_dim", 4096),
        image_dim=1280 if config.get("model_type") == "i2v" else None,
        patch_size=tuple(config.get("patch_size", (1, 2, 2))),
    )


PUBLISHED = {
    "Wan2.1-T2V-1.3B": WanConfig(),
    "Wan2.1-T2V-14B": WanConfig(dim=5120, ffn_dim=13824, num_layers=40, num_heads=40),
    "Wan2.1-I2V-14B": WanConfig(dim=5120, ffn_dim=13824, num_layers=40, num_heads=40, in_dim=36, image_dim=1280),
    "Wan2.2-TI2V-5B": WanConfig(dim=3072, ffn_dim=14336, num_heads=24, in_dim=48, out_dim=48),
}


@dataclass(frozen=True)
class Context:
    """Keys and values [B, N, L, d] of what a block looks at: the prompt, and CLIP's view of the first frame."""

    text: KeyValues
    image: KeyValues | None = None


class CrossAttention(Attention):
    """Tokens see the prompt, and the first frame with keys and values of its own; both answers are added."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__(config)
        self.has_image = config.image_dim is not None
        if self.has_image:
            self.k_img, self.v_img = nn.Linear(config.dim, config.dim), nn.Linear(config.dim, config.dim)
            self.norm_k_img = nn.RMSNorm(config.dim, eps=config.eps)

    def look(self, text: Tensor, image: Tensor | None) -> Context:
        """Embedded prompt [B, Lt, D] and image [B, Li, D] → their keys and values."""
        seen = None
        if self.has_image and image is not None:
            seen = self.heads_of(self.norm_k_img(self.k_img(image))), self.heads_of(self.v_img(image))
        return Context((self.heads_of(self.norm_k(self.k(text))), self.heads_of(self.v(text))), seen)

    def attend(self, x: Tensor, context: Context) -> Tensor:
        """x [B, f, S, D] → answers [B, N, f·S, d], not yet projected."""
        q = self.heads_of(self.norm_q(self.q(x.flatten(1, 2))))
        answer = attention(q, *context.text)
        return answer if context.image is None else answer + attention(q, *context.image)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """x [B, f, S, D] → the same shape."""
        return self.o(self.attend(x, context).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Self-attention and MLP under the time step's modulation, cross-attention between."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn, self.cross_attn = SelfAttention(config), CrossAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, modulation: Tensor, rope: KeyValues, context: Any) -> Tensor:
        """x [B, f, S, D], modulation [B, f or 1, S or 1, 6, D] → x of the same shape."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (self.modulation + modulation).unbind(-2)
        attended = self.self_attn(modulate(x, scale_a, shift_a, eps=self.eps), rope)
        norm = self.norm3
        x, y = residual_modulate(x, attended, gate_a, weight=norm.weight, bias=norm.bias, eps=norm.eps)
        x, y = self.cross(x, y, context, scale_m, shift_m)
        return torch.addcmul(x, self.ffn(y), gate_m.to(x.dtype))

    def cross(self, x: Tensor, y: Tensor, context: Any, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """x and norm3 of it → x with what cross-attention says, and that normalised for the MLP."""
        return residual_modulate(x, self.cross_attn(y, context), None, scale, shift, eps=self.eps)


class Head(nn.Module):
    """Tokens → patches of velocity."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = nn.Linear(config.dim, config.patch_size[1] * config.patch_size[2] * config.out_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x [B, f, S, D], embedding of the time steps [B, f or 1, S or 1, D] → [B, f, S, rows · columns · C]."""
        shift, scale = (self.modulation + t[..., None, :]).unbind(-2)
        return self.head(modulate(x, scale, shift, eps=self.eps))


class ImageEmbedding(nn.Module):
    """CLIP features [B, Li, image_dim] → [B, Li, D]."""

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(image_dim),
            nn.Linear(image_dim, image_dim),
            nn.GELU(),
            nn.Linear(image_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.proj(features)


class Wan(nn.Module):
    """The transformer. What prompt and image give is made once by `look`, and serves all steps.

    With `is_checkpointed` training keeps one tensor a block and computes the rest again: a third more time, a tenth of
    the memory.
    """

    is_checkpointed = False

    def __init__(self, config: WanConfig, block: Callable[[WanConfig], Block] = Block) -> None:
        super().__init__()
        self.config, dim = config, config.dim
        patch = config.patch_size
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, kernel_size=patch, stride=patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_emb = None if config.image_dim is None else ImageEmbedding(config.image_dim, dim)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.num_layers))
        self.head = Head(config)

    def look(self, text: Tensor, image: Tensor | None = None) -> tuple[Context, ...]:
        """Text embeddings [B, Lt, text_dim] and CLIP features [B, Li, image_dim] → what each block looks at.

        Wan was trained with prompts filled up with zeros to 512 tokens, which are part of `text`. Tokens that are all
        equal answer as one, so a prompt of nothing may be a single zero.

        Raises:
            ValueError: if the model wants image features and there are none, or the other way round.
        """
        if (image is None) != (self.img_emb is None):
            raise ValueError("this model wants CLIP features" if image is None else "this model takes no CLIP features")
        words = self.text_embedding(text)
        seen = None if image is None or self.img_emb is None else self.img_emb(image)
        return tuple(layer.look(words, seen) for layer in self.cross_attentions)

    @property
    def cross_attentions(self) -> list[CrossAttention]:
        """By block."""
        return [cast(CrossAttention, block.get_submodule("cross_attn")) for block in self.blocks]

    def forward(self, latents: Tensor, timesteps: Tensor, contexts: tuple[Any, ...]) -> Tensor:
        """Velocity of noisy latents.

        Args:
            latents: [B, in_dim, f, h, w], h and w multiples of the patch.
            timesteps: in 0 … 1000: [B], or a latent frame [B, f], or a token [B, f, S].
            contexts: what `look` gave.

        Returns:
            [B, out_dim, f, h, w].
        """
        return self.run(self.patch_embedding(latents), timesteps, contexts)

    def run(self, patches: Tensor, timesteps: Tensor, contexts: tuple[Any, ...]) -> Tensor:
        """`forward` from what the patch embedding gave, [B, D, f, y, x], perhaps with more added to it."""
        grid = tuple(patches.shape[2:])
        x = rearrange(patches, "b d f y x -> b f (y x) d")
        timesteps = timesteps.view(*timesteps.shape, *[1] * (3 - timesteps.ndim))
        t = self.time_embedding(sinusoids(timesteps, self.config.freq_dim).to(x.dtype))
        modulation = self.time_projection(t).unflatten(-1, (6, -1))
        rope = rope_angles(grid, self.config.head_dim, x.device)
        for block, context in zip(self.blocks, contexts, strict=True):
            if self.is_checkpointed and torch.is_grad_enabled():
                x = checkpoint(block, x, modulation, rope, context, use_reentrant=False)
            else:
                x = block(x, modulation, rope, context)
        _, rows, columns = self.config.patch_size
        pattern = "b f (y x) (rows columns c) -> b c f (y rows) (x columns)"
        return rearrange(self.head(x, t), pattern, y=grid[1], rows=rows, columns=columns)


def to_own_layout(published: Iterable[tuple[str, Tensor]], heads: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors under Wan's names as `Wan` has them: the pairs of rotary embedding half a head apart.

    Made one by one, so that a large file needs no second place.
    """
    for name, tensor in published:
        yield name, half_split(tensor, heads) if is_rotated(name) else tensor


def is_rotated(name: str) -> bool:
    """Whether a parameter makes queries or keys that are rotated."""
    return ".self_attn." in name and name.rsplit(".", 2)[-2] in ("q", "k", "norm_q", "norm_k")
