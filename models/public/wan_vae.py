"""Wan2.1's causal 3D VAE (f8, t4, 16 channels): our own implementation, streaming both ways.

Names and shapes of the parameters are those of the published `Wan2.1_VAE.pth`; `DIFFUSERS_NAMES` turns those of
`AutoencoderKLWan` into them. A causal convolution sees two frames back: those are what a stream carries. The first
frame of a stream is a latent of its own, and goes past the convolutions in time of all resampling layers; every later
latent is four frames. Chunked calls therefore give what one call over the whole gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kernels.norm_act import norm_act

Cache = tuple[Tensor, ...]  # by convolution in time, the frames [B, C, 1 or 2, h, w] that the next chunk looks back at

FRAMES = 4  # a latent
STRIDE = 8  # pixels a latent pixel

_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip


@dataclass(frozen=True)
class WanVAEConfig:
    """Widths are `width` times `growth` at 1/1, 1/2, 1/4 and 1/8; mean and deviation of the latents by channel."""

    width: int = 96
    growth: tuple[int, int, int, int] = (1, 2, 4, 4)
    blocks: int = 2
    latents_mean: tuple[float, ...] = _MEAN
    latents_std: tuple[float, ...] = _STD

    def __post_init__(self) -> None:
        if self.width <= 0 or self.blocks <= 0 or len(self.growth) != 4:
            raise ValueError(f"width and blocks must be positive and growth four, got {self}")
        if len(self.latents_mean) != len(self.latents_std) or min(self.latents_std) <= 0:
            raise ValueError("latents_mean and latents_std must have one length, and deviations be positive")

    @property
    def latent_channels(self) -> int:
        return len(self.latents_mean)


class Carry:
    """What passes from chunk to chunk, in the order of the layers: read from the chunk before, kept for the next."""

    def __init__(self, cache: Cache | None) -> None:
        self.is_first = cache is None
        self._before: Iterator[Tensor] = iter(cache or ())
        self._after: list[Tensor] = []

    def exchange(self, x: Tensor, frames: int) -> Tensor:
        """The last `frames` frames before x [B, C, T, H, W], zeros before the first; those of x are kept."""
        shape = (*x.shape[:2], frames, *x.shape[3:])
        before = x.new_zeros(shape) if self.is_first else next(self._before)
        # cloned: a view would keep all frames of the chunk alive
        self._after.append(torch.cat([before, x], dim=2)[:, :, -frames:].clone())
        return before

    def keep(self, frames: Tensor) -> None:
        self._after.append(frames.clone())

    def before(self) -> Tensor | None:
        return None if self.is_first else next(self._before)

    def cache(self) -> Cache:
        return tuple(self._after)


class CausalConv3d(nn.Conv3d):
    """3×3×3 over this frame and the two before."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, carry: Carry) -> Tensor:  # type: ignore[override]
        """x [B, C, T, H, W] → [B, width, T, H, W]."""
        return super().forward(torch.cat([carry.exchange(x, 2), x], dim=2))

    def normed(self, x: Tensor, gain: Tensor, carry: Carry) -> Tensor:
        """`forward` of SiLU(RMSNorm(x)); norm and activation write straight into the padded input."""
        batch, channels, frames, height, width = x.shape
        padded = x.new_empty(batch, channels, frames + 2, height, width)
        before = carry.before()
        padded[:, :, :2] = 0 if before is None else before
        norm_act(x, gain.flatten(), out=padded[:, :, 2:])
        carry.keep(padded[:, :, -2:])
        return super().forward(padded)


class Norm(nn.Module):
    """The gain of an RMSNorm over channels, with as many trailing ones as the published file has."""

    def __init__(self, width: int, ones: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *[1] * ones))


class Residual(nn.Module):
    """Two causal convolutions, each behind norm and activation, and a 1×1×1 beside them where widths differ."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.residual = nn.ModuleDict(
            {"0": Norm(channels, 3), "2": CausalConv3d(channels, width)}
            | {"3": Norm(width, 3), "6": CausalConv3d(width, width)}
        )
        self.shortcut = nn.Conv3d(channels, width, 1) if channels != width else None

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        y = _normed(self.residual, "0", "2", x, carry)
        y = _normed(self.residual, "3", "6", y, carry)
        return y + (x if self.shortcut is None else self.shortcut(x))


class FrameAttention(nn.Module):
    """One-head attention inside each frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width, 2)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        batch, width, _, height, _ = x.shape
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        normed = F.normalize(frames, dim=1) * width**0.5 * self.norm.gamma
        q, k, v = rearrange(self.to_qkv(normed), "g (three c) h w -> three g 1 (h w) c", three=3)
        y = F.scaled_dot_product_attention(q, k, v)  # one head of 384 channels: too wide for kernels.attention
        y = self.proj(rearrange(y, "g 1 (h w) c -> g c h w", h=height))
        return x + rearrange(y, "(b t) c h w -> b c t h w", b=batch)


class Down(nn.Module):
    """Half the height and width, and where `is_temporal` two frames to one; the first frame of a stream stays."""

    def __init__(self, width: int, is_temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(width, width, 3, stride=2)})
        self.time_conv = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if is_temporal else None

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        frames = F.pad(rearrange(x, "b c t h w -> (b t) c h w"), (0, 1, 0, 1))
        x = rearrange(self.resample["1"](frames), "(b t) c h w -> b c t h w", b=x.shape[0])
        if self.time_conv is None:
            return x
        before = carry.before()
        carry.keep(x[:, :, -1:])
        if before is not None:
            return self.time_conv(torch.cat([before, x], dim=2))
        return x if x.shape[2] == 1 else torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


class Up(nn.Module):
    """Twice the height and width, and where `is_temporal` one frame to two; the first of a stream stays one."""

    def __init__(self, width: int, is_temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(width, width // 2, 3, padding=1)})
        self.time_conv = nn.Conv3d(width, 2 * width, (3, 1, 1)) if is_temporal else None

    def forward(self, x: Tensor, carry: Carry) -> Tensor:
        if self.time_conv is not None:
            # The first frame is not seen by those after it either: before them there are zeros.
            first, rest = x[:, :, : int(carry.is_first)], x[:, :, int(carry.is_first) :]
            before = carry.exchange(rest, 2)
            x = first
            if rest.shape[2]:
                grown = self.time_conv(torch.cat([before, rest], dim=2))
                grown = rearrange(grown, "b (two c) t h w -> b c (t two) h w", two=2)
                x = torch.cat([first, grown], dim=2)
        frames = F.interpolate(rearrange(x, "b c t h w -> (b t) c h w"), scale_factor=2, mode="nearest-exact")
        return rearrange(self.resample["1"](frames), "(b t) c h w -> b c t h w", b=x.shape[0])


class Encoder(nn.Module):
    """Frames → mean and log-variance of latents, channels first."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = [config.width * growth for growth in (1, *config.growth)]
        self.conv1 = CausalConv3d(3, widths[0])
        layers: list[nn.Module] = []
        for level, (channels, width) in enumerate(zip(widths, widths[1:], strict=False)):
            layers += [Residual(width if block else channels, width) for block in range(config.blocks)]
            if level < 3:
                layers.append(Down(width, is_temporal=level > 0))
        self.downsamples = nn.ModuleList(layers)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], 2 * config.latent_channels)

    def forward(self, video: Tensor, carry: Carry) -> Tensor:
        x = self.conv1(video, carry)
        for layer in (*self.downsamples, *self.middle):
            x = layer(x, carry)
        return _normed(self.head, "0", "2", x, carry)


class Decoder(nn.Module):
    """Latents → frames, channels first."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = [config.width * growth for growth in (config.growth[-1], *reversed(config.growth))]
        self.conv1 = CausalConv3d(config.latent_channels, widths[0])
        self.middle = _middle(widths[0])
        layers: list[nn.Module] = []
        for level, (channels, width) in enumerate(zip(widths, widths[1:], strict=False)):
            channels = channels // 2 if level else channels  # `Up` has halved them
            layers += [Residual(width if block else channels, width) for block in range(config.blocks + 1)]
            if level < 3:
                layers.append(Up(width, is_temporal=level < 2))
        self.upsamples = nn.ModuleList(layers)
        self.head = _head(widths[-1], 3)

    def forward(self, latents: Tensor, carry: Carry) -> Tensor:
        x = self.conv1(latents, carry)
        for layer in (*self.middle, *self.upsamples):
            x = layer(x, carry)
        return _normed(self.head, "0", "2", x, carry)


class WanVAE(nn.Module):
    """Wan2.1's VAE over video in -1 … 1; latents are normalised, as the diffusion models take them.

    Letters: B rows, T frames, H and W pixels, C latent channels, h = H/8, w = W/8.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: WanVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WanVAEConfig()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.conv1 = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.conv2 = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        for name, values in (("mean", config.latents_mean), ("std", config.latents_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1, 1), persistent=False)

    def encode(self, video: Tensor) -> Tensor:
        """Video [B, 3, 1 + 4k, H, W] in -1 … 1 → latents [B, C, 1 + k, h, w]: the posterior's mean, not sampled."""
        return self.encode_chunk(video, None)[0]

    def encode_chunk(self, video: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Encode the next frames of a stream.

        Args:
            video: [B, 3, T, H, W] in -1 … 1, of the weights' dtype; T is 1 + 4k at the start (cache None), then 4k.
            cache: what the call before returned.

        Returns:
            latents [B, C, ceil(T / 4), h, w], and the cache.

        Raises:
            ValueError: for a number of frames, height or width that does not fit.
        """
        frames, height, width = video.shape[2:]
        if frames % FRAMES != int(cache is None) or not frames or height % STRIDE or width % STRIDE:
            wanted = "1 + 4k frames" if cache is None else "4k frames"
            raise ValueError(f"wanted {wanted} of multiples of {STRIDE} pixels, got {frames} of {height}×{width}")
        carry = Carry(cache)
        mean = self.conv1(self.encoder(video, carry)).chunk(2, dim=1)[0]
        return (mean - self.mean.to(mean.dtype)) / self.std.to(mean.dtype), carry.cache()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, 1 + k, h, w] → video [B, 3, 1 + 4k, H, W] in -1 … 1, clipped."""
        return self.decode_chunk(latents, None)[0]

    def decode_chunk(self, latents: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Decode the next latents of a stream.

        Args:
            latents: [B, C, T, h, w], of the weights' dtype.
            cache: what the call before returned; None at the start, where the first latent is one frame.

        Returns:
            video [B, 3, 4T, H, W] (three frames fewer at the start) in -1 … 1, clipped, and the cache.
        """
        carry = Carry(cache)
        video = self.decoder(self.conv2(latents * self.std.to(latents.dtype) + self.mean.to(latents.dtype)), carry)
        return video.clamp(-1, 1), carry.cache()


def _middle(width: int) -> nn.ModuleList:
    return nn.ModuleList([Residual(width, width), FrameAttention(width), Residual(width, width)])


def _head(width: int, channels: int) -> nn.ModuleDict:
    return nn.ModuleDict({"0": Norm(width, 3), "2": CausalConv3d(width, channels)})


def _normed(layers: nn.ModuleDict, norm: str, convolution: str, x: Tensor, carry: Carry) -> Tensor:
    """Norm, activation and convolution of a list that the published file numbers through."""
    gain, convolve = layers[norm], layers[convolution]
    assert isinstance(gain, Norm) and isinstance(convolve, CausalConv3d)
    return convolve.normed(x, gain.gamma, carry)
