"""Held-out takes: true video, sound and exact keypoints of one presenter saying one sentence."""

from __future__ import annotations

import json
import wave
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image

SAMPLE_RATE, FPS = 16000, 25
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


@dataclass(frozen=True, eq=False)
class Take:
    """One take on disk; the video is read when asked for.

    Attributes:
        name: of the files, without suffix.
        presenter: name of the identity.
        voice: who speaks; "" where it is not known.
        video: path of the video.
        reference: path of the presenter's reference picture.
        samples: float32 [T * 640] in -1 … 1.
        keypoints: float32 [T, 143, 3].
        closure: float32 [T], 1 where the sound demands shut lips (p, b, m).
        motion: float32 [T, MOTION_DIM], the plan the true presenter moved by.
        prompt: text condition.
    """

    name: str
    presenter: str
    voice: str
    video: Path
    reference: Path
    samples: np.ndarray
    keypoints: np.ndarray
    closure: np.ndarray
    motion: np.ndarray
    prompt: str = ""

    @property
    def frame_count(self) -> int:
        return len(self.keypoints)

    def frames(self) -> np.ndarray:
        """The true video, uint8 [T, H, W, 3]; shorter than the keypoints only if the file is."""
        return read_video(self.video)[: self.frame_count]


def read_video(path: Path) -> np.ndarray:
    """All frames of a video, uint8 RGB [T, H, W, 3]."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if not frames:
        raise ValueError(f"{path} holds no video frame")
    return np.stack(frames)


def read_sound(path: Path) -> np.ndarray:
    """A 16-bit mono 16 kHz WAV as float32 in -1 … 1."""
    with wave.open(str(path)) as file:
        kind = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if kind != (SAMPLE_RATE, 1, 2):
            raise ValueError(f"{path} must be 16 kHz mono 16 bit, got (rate, channels, bytes) = {kind}")
        pcm = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return pcm.astype(np.float32) / 32768


def read_picture(path: Path) -> np.ndarray:
    """A picture as uint8 RGB [H, W, 3]."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def find_reference(take: Path, presenter: str) -> Path:
    """Picture `<presenter>/reference.png` of a take's presenter, in the take's folder or one of the two above.

    Raises:
        ValueError: if there is none.
    """
    folders = list(take.resolve().parents)[:3]
    for folder in folders:
        if (picture := folder / presenter / "reference.png").is_file():
            return picture
    raise ValueError(f"no reference picture {presenter}/reference.png in {folders[0]} or the two folders above")


def read_take(path: Path) -> Take:
    """A take by the path of its `.npz`, sound and keypoints cut to the same number of frames."""
    details = json.loads(path.with_suffix(".json").read_text())
    with np.load(path, allow_pickle=False) as arrays:
        keypoints = arrays["keypoints"].astype(np.float32)
        closure = arrays["closure"].astype(np.float32)
        motion = arrays["motion"].astype(np.float32)
    samples = read_sound(path.with_suffix(".wav"))
    count = min(len(keypoints), len(samples) // SAMPLES_PER_FRAME)
    presenter = str(details["presenter"])
    return Take(
        name=path.stem,
        presenter=presenter,
        voice=str(details.get("voice", "")),
        video=path.with_suffix(".mp4"),
        reference=find_reference(path, presenter),
        samples=samples[: count * SAMPLES_PER_FRAME],
        keypoints=keypoints[:count],
        closure=closure[:count],
        motion=motion[:count],
        prompt=str(details.get("prompt", "")),
    )


def read_takes(folder: Path, prefix: str = "heldout") -> list[Take]:
    """All takes below a folder whose names start with `prefix`, ordered by name.

    Raises:
        ValueError: if there is none.
    """
    paths = sorted(path for path in folder.rglob(f"{prefix}*.npz") if path.with_suffix(".mp4").is_file())
    if not paths:
        raise ValueError(f"no take {prefix}*.npz beside .mp4, .wav and .json below {folder}")
    return [read_take(path) for path in paths]


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
