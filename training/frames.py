"""Frames for training: takes decoded once into memory-mapped files, and random crops of them.

    python -m training.frames --data DATA --workers 16

decodes all finished takes at once, where there are many processors; else each is decoded at its first use.
"""

from __future__ import annotations

import argparse
import multiprocessing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import cv2
import numpy as np

from models.pose import INNER_LIPS, OUTER_LIPS


@dataclass(frozen=True)
class TakeFrames:
    """One take. Its frames are decoded at first use into `<name>.frames.npy` beside it."""

    path: Path  # of the .mp4, which a take of keypoints alone has not

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def has_pictures(self) -> bool:
        return self.path.is_file()

    @property
    def heldout(self) -> bool:
        return "_heldout_" in self.name

    @cached_property
    def frames(self) -> np.ndarray:
        """uint8 [T, H, W, 3], memory-mapped."""
        cache = self.path.with_suffix(".frames.npy")
        if not cache.is_file():
            with av.open(str(self.path)) as container:
                decoded = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
            partial = cache.with_suffix(".partial.npy")
            np.save(partial, decoded)
            partial.replace(cache)
        return np.load(cache, mmap_mode="r")

    @cached_property
    def keypoints(self) -> np.ndarray:
        """float32 [T, 143, 3]."""
        with np.load(self.path.with_suffix(".npz")) as arrays:
            return arrays["keypoints"].astype(np.float32)

    @cached_property
    def mouth(self) -> np.ndarray:
        """Centre of the lips, float32 [T, 2], x and y in parts of the picture."""
        return self.keypoints[:, OUTER_LIPS.start : INNER_LIPS.stop, :2].mean(1)


def takes(folder: Path, heldout: bool, with_pictures: bool = True) -> list[TakeFrames]:
    """Finished takes of a data folder, those of keypoints alone only with `with_pictures` False."""
    described = [path for path in sorted(folder.glob("**/*.json")) if path.with_suffix(".wav").is_file()]
    found = [TakeFrames(path.with_suffix(".mp4")) for path in described if not path.stem.endswith(".part")]
    return [take for take in found if take.heldout == heldout and (take.has_pictures or not with_pictures)]


def half_size(frames: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] → [T, H/2, W/2, 3], averaged."""
    height, width = frames.shape[1] // 2, frames.shape[2] // 2
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames])


def decode(take: TakeFrames) -> int:
    """Make sure that a take is decoded; returns its frames."""
    return len(take.frames)


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode all finished takes.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    found = takes(arguments.data, heldout=True) + takes(arguments.data, heldout=False)
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        frames = sum(pool.imap_unordered(decode, found))
    print(f"{len(found)} takes, {frames} frames", flush=True)


if __name__ == "__main__":
    main()
