"""Recorded speech with transcripts: the prompt sets of the Debian packages `asterisk-core-sounds-XX-g722`.

Five speakers, 16 kHz, CC-BY-SA-3.0 (en, es, fr) and CC-BY-3.0 (it, ru). The sound is for training and tests
and is not to be shipped; name the speakers where results are shown.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHARE = Path("/usr/share")


@dataclass(frozen=True)
class PromptSet:
    """One speaker's prompts. `language` is also the name of the espeak-ng voice that pronounces its words."""

    language: str
    speaker: str
    folder: str
    licence: str


PROMPT_SETS = (
    PromptSet("en", "allison", "en_US_f_Allison", "CC-BY-SA-3.0"),
    PromptSet("es", "allison-es", "es_MX_f_Allison", "CC-BY-SA-3.0"),
    PromptSet("fr", "june", "fr_CA_f_June", "CC-BY-SA-3.0"),
    PromptSet("it", "carlo", "it_IT_m_Carlo", "CC-BY-3.0"),
    PromptSet("ru", "ivrvoice", "ru_RU_f_IvrvoiceRU", "CC-BY-3.0"),
)


def read_g722(path: Path) -> np.ndarray:
    """Samples of a raw G.722 file, float32 [n] at 16 kHz in -1 … 1."""
    import av

    with av.open(str(path), format="g722") as container:
        blocks = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(blocks).astype(np.float32) / 32768 if blocks else np.zeros(0, np.float32)


def prompts(prompt_set: PromptSet, share: Path = SHARE) -> Iterator[tuple[Path, str]]:
    """Files and transcripts of a set in a stable order; none if its package is not installed."""
    name = f"core-sounds-{prompt_set.language}.txt.gz"
    transcripts = share / "doc" / f"asterisk-core-sounds-{prompt_set.language}" / name
    root = share / "asterisk" / "sounds" / prompt_set.folder
    if not transcripts.exists() or not root.exists():
        return
    lines = gzip.decompress(transcripts.read_bytes()).decode("utf-8", "replace").splitlines()
    for line in sorted(lines):
        name, separator, text = line.partition(":")
        path = root / f"{name.strip()}.g722"
        if separator and not line.startswith(";") and path.exists():
            yield path, text.strip()
