"""What a latent frame hears, for FlashHead and InfiniteTalk: hidden states of wav2vec2 around its frames → tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AUDIO_WINDOW = 5  # frames of sound around each frame
AUDIO_TOKENS = 32  # a latent frame
SLOT_WIDTH = 12 * 768  # of wav2vec2-base: hidden states of all layers


def audio_groups(audio: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Windows [B, F, 5, …] → of the first frame [B, 1, 5, …], of the other latent frames [B, f - 1, stride + 4, …].

    A later latent hears the first half of its first frame's window, the middles of those between, the second half of
    its last frame's.

    Raises:
        ValueError: if F is not 1 + stride·(f - 1) with f at least 2.
    """
    frames = audio.shape[1]
    if frames < 1 + stride or (frames - 1) % stride:
        raise ValueError(f"frames of sound must be 1 + a multiple of {stride}, got {frames}")
    later, middle = audio[:, 1:].unflatten(1, (-1, stride)), AUDIO_WINDOW // 2
    parts = later[:, :, 0, : middle + 1], later[:, :, 1:-1, middle], later[:, :, -1, middle:]
    return audio[:, :1], torch.cat(parts, dim=2)


class AudioProjection(nn.Module):
    """Windows of wav2vec2's hidden states → `tokens` tokens of `width` a latent frame."""

    def __init__(
        self, stride: int, width: int, hidden: int = 512, slot_width: int = SLOT_WIDTH, tokens: int = AUDIO_TOKENS
    ) -> None:
        super().__init__()
        self.stride, self.tokens = stride, tokens
        self.proj1 = nn.Linear(AUDIO_WINDOW * slot_width, hidden)
        self.proj1_vf = nn.Linear((AUDIO_WINDOW + stride - 1) * slot_width, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, audio: Tensor) -> Tensor:
        """Windows [B, F, 5, 12, 768] → [B, f, K, width].

        Raises:
            ValueError: as `audio_groups`.
        """
        return self.project(*audio_groups(audio, self.stride))

    def project(self, first: Tensor, later: Tensor) -> Tensor:
        """The two of `audio_groups` → [B, f, K, width]."""
        heard = torch.cat([self.proj1(first.flatten(2)), self.proj1_vf(later.flatten(2))], dim=1)
        tokens = self.proj3(F.relu(self.proj2(F.relu(heard))))
        return self.norm(tokens.unflatten(2, (self.tokens, -1)))
