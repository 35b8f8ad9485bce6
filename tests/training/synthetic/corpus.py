"""A drawn corpus: tones for vowels, silence for p, b, m."""

from pathlib import Path

import numpy as np

from training.synthetic.phones import Phone
from training.synthetic.speech import Clip, write_manifest
from training.synthetic.voices import write_wav

_SYLLABLES = ["M", "AA", "P", "IY", "B", "OW"]


def tone_clip(folder: Path, name: str, voice: str, split: str = "train", syllables: int = 12) -> Clip:
    """A clip that alternates closures of 80 ms and vowels of 120 ms after 100 ms of silence."""
    phones = [Phone("SIL", 0.0, 0.1)]
    pieces = [np.zeros(1600)]
    for index in range(syllables):
        phone = _SYLLABLES[index % len(_SYLLABLES)]
        length = 1280 if phone in "PBM" else 1920
        wave = np.sin(2 * np.pi * (700 + 40 * index) * np.arange(length) / 16000)
        pieces.append(np.zeros(length) if phone in "PBM" else 0.2 * wave)
        phones.append(Phone(phone, round(phones[-1].end_s, 4), length / 16000))
    samples = np.concatenate(pieces)
    write_wav(folder / f"{name}.wav", samples)
    return Clip(name, split, voice, f"text {name}", "drawn", "none", len(samples) / 16000, tuple(phones), folder)


def write_corpus(folder: Path) -> list[Clip]:
    """Two voices of training and one held out, with a manifest."""
    clips = [
        tone_clip(folder, "a0", "allison"),
        tone_clip(folder, "a1", "allison", syllables=20),
        tone_clip(folder, "s0", "slt"),
        tone_clip(folder, "w0", "awb", "heldout"),
    ]
    write_manifest(folder, clips)
    return clips
