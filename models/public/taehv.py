"""TAEHV (`taew2_1`, MIT) in the place of Wan2.1's VAE: encoder and decoder over video in -1 … 1, streaming exact.

It takes and gives the normalised latents of the diffusion models, without the mean and deviation of Wan's own VAE.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from models.checkpoints import load_weights
from models.configs import TinyDecoderConfig
from models.tiny_decoder import TinyDecoder
from models.tiny_encoder import EncoderCache, TinyEncoder
from models.vae import DecoderCache


class TAEHV(nn.Module):
    """The calls of `WanVAE`, at some twenty-fifth of its cost.

    Encoding groups frames 0-3, 4-7, 8 and three copies of it, where Wan groups 0, 1-4, 5-8.
    """

    def __init__(self, config: TinyDecoderConfig | None = None, encoder_width: int = 64) -> None:
        super().__init__()
        config = config or TinyDecoderConfig()
        self.tiny_encoder = TinyEncoder(config.latent_channels, encoder_width)
        self.tiny_decoder = TinyDecoder(config)

    def load(self, path: Path) -> None:
        """Load `taew2_1.safetensors` as published.

        Raises:
            CheckpointError: if the file is missing, broken, or does not fit.
        """
        load_weights(path, self.tiny_encoder, prefix="encoder.")
        load_weights(path, self.tiny_decoder, prefix="decoder.")

    def encode(self, video: Tensor) -> Tensor:
        """Video [B, 3, T, H, W] in -1 … 1 → latents [B, C, ceil(T / 4), H/8, W/8]; the last frame fills up a group."""
        return self.tiny_encoder.encode((video.transpose(1, 2) + 1) / 2)

    def encode_chunk(self, video: Tensor, cache: EncoderCache | None) -> tuple[Tensor, EncoderCache]:
        """Video [B, 3, 4k, H, W] in -1 … 1, the next of a stream → latents [B, C, k, H/8, W/8], and the cache."""
        return self.tiny_encoder.encode_chunk((video.transpose(1, 2) + 1) / 2, cache)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, 1 + k, h, w] → video [B, 3, 1 + 4k, 8h, 8w] in -1 … 1, clipped."""
        return self.decode_chunk(latents, None)[0]

    def decode_chunk(self, latents: Tensor, cache: DecoderCache | None) -> tuple[Tensor, DecoderCache]:
        """Latents [B, C, T, h, w] → video [B, 3, 4T, 8h, 8w] in -1 … 1 (three frames fewer at the start), the cache."""
        frames, cache = self.tiny_decoder.decode_chunk(latents, cache)
        return frames.transpose(1, 2) * 2 - 1, cache
