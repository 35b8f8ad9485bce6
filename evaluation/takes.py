"""Held-out takes: true video, sound and exact keypoints of one presenter saying one sentence."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.synthetic import shards
from training.synthetic.phones import SILENCE, Phone

SAMPLE_RATE, FPS = 16000, 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


@dataclass(frozen=True, eq=False)
class Take:
    """One take on disk; the video is read when asked for.

    Attributes:
        name: of the files, without suffix.
        folder: that they are in.
        presenter: name of the identity.
        voice: who speaks.
        reference: path of the presenter's reference picture.
        samples: float32 [T * 640] in -1 … 1.
        keypoints: float32 [T, 143, 3].
        closure: float32 [T], 1 where the sound demands shut lips (p, b, m).
        silent: bool [T], pauses that ask for a shut mouth.
        motion: float32 [T, MOTION_DIM], the plan the true presenter moved by.
        prompt: text condition.
    """

    name: str
    folder: Path
    presenter: str
    voice: str
    reference: Path
    samples: np.ndarray
    keypoints: np.ndarray
    closure: np.ndarray
    silent: np.ndarray
    motion: np.ndarray
    prompt: str = ""

    @property
    def frame_count(self) -> int:
        return len(self.keypoints)

    def frames(self) -> np.ndarray:
        """The true video, uint8 [T, H, W, 3]."""
        frames = shards.read(self.folder, self.name).frames
        assert frames is not None
        return frames


def read_picture(path: Path) -> np.ndarray:
    """A picture as uint8 RGB [H, W, 3]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def silent_frames(
    phones: list[Phone], count: int, margin_frames: int = 6, minimum_frames: int = 8
) -> np.ndarray:
    """Frames [count] bool in pauses that ask for a shut mouth.

    `margin_frames` beside every phone are left out, since mouths open before the sound and shut after it, and what
    remains must last `minimum_frames`.
    """
    silent = np.ones(count, bool)
    for phone in phones:
        if phone.name != SILENCE:
            first, last = int(phone.start_s * FPS), int(np.ceil(phone.end_s * FPS))
            silent[max(first - margin_frames, 0) : last + margin_frames] = False
    for start, stop in runs(silent):
        silent[start:stop] = stop - start >= minimum_frames
    return silent


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges in which a boolean sequence is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def read_take(folder: Path, name: str) -> Take:
    """A take by its name.

    Raises:
        ValueError: if it is not finished, its parts disagree, or its presenter's reference picture is missing.
    """
    shard = shards.read(folder, name, with_frames=False)
    presenter, framing = shard.description["presenter"], shard.description["framing"]
    reference = folder / f"reference_{presenter}_{framing}.png"
    if not reference.is_file():
        raise ValueError(f"{name} has no reference picture {reference}")
    phones = [Phone(*row) for row in shard.description["phones"]]
    return Take(
        name=name,
        folder=folder,
        presenter=presenter,
        voice=shard.description["voice"],
        reference=reference,
        samples=shard.samples,
        keypoints=shard.keypoints,
        closure=shard.closure,
        silent=silent_frames(phones, len(shard.keypoints)),
        motion=shard.motion,
        prompt=shard.description["prompt"],
    )


def read_takes(folder: Path, split: str = "heldout") -> list[Take]:
    """All finished takes of a split in a folder, ordered by name."""
    return [read_take(folder, name) for name in shards.list_shards(folder, split)]


def choose_takes(takes: list[Take], count: int | None) -> list[Take]:
    """At most `count` takes, spread evenly over presenters, each presenter's in order."""
    by_presenter = group_by_presenter(takes)
    rounds = max(map(len, by_presenter.values()))
    spread = [own[i] for i in range(rounds) for own in by_presenter.values() if i < len(own)]
    return spread if count is None else spread[:count]


def group_by_presenter(takes: list[Take]) -> dict[str, list[Take]]:
    """Takes of each presenter, in the order given."""
    groups: dict[str, list[Take]] = defaultdict(list)
    for take in takes:
        groups[take.presenter].append(take)
    return dict(groups)
