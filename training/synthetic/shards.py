"""Takes on disk: `<name>.mp4`, `<name>.wav`, `<name>.npz` and `<name>.json`, the last one written last.

A take of keypoints alone, which is made ten times as fast, has no `.mp4`.

The picture is H.264 in 4:4:4 at a high rate, so that next to nothing is lost. The arrays are `keypoints`
[n, 143, 3], `face`, `shown_face` [n, 52], `closure` [n] and `motion` [n, 11], all float32.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.synthetic.takes import Take
from training.synthetic.visemes import FPS
from training.synthetic.voices import SAMPLE_RATE, read_wav, write_wav

_CRF = "14"
_ARRAYS = ("keypoints", "face", "shown_face", "closure", "motion")


@dataclass(frozen=True)
class Shard:
    """One take as read back. n frames of S × S pixels.

    Attributes:
        name: of the files.
        frames: uint8 [n, S, S, 3] RGB, or None if not asked for.
        samples: float32 [n · 640], 16 kHz.
        keypoints: float32 [n, 143, 3], x and y in shares of the picture, visibility.
        face: float32 [n, 52], what the sound alone decides.
        shown_face: float32 [n, 52], with the emotion.
        closure: float32 [n].
        motion: float32 [n, 11].
        description: presenter, split, framing, prompt, emotion, voice, texts, phones, …
    """

    name: str
    frames: np.ndarray | None
    samples: np.ndarray
    keypoints: np.ndarray
    face: np.ndarray
    shown_face: np.ndarray
    closure: np.ndarray
    motion: np.ndarray
    description: dict


def encode_video(path: Path, frames: Iterable[np.ndarray], fps: int = FPS, crf: str = _CRF) -> int:
    """Write RGB frames, uint8 [S, S, 3], as H.264 4:4:4; returns their number.

    Raises:
        ValueError: if there are no frames.
    """
    import av

    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for picture in frames:
            if stream is None:
                options = {"crf": crf, "preset": "fast", "threads": "1"}
                stream = container.add_stream("libx264", rate=fps, options=options)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv444p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
            count += 1
        if stream is None:
            raise ValueError("no frames to encode")
        container.mux(stream.encode())
    return count


def decode_video(path: Path) -> np.ndarray:
    """All frames of a video, uint8 [n, H, W, 3] RGB."""
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def write(
    folder: Path,
    take: Take,
    rendered: Iterable[tuple[np.ndarray, np.ndarray]] | None = None,
    keypoints: Sequence[np.ndarray] = (),
) -> Path:
    """Write a take.

    Args:
        folder: of the shards; made if needed.
        take: what is shown.
        rendered: (frame uint8 [S, S, 3], keypoints float32 [143, 3]) of every frame, in order; None for a take
            without pictures.
        keypoints: float32 [143, 3] of every frame, of a take without pictures.

    Returns:
        Path of the `.json`, which is written last: a take without it is not finished.

    Raises:
        ValueError: if the number of frames is not the take's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = take.spec.name
    endings = ("wav", "npz", "json") if rendered is None else ("mp4", "wav", "npz", "json")
    parts = {ending: folder / f"{name}.part.{ending}" for ending in endings}
    if rendered is not None:
        seen: list[np.ndarray] = []

        def pictures() -> Iterable[np.ndarray]:
            for picture, points in rendered:
                seen.append(points)
                yield picture

        encode_video(parts["mp4"], pictures())
        keypoints = seen
    if len(keypoints) != take.n_frames:
        raise ValueError(f"{name} has {take.n_frames} frames, {len(keypoints)} were rendered")
    write_wav(parts["wav"], take.samples)
    arrays: dict[str, Any] = {
        "keypoints": np.stack(keypoints).astype(np.float32),
        "face": take.face,
        "shown_face": take.shown_face,
        "closure": take.closure,
        "motion": take.motion,
    }
    with parts["npz"].open("wb") as file:
        np.savez_compressed(file, **arrays)
    parts["json"].write_text(json.dumps(_description(take), indent=1))
    for ending, part in parts.items():
        part.replace(folder / f"{name}.{ending}")
    return folder / f"{name}.json"


def _description(take: Take) -> dict:
    return {
        "presenter": take.spec.presenter,
        "split": take.spec.split,
        "framing": take.spec.framing,
        "index": take.spec.index,
        "seed": take.spec.seed,
        "fps": FPS,
        "n_frames": take.n_frames,
        "sample_rate": SAMPLE_RATE,
        "prompt": take.prompt,
        "emotion": take.emotion,
        "strength": round(take.strength, 3),
        "energy": round(take.energy, 3),
        "motion_seed": take.motion_seed,
        "voice": take.voice,
        "texts": list(take.texts),
        "phones": [[p.name, round(p.start_s, 4), round(p.duration_s, 4)] for p in take.phones],
    }


def is_finished(folder: Path, name: str) -> bool:
    """Whether the take of that name is complete on disk."""
    return (folder / f"{name}.json").exists()


def list_shards(folder: Path, split: str | None = None, presenter: str | None = None) -> list[str]:
    """Names of the finished takes in a folder, sorted; of one split or presenter if asked."""
    names = []
    for path in sorted(Path(folder).glob("*_[0-9][0-9][0-9][0-9].json")):
        description = json.loads(path.read_text())
        if split in (None, description["split"]) and presenter in (None, description["presenter"]):
            names.append(path.stem)
    return names


def read(folder: Path, name: str, with_frames: bool = True) -> Shard:
    """Read a take back.

    Raises:
        ValueError: if it is not finished, its parts disagree in length, or it has no frames and they are wanted.
    """
    folder = Path(folder)
    if not is_finished(folder, name):
        raise ValueError(f"{folder} holds no finished take {name!r}")
    samples, rate = read_wav(folder / f"{name}.wav")
    with np.load(folder / f"{name}.npz") as stored:
        arrays = {key: stored[key] for key in _ARRAYS}
    if with_frames and not (folder / f"{name}.mp4").is_file():
        raise ValueError(f"{folder} holds no pictures of take {name!r}")
    frames = decode_video(folder / f"{name}.mp4") if with_frames else None
    count = len(arrays["face"])
    if rate != SAMPLE_RATE or len(samples) * FPS != count * SAMPLE_RATE:
        raise ValueError(f"{name}: {len(samples)} samples at {rate} Hz for {count} frames")
    if frames is not None and len(frames) != count:
        raise ValueError(f"{name}: {len(frames)} frames of video, {count} of arrays")
    description = json.loads((folder / f"{name}.json").read_text())
    return Shard(name=name, frames=frames, samples=samples, description=description, **arrays)
