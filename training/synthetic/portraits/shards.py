"""Portraits on disk: a folder a shard of consecutive people, one .npy file a field, read as memory maps.

    pictures uint8 [P, S, S, 3] · landmarks float32 [P, L, 3] · irises float32 [P, 2, 3] · seen bool [P, L] ·
    front, back float16 [P, N, N] · shares uint8 [P, N, N, 3] (head, clavicle, matte; 255 is 1) ·
    kinds uint8 [P, N, N] · seeds int64 [P]: who is shown
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from training.synthetic.portraits.sitter import Portrait

FIELDS = ("pictures", "landmarks", "irises", "seen", "front", "back", "shares", "kinds", "seeds")


def write_shard(folder: Path, portraits: Sequence[Portrait], seeds: Sequence[int]) -> None:
    """Write one shard; it appears under its name only when whole."""
    layouts = [portrait.layout for portrait in portraits]
    shares = [np.dstack([layout.head, layout.clavicle, layout.matte]) for layout in layouts]
    fields = {
        "pictures": np.stack([portrait.picture for portrait in portraits]),
        "landmarks": np.stack([portrait.landmarks for portrait in portraits]),
        "irises": np.stack([portrait.irises for portrait in portraits]),
        "seen": np.stack([portrait.seen for portrait in portraits]),
        "front": np.stack([layout.front for layout in layouts]).astype(np.float16),
        "back": np.stack([layout.back for layout in layouts]).astype(np.float16),
        "shares": np.round(np.stack(shares) * 255).astype(np.uint8),
        "kinds": np.stack([layout.kinds for layout in layouts]),
        "seeds": np.array(seeds, np.int64),
    }
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, values in fields.items():
        np.save(partial / f"{name}.npy", values)
    partial.rename(folder)


class PortraitSet:
    """All shards of a folder as one list of P pictures. Raises FileNotFoundError where there is none."""

    def __init__(self, folder: Path) -> None:
        folders = sorted(path for path in folder.iterdir() if (path / "seeds.npy").is_file() and path.suffix == "")
        if not folders:
            raise FileNotFoundError(f"no shards under {folder}: run `python -m training.synthetic.portraits`")
        self._shards = [{name: np.load(path / f"{name}.npy", mmap_mode="r") for name in FIELDS} for path in folders]
        self.seeds = np.concatenate([shard["seeds"] for shard in self._shards])
        self._ends = np.cumsum([len(shard["seeds"]) for shard in self._shards])

    def __len__(self) -> int:
        return len(self.seeds)

    def rows(self, indices: np.ndarray, *names: str) -> Iterator[tuple[np.ndarray, ...]]:
        """The named fields of each picture."""
        for index in np.asarray(indices).tolist():
            shard = int(np.searchsorted(self._ends, index, side="right"))
            row = index - (int(self._ends[shard - 1]) if shard else 0)
            yield tuple(self._shards[shard][name][row] for name in names)

    def all(self, name: str) -> np.ndarray:
        """One field of all pictures, in memory."""
        return np.concatenate([shard[name] for shard in self._shards])
