"""Conditions of LR-A2V: log-mel, speech encoder, prompt encoder.

Every one of them is exact under streaming: windows end where their frame ends, convolutions are unpadded and run
on carried context, so tokens do not depend on how the sound was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.configs import AudioEncoderConfig, TextEncoderConfig
from models.timing import SAMPLE_RATE

SAMPLES_PER_FRAME = 640
_HOP, _WINDOW, _FFT = 160, 400, 512
_MELS_PER_FRAME = SAMPLES_PER_FRAME // _HOP
MEL_CONTEXT_SAMPLES = _WINDOW - _HOP


def mel_filterbank(bins: int) -> Tensor:
    """Triangular filters [bins, 257] between 40 and 7800 Hz on the mel scale (O'Shaughnessy, 2595·log10)."""
    mels = np.linspace(2595 * np.log10(1 + 40 / 700), 2595 * np.log10(1 + 7800 / 700), bins + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.tensor(np.clip(np.minimum(rising, falling), 0, None), dtype=torch.float32)


class LogMel(nn.Module):
    """Sound → log-mel, 100 frames a second; the transform of every speech encoder here."""

    filterbank: Tensor
    window: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("filterbank", mel_filterbank(bins), persistent=False)
        self.register_buffer("window", torch.hann_window(_WINDOW), persistent=False)

    def power(self, samples: Tensor) -> Tensor:
        """Samples [B, 240 + 160k] in -1 … 1 → power spectrum [B, 257, k]; frame j ends with sample 240 + 160(j+1)."""
        spectrum = torch.stft(
            F.pad(samples, (0, _FFT - _WINDOW)),
            _FFT,
            _HOP,
            _FFT,
            F.pad(self.window, (0, _FFT - _WINDOW)),
            center=False,
            return_complex=True,
        )
        return torch.view_as_real(spectrum).square().sum(-1)

    def forward(self, samples: Tensor) -> Tensor:
        """Samples [B, 240 + 160k] → log-mel [B, k, bins], about -2 … 2."""
        return scaled_log(self.filterbank @ self.power(samples))


def scaled_log(mels: Tensor) -> Tensor:
    """Mel power [B, bins, k] → log-mel [B, k, bins], about -2 … 2; 4 nepers of power are 1."""
    return ((mels + 1e-6).log().transpose(1, 2) + 6) / 4


class AudioEncoder(nn.Module):
    """Log-mel → one token a video frame, by unpadded causal convolutions over stacked mels.

    `face_head` reads the face actions off the tokens: the encoder is trained on that, and what moves the mouth is
    therefore near the surface of the tokens.
    """

    def __init__(self, config: AudioEncoderConfig, face_actions: int = 52) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.log_mel = LogMel(config.mel_bins)
        self.input = nn.Linear(config.mel_bins * _MELS_PER_FRAME, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in config.dilations)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, dilation=d) for d in config.dilations)
        self.outputs = nn.ModuleList(nn.Linear(2 * width, width) for _ in config.dilations)
        self.final_norm = nn.LayerNorm(width)
        self.face_head = nn.Linear(width, face_actions)

    def forward(self, mels: Tensor) -> Tensor:
        """Mels [B, 4·(context + F), mel_bins], shifted by the look-ahead → tokens [B, F, width]."""
        hidden = self.input(mels.unflatten(1, (-1, _MELS_PER_FRAME)).flatten(2))
        for norm, convolution, output in zip(self.norms, self.convolutions, self.outputs, strict=True):
            change = F.gelu(convolution(norm(hidden).transpose(1, 2)).transpose(1, 2))
            change = F.dropout(change, self.config.dropout, self.training)
            hidden = hidden[:, hidden.shape[1] - change.shape[1] :] + output(change)
        return self.final_norm(hidden)

    @torch.no_grad()
    def encode(self, samples: Tensor) -> Tensor:
        """Whole sound [S] → tokens [ceil(S / 640), width]; silence before and after it."""
        frames = -(-samples.shape[0] // SAMPLES_PER_FRAME)
        delay = self.config.look_ahead_frames
        padded = F.pad(samples, (0, (frames + delay) * SAMPLES_PER_FRAME - samples.shape[0]))
        tokens, _ = self.step(padded, self.start(samples.device))
        return tokens[delay:]

    def start(self, device: torch.device | str = "cpu") -> AudioState:
        """State at the start of a stream: silence before it."""
        silence = torch.zeros(1, MEL_CONTEXT_SAMPLES + self.config.context_frames * SAMPLES_PER_FRAME, device=device)
        return AudioState(silence[:, -MEL_CONTEXT_SAMPLES:], self.log_mel(silence))

    @torch.no_grad()
    def step(self, samples: Tensor, state: AudioState) -> tuple[Tensor, AudioState]:
        """The next whole frames of sound [640·F] → tokens [F, width] of the frames `look_ahead_frames` earlier.

        Raises:
            ValueError: if the number of samples is not a positive multiple of 640.
        """
        if not samples.shape[0] or samples.shape[0] % SAMPLES_PER_FRAME:
            raise ValueError(f"samples must be a positive multiple of {SAMPLES_PER_FRAME}, got {samples.shape[0]}")
        sound = torch.cat([state.samples, samples[None]], dim=1)
        mels = torch.cat([state.mels, self.log_mel(sound)], dim=1)
        tokens = self(mels)[0]
        keep = self.config.context_frames * _MELS_PER_FRAME
        return tokens, AudioState(sound[:, -MEL_CONTEXT_SAMPLES:], mels[:, -keep:])


@dataclass(frozen=True)
class AudioState:
    """Sound carried between chunks: samples [1, 240] for the next window, mels [1, 4·context, bins]."""

    samples: Tensor
    mels: Tensor

    def to(self, device: torch.device | str) -> AudioState:
        return replace(self, samples=self.samples.to(device), mels=self.mels.to(device))


class TextEncoder(nn.Module):
    """Bytes of a prompt → a few tokens: embedding, convolution, one token for each stretch of bytes, mixing MLP."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(257, config.width, padding_idx=256)
        self.convolution = nn.Conv1d(config.width, config.width, 5, padding=2)
        self.mix = nn.Sequential(
            nn.Linear(config.width * config.tokens, 4 * config.width),
            nn.GELU(),
            nn.Linear(4 * config.width, config.width * config.tokens),
        )
        self.norm = nn.LayerNorm(config.width)

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Prompts → bytes [B, max_bytes] int64, cut at max_bytes, padded with 256."""
        rows = [list(prompt.lower().encode()[: self.config.max_bytes]) for prompt in prompts]
        return torch.tensor([row + [256] * (self.config.max_bytes - len(row)) for row in rows])

    def forward(self, prompt_bytes: Tensor) -> Tensor:
        """Bytes [B, max_bytes] → tokens [B, tokens, width]."""
        hidden = F.gelu(self.convolution(self.embedding(prompt_bytes).transpose(1, 2)))
        pooled = hidden.unflatten(2, (self.config.tokens, -1)).mean(-1).transpose(1, 2)
        return self.norm(pooled + self.mix(pooled.flatten(1)).view_as(pooled))
