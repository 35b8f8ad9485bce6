"""The LTX VAE (f32, t8, 128 channels) as SoulX-FlashHead Lite uses it: our own implementation.

Names and shapes of the parameters are those of the published file, which are diffusers' (`AutoencoderKLLTXVideo`).
The encoder is causal; the decoder is not, and sees the whole video: it must never be given a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from kernels.norm_act import norm_act
from models.errors import CheckpointError

_PATCH = 4
_EPS = 1e-8  # of the norms without gain

_PUBLISHED = {  # our setting: diffusers' name
    "widths": "block_out_channels",
    "blocks": "layers_per_block",
    "is_scaled": "spatio_temporal_scaling",
    "decoder_widths": "decoder_block_out_channels",
    "decoder_blocks": "decoder_layers_per_block",
}
_ONLY = {  # what there is one way of here
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": _PATCH,
    "patch_size_t": 1,
    "encoder_causal": True,
    "decoder_causal": False,
    "timestep_conditioning": False,
    "decoder_inject_noise": False,
    "upsample_residual": False,
    "upsample_factor": 1,
}


@dataclass(frozen=True)
class LTXVAEConfig:
    """Widths by level, residual blocks by level (the last: the middle), and which levels halve time, height, width."""

    latent_channels: int = 128
    widths: tuple[int, ...] = (128, 256, 512, 512)
    blocks: tuple[int, ...] = (4, 3, 3, 3, 4)
    is_scaled: tuple[bool, ...] = (True, True, True, False)
    decoder_widths: tuple[int, ...] | None = None
    decoder_blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if len(self.blocks) != levels + 1 or len(self.is_scaled) != levels or min(self.widths) <= 0:
            raise ValueError(f"wanted {levels + 1} blocks and {levels} is_scaled for {levels} widths, got {self}")

    @classmethod
    def from_published(cls, config: Mapping[str, Any]) -> LTXVAEConfig:
        """What a published `config.json` (diffusers' AutoencoderKLLTXVideo) says.

        Raises:
            CheckpointError: if it is that of another VAE: a later LTX with conditioned or noisy decoding, say.
        """
        for name, wanted in _ONLY.items():
            found = config.get(name, wanted)
            if found != wanted and not (isinstance(found, list) and set(found) == {wanted}):
                raise CheckpointError(f"this LTX VAE has {name} {found}, only {wanted} is known")
        settings: dict[str, Any] = {"latent_channels": int(config["latent_channels"])}
        for ours, theirs in _PUBLISHED.items():
            if config.get(theirs) is not None:
                settings[ours] = tuple(config[theirs])
        return cls(**settings)

    @property
    def temporal_stride(self) -> int:
        return 2 ** sum(self.is_scaled)

    @property
    def spatial_stride(self) -> int:
        return _PATCH * self.temporal_stride


class Conv3d(nn.Module):
    """A convolution that repeats the frames at the ends of the video: causal ones look at the past only."""

    def __init__(self, channels: int, width: int, kernel: int = 3, stride: int = 1, is_causal: bool = True) -> None:
        super().__init__()
        side = kernel // 2
        self.before, self.after = (kernel - 1, 0) if is_causal else (side, side)
        self.conv = nn.Conv3d(channels, width, kernel, stride=stride, padding=(0, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, T, H, W] → [B, width, T, H, W], or half of T, H, W with a stride of 2."""
        first, last = x[:, :, :1], x[:, :, -1:]
        parts = [first] * self.before + [x] + [last] * self.after
        return self.conv(torch.cat(parts, dim=2) if len(parts) > 1 else x)


class NormAct(nn.Module):
    """SiLU of an RMSNorm over channels that has no gain."""

    ones: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return norm_act(x, self.ones, eps=_EPS)


class Residual(nn.Module):
    """Two convolutions behind norm and activation; where widths differ, a norm and a 1×1×1 beside them."""

    def __init__(self, channels: int, width: int, is_causal: bool) -> None:
        super().__init__()
        self.act1, self.act2 = NormAct(channels), NormAct(width)
        self.conv1 = Conv3d(channels, width, is_causal=is_causal)
        self.conv2 = Conv3d(width, width, is_causal=is_causal)
        self.norm3 = nn.LayerNorm(channels, eps=1e-6) if channels != width else None
        self.conv_shortcut = Conv3d(channels, width, kernel=1, is_causal=is_causal) if channels != width else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.act2(self.conv1(self.act1(x))))
        if self.norm3 is not None and self.conv_shortcut is not None:
            x = self.conv_shortcut(self.norm3(x.movedim(1, -1)).movedim(-1, 1))
        return x + y


class Upsampler(nn.Module):
    """Twice the frames, height and width; the first frame stays one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = Conv3d(width, 8 * width, is_causal=False)

    def forward(self, x: Tensor) -> Tensor:
        pattern = "b (c f p q) t h w -> b c (t f) (h p) (w q)"
        return rearrange(self.conv(x), pattern, f=2, p=2, q=2)[:, :, 1:]


class Middle(nn.Module):
    """Residual blocks of one width."""

    def __init__(self, width: int, blocks: int, is_causal: bool) -> None:
        super().__init__()
        self.resnets = _residuals(width, blocks, is_causal)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return x


class DownBlock(Middle):
    """Residual blocks, half the size where `is_scaled`, and a change of width."""

    def __init__(self, channels: int, width: int, blocks: int, is_scaled: bool) -> None:
        super().__init__(channels, blocks, is_causal=True)
        self.downsamplers = nn.ModuleList([Conv3d(channels, channels, stride=2)] if is_scaled else [])
        self.conv_out = Residual(channels, width, is_causal=True) if channels != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
        return self.conv_out(x)


class UpBlock(Middle):
    """A change of width, twice the size where `is_scaled`, and residual blocks."""

    def __init__(self, channels: int, width: int, blocks: int, is_scaled: bool) -> None:
        super().__init__(width, blocks, is_causal=False)
        self.conv_in = Residual(channels, width, is_causal=False) if channels != width else nn.Identity()
        self.upsamplers = nn.ModuleList([Upsampler(width)] if is_scaled else [])

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for upsampler in self.upsamplers:
            x = upsampler(x)
        return super().forward(x)


class Encoder(nn.Module):
    """Video → mean of the latents, and one log-variance for all channels."""

    def __init__(self, config: LTXVAEConfig) -> None:
        super().__init__()
        widths = (*config.widths, config.widths[-1])
        self.conv_in = Conv3d(3 * _PATCH**2, widths[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(channels, width, blocks, is_scaled)
            for channels, width, blocks, is_scaled in zip(
                widths, widths[1:], config.blocks, config.is_scaled, strict=False
            )
        )
        self.mid_block = Middle(widths[-1], config.blocks[-1], is_causal=True)
        self.act = NormAct(widths[-1])
        self.conv_out = Conv3d(widths[-1], config.latent_channels + 1)

    def forward(self, video: Tensor) -> Tensor:
        x = self.conv_in(rearrange(video, "b c t (h p) (w q) -> b (c q p) t h w", p=_PATCH, q=_PATCH))
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(self.act(self.mid_block(x)))


class Decoder(nn.Module):
    """Latents → video."""

    def __init__(self, config: LTXVAEConfig) -> None:
        super().__init__()
        widths = (config.decoder_widths or config.widths)[::-1]
        blocks = (config.decoder_blocks or config.blocks)[::-1]
        self.conv_in = Conv3d(config.latent_channels, widths[0], is_causal=False)
        self.mid_block = Middle(widths[0], blocks[0], is_causal=False)
        is_scaled = config.is_scaled[::-1]
        levels = zip((widths[0], *widths), widths, blocks[1:], is_scaled, strict=False)
        self.up_blocks = nn.ModuleList(UpBlock(*level) for level in levels)
        self.act = NormAct(widths[-1])
        self.conv_out = Conv3d(widths[-1], 3 * _PATCH**2, is_causal=False)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            x = block(x)
        x = self.conv_out(self.act(x))
        return rearrange(x, "b (c q p) t h w -> b c t (h p) (w q)", p=_PATCH, q=_PATCH)


class LTXVAE(nn.Module):
    """The LTX VAE over whole videos; latents are normalised, as the diffusion models take them.

    Letters: B rows, T frames, H and W pixels, C latent channels, h = H/32, w = W/32.
    """

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: LTXVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LTXVAEConfig()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("latents_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latents_std", torch.ones(config.latent_channels))

    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Video [B, 3, 1 + 8k, H, W] in -1 … 1 → mean [B, C, 1 + k, h, w] and log-variance [B, 1, 1 + k, h, w].

        Neither is normalised.

        Raises:
            ValueError: for a number of frames, height or width that does not fit.
        """
        frames, height, width = video.shape[2:]
        stride, side = self.config.temporal_stride, self.config.spatial_stride
        if frames % stride != 1 or height % side or width % side:
            raise ValueError(f"wanted 1 + {stride}k frames of multiples of {side} pixels, got {list(video.shape[2:])}")
        moments = self.encoder(video)
        return moments[:, :-1], moments[:, -1:]

    def encode(self, video: Tensor, noise: Tensor | None = None) -> Tensor:
        """Video [B, 3, 1 + 8k, H, W] in -1 … 1 → latents [B, C, 1 + k, h, w].

        FlashHead Lite samples the posterior: with `noise`, unit normal and like the latents, so does this; without, it
        gives the mean.
        """
        mean, log_variance = self.posterior(video)
        if noise is not None:
            mean = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise
        return (mean - self._channels(self.latents_mean)) / self._channels(self.latents_std)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, 1 + k, h, w] of a whole video → [B, 3, 1 + 8k, 32h, 32w], near -1 … 1 and not clipped."""
        return self.decoder(latents * self._channels(self.latents_std) + self._channels(self.latents_mean))

    @staticmethod
    def _channels(values: Tensor) -> Tensor:
        return values[:, None, None, None]


def _residuals(width: int, blocks: int, is_causal: bool) -> nn.ModuleList:
    return nn.ModuleList(Residual(width, width, is_causal) for _ in range(blocks))
