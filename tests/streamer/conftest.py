"""Small sounds and pictures, made where they are needed."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_wav(path: Path, samples: np.ndarray, sample_rate: int = 16_000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """1.3 s of a 400 Hz tone."""
    return write_wav(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 400 * np.arange(20_800) / 16_000))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "face.png"
    Image.new("RGB", (120, 90), (200, 120, 80)).save(path)
    return path
