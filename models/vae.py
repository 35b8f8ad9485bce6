"""Causal 3D VAE: f8, t4, 16 channels. The first latent is one frame, every later one is four.

It starts as a linear map: the principal components of 4×8×8 patches, embedded in wider overlapping kernels, with
convolutional residuals that start at zero. Each latent sees its own four frames only; the decoder also remembers
the features of the latent before, which is all that has to be carried from chunk to chunk.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.configs import VAEConfig
from models.layers import ResidualBlock, activation, start_at_zero

DecoderCache = tuple[Tensor, ...]  # one [B, trunk_width, h, w] a trunk block: features of the latent before

_PATCH = 8
_MARGIN = 4  # pixels by which a kernel reaches into each neighbour
_FRAMES = 4


class CausalResidualBlock(nn.Module):
    """A residual block that also sees the same features of the latent before; zeros before the first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.before = nn.Conv2d(width, width, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="leaky_relu")
        nn.init.normal_(self.second.weight, std=0.003)

    def forward(self, x: Tensor, batch: int, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B·T, C, h, w], memory [B, C, h, w] or None → (the same shape, the memory for the next chunk)."""
        features = activation(x)
        by_latent = features.unflatten(0, (batch, -1))
        memory = torch.zeros_like(by_latent[:, 0]) if memory is None else memory
        before = torch.cat([memory[:, None], by_latent[:, :-1]], dim=1).flatten(0, 1)
        y = x + self.second(activation(self.first(features) + self.before(before)))
        return y, by_latent[:, -1]


class Encoder(nn.Module):
    """Groups of four frames → latents; a group at a time, so causality and chunking are exact."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        size, stride = _PATCH + 2 * _MARGIN, _PATCH
        self.linear = nn.Conv2d(3 * _FRAMES, config.latent_channels, size, stride=stride, padding=_MARGIN)
        self.input = nn.Conv2d(3 * _FRAMES * _PATCH**2, config.encoder_width, 1)
        self.blocks = nn.ModuleList(ResidualBlock(config.encoder_width) for _ in range(config.encoder_blocks))
        self.output = nn.Conv2d(config.encoder_width, config.latent_channels, 1)
        start_at_zero(self.output)

    def forward(self, groups: Tensor) -> Tensor:
        """Groups [G, 12, H, W] of four frames in -1 … 1 → latents [G, C, H/8, W/8], not normalised."""
        # `input` is a map of patches of 8×8; as a convolution it needs no copy of them.
        kernel = self.input.weight.view(-1, groups.shape[1], _PATCH, _PATCH)
        hidden = F.conv2d(groups, kernel, self.input.bias, stride=_PATCH)
        for block in self.blocks:
            hidden = block(hidden)
        return self.linear(groups) + self.output(activation(hidden))


class Decoder(nn.Module):
    """Latents → frames: a linear overlapping patch synthesis plus a convolutional residual."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        c, self.frame_width = config.latent_channels, config.frame_width
        size, stride = _PATCH + 2 * _MARGIN, _PATCH
        self.linear = nn.ConvTranspose2d(c, 3 * _FRAMES, size, stride=stride, padding=_MARGIN)
        self.input = nn.Conv2d(c, config.trunk_width, 3, padding=1)
        self.trunk = nn.ModuleList(CausalResidualBlock(config.trunk_width) for _ in range(config.trunk_blocks))
        self.to_frames = nn.Conv2d(config.trunk_width, config.frame_width * _FRAMES, 1)
        self.frame_block = ResidualBlock(config.frame_width)
        self.to_detail = nn.Conv2d(config.frame_width, config.detail_width * 4, 1)
        self.detail = nn.ModuleList(ResidualBlock(config.detail_width) for _ in range(config.detail_blocks))
        self.output = nn.Conv2d(config.detail_width, 48, 3, padding=1)
        start_at_zero(self.output)

    def forward(self, latents: Tensor, cache: DecoderCache | None, frame_step: int = 1) -> tuple[Tensor, DecoderCache]:
        """Latents [B, C, T, h, w], not normalised → (frames [B, 4T / frame_step, 3, 8h, 8w] in -1 … 1, cache)."""
        batch = latents.shape[0]
        flat = rearrange(latents, "b c t h w -> (b t) c h w")
        hidden = self.input(flat)
        carried = []
        for index, block in enumerate(self.trunk):
            memory = None if cache is None else cache[index]
            hidden, memory = block(hidden, batch, memory)
            carried.append(memory)
        hidden = rearrange(self.to_frames(activation(hidden)), "g (f c) h w -> g f c h w", f=_FRAMES)[:, ::frame_step]
        hidden = self.frame_block(hidden.flatten(0, 1))
        hidden = F.pixel_shuffle(self.to_detail(hidden), 2)
        for block in self.detail:
            hidden = block(hidden)
        residual = F.pixel_shuffle(self.output(activation(hidden)), 4)
        with torch.autocast(flat.device.type, enabled=False):  # smooth walls would show the steps of bf16
            linear = rearrange(self.linear(flat.float()), "g (f c) h w -> g f c h w", f=_FRAMES)[:, ::frame_step]
        frames = residual.unflatten(0, linear.shape[:2]) + linear  # in this order: the sum is laid out as the residual
        return frames.view(batch, -1, *frames.shape[2:]), tuple(carried)


class CausalVAE(nn.Module):
    """Encoder and decoder with the latents' mean and deviation, so that latents outside are near unit normal."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))

    def encode(self, frames: Tensor) -> Tensor:
        """Frames [B, 1 + 4k, 3, H, W] in 0 … 1 → latents [B, C, 1 + k, H/8, W/8], normalised.

        Raises:
            ValueError: if the number of frames is not 1 + 4k, or H, W are not multiples of 8.
        """
        batch, count, _, height, width = frames.shape
        if count % _FRAMES != 1:
            raise ValueError(f"encode takes 1 + 4k frames, got {count}")
        first = frames[:, :1].expand(-1, _FRAMES - 1, -1, -1, -1)
        return self.encode_groups(torch.cat([first, frames], dim=1))

    def encode_groups(self, frames: Tensor, is_signed: bool = False) -> Tensor:
        """Frames [B, 4k, 3, H, W] in 0 … 1, groups of four without a single first one → [B, C, k, H/8, W/8].

        `is_signed`: they are in -1 … 1 already.
        """
        batch, _, _, height, width = frames.shape
        if height % _PATCH or width % _PATCH:
            raise ValueError(f"height and width must be multiples of {_PATCH}, got {height} and {width}")
        signed = frames if is_signed else (frames * 2).sub_(1)
        groups = rearrange(signed, "b (k f) c h w -> (b k) (f c) h w", f=_FRAMES)
        latents = rearrange(self.encoder(groups), "(b k) c h w -> b c k h w", b=batch)
        return (latents - self._channels(self.latent_mean)) / self._channels(self.latent_std)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, 1 + k, h, w], the first of one frame → frames [B, 1 + 4k, 3, 8h, 8w], near 0 … 1."""
        return self.decode_chunk(latents, None)[0]

    def decode_chunk(
        self, latents: Tensor, cache: DecoderCache | None, is_half_rate: bool = False
    ) -> tuple[Tensor, DecoderCache]:
        """Decode the next T latents of a stream.

        Args:
            latents: [B, C, T, h, w], normalised.
            cache: what the call before returned; None at the start, where the first latent is one frame.
            is_half_rate: decode the first and third frame of each latent, and give each of them twice.

        Returns:
            frames [B, 4T, 3, 8h, 8w] (three fewer at the start), near 0 … 1 and not clipped, and the cache, which
            is the same at either rate.
        """
        latents = latents * self._channels(self.latent_std) + self._channels(self.latent_mean)
        frames, carried = self.decoder(latents, cache, 2 if is_half_rate else 1)
        frames = frames.mul_(0.5).add_(0.5)
        if is_half_rate:
            frames = frames.repeat_interleave(2, dim=1)
        return (frames[:, _FRAMES - 1 :] if cache is None else frames), carried

    @staticmethod
    def _channels(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    @torch.no_grad()
    def start_linear(self, mean: Tensor, encode: Tensor, decode: Tensor) -> None:
        """Set the linear path to a patch basis: x ≈ mean + decode·encode·(x - mean), the margins zero.

        Args:
            mean: [12·64] of patches in -1 … 1, ordered (frame, colour, row, column).
            encode: [C, 768]. decode: [768, C].
        """
        inner = slice(_MARGIN, _MARGIN + _PATCH)
        shape = (-1, 3 * _FRAMES, _PATCH, _PATCH)
        for layer, basis, bias in (
            (self.encoder.linear, encode, -encode @ mean),
            (self.decoder.linear, decode.T, mean.view(3 * _FRAMES, -1).mean(1)),
        ):
            start_at_zero(layer)
            layer.weight[:, :, inner, inner] = basis.reshape(shape)
            layer.get_parameter("bias").copy_(bias)
