"""Takes of a drawn face whose mouth follows a tone, in the format of the generator: seconds to make, no renderer."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image
from scipy.io import wavfile

from models.motion import motion_frames
from models.pose import INNER_LIPS, KEYPOINTS, OUTER_LIPS

SIZE = 96


def toy_keypoints(opening: float, yaw: float) -> np.ndarray:
    """Keypoints [143, 3] of the drawn face: lips open by `opening` (parts of the height), all else on an oval."""
    keypoints = np.zeros((KEYPOINTS, 3), np.float32)
    angle = np.linspace(0, 2 * np.pi, KEYPOINTS)
    x = 0.5 + 0.3 * yaw
    keypoints[:, 0], keypoints[:, 1] = x + 0.2 * np.cos(angle), 0.5 + 0.28 * np.sin(angle)
    across = np.linspace(-0.07, 0.07, 5)
    inner = np.concatenate(
        [np.stack([across, -0.5 * opening + 0 * across], 1), np.stack([across[::-1], 0.5 * opening + 0 * across], 1)]
    )
    keypoints[INNER_LIPS, :2] = inner + [x, 0.65]
    ring = np.linspace(0, 2 * np.pi, 12)
    keypoints[OUTER_LIPS, :2] = np.stack([0.09 * np.cos(ring), (0.03 + opening / 2) * np.sin(ring)], 1) + [x, 0.65]
    keypoints[:, 2] = 1
    return keypoints


def draw(keypoints: np.ndarray, opening: float) -> np.ndarray:
    """uint8 [SIZE, SIZE, 3]."""
    picture = np.full((SIZE, SIZE, 3), (90, 120, 150), np.uint8)
    picture[10:30, 5:20] = (200, 180, 90)
    x = int(keypoints[INNER_LIPS, 0].mean() * SIZE)
    cv2.ellipse(picture, (x, SIZE // 2), (20, 28), 0, 0, 360, (220, 180, 150), -1)
    cv2.ellipse(picture, (x, int(0.65 * SIZE)), (8, max(1, int(opening * SIZE / 2))), 0, 0, 360, (90, 20, 30), -1)
    return picture


def write_video(path: Path, pictures: list[np.ndarray]) -> None:
    """Pictures uint8 [SIZE, SIZE, 3] as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv444p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_take(
    folder: Path, name: str, presenter: str, seed: int, frames: int = 48, with_pictures: bool = True
) -> None:
    """One take: `<name>.wav`, `.npz`, `.json`, and `.mp4` if it has pictures."""
    rng = np.random.default_rng(seed)
    opening = np.repeat(0.12 * rng.random(frames // 4), 4).astype(np.float32)
    time_s = np.arange(frames * 640) / 16_000
    sound = (0.5 * np.repeat(opening / 0.12, 640) * np.sin(2 * np.pi * 220 * time_s)).astype(np.float32)
    motion = motion_frames(seed, 0, frames)
    keypoints = np.stack([toy_keypoints(opening[i], motion[i, 0]) for i in range(frames)])
    if with_pictures:
        write_video(folder / f"{name}.mp4", [draw(keypoints[i], opening[i]) for i in range(frames)])
    wavfile.write(folder / f"{name}.wav", 16_000, (sound * 32767).astype(np.int16))
    np.savez(
        folder / f"{name}.npz",
        keypoints=keypoints,
        motion=motion,
        closure=(opening < 0.01).astype(np.float32),
        face=np.zeros((frames, 52), np.float32),
    )
    about = {"presenter": presenter, "prompt": "a friendly presenter", "seed": seed}
    (folder / f"{name}.json").write_text(json.dumps(about))


def write_toy_data(folder: Path) -> None:
    """Three training takes, the last of keypoints alone, and a held-out take of presenter `toy`, and its reference."""
    folder.mkdir(parents=True)
    for name, seed in (("toy_head_train_0", 1), ("toy_head_train_1", 2), ("toy_head_heldout_0", 3)):
        write_take(folder, name, "toy", seed)
    write_take(folder, "toy_head_train_1000", "toy", 4, with_pictures=False)
    neutral = toy_keypoints(0.0, 0.0)
    Image.fromarray(draw(neutral, 0.0)).save(folder / "reference_toy_head.png")
    np.savez(folder / "reference_toy_head.npz", keypoints=neutral)
