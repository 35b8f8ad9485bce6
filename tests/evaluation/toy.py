"""A drawn presenter with exact keypoints, a folder of takes of it, and a pipeline that redraws it from sound."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.motion import motion_frames
from models.talking import Chunk
from training.synthetic.shards import encode_video
from training.synthetic.voices import write_wav

SIDE = 128
_SHIFT = 4  # sub-pixel bits of OpenCV's drawing


@dataclass(frozen=True)
class Look:
    """Colours of a drawn presenter."""

    skin: tuple[int, int, int]
    shirt: tuple[int, int, int]
    room: tuple[int, int, int]


LOOKS = {
    "ana": Look((220, 180, 150), (40, 60, 130), (150, 160, 150)),
    "ben": Look((150, 110, 85), (120, 40, 40), (120, 130, 170)),
}


def draw(look: Look, aperture: float, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One frame uint8 [128, 128, 3] and keypoints [143, 3]; aperture in pixels of it."""
    frame = np.full((SIDE, SIDE, 3), look.room, np.uint8)
    x, y = 64 + 40 * float(motion[0]), 58 + 40 * float(motion[1])
    shoulders = 116 + 1.0 * float(motion[10])
    opening = 4.0 * (1 - float(motion[8]))
    _ellipse(frame, (64, shoulders + 20), (52, 26), look.shirt)
    _ellipse(frame, (x, y), (32, 42), look.skin)
    points = np.zeros((143, 3), np.float32)
    points[:, 2] = 1
    angle = np.linspace(0, np.pi, 17)
    points[0:17, :2] = np.stack([x - 32 * np.cos(angle), y + 42 * np.sin(angle)], 1)
    points[17:27, :2] = np.stack([x + np.linspace(-18, 18, 10), np.full(10, y - 20)], 1)
    points[27:31, :2] = np.stack([np.full(4, x), y + np.linspace(-10, 3, 4)], 1)
    points[31:36, :2] = np.stack([x + np.linspace(-5, 5, 5), np.full(5, y + 8)], 1)
    cv2.line(frame, (round(x), round(y - 8)), (round(x), round(y + 8)), (90, 70, 60), 2)
    for first, side in ((36, -1), (42, 1)):
        centre = (x + 13 * side, y - 9)
        _ellipse(frame, centre, (7, max(opening, 0.3)), (250, 250, 250))
        _ellipse(frame, centre, (2.5, max(min(opening, 2.5), 0.3)), (40, 30, 20))
        loop = np.array([[-7, 0], [-3, -1], [3, -1], [7, 0], [3, 1], [-3, 1]], np.float32)
        points[first : first + 6, :2] = np.array(centre) + loop * (1, opening)
    mouth = (x, y + 23)
    _ellipse(frame, mouth, (15, aperture / 2 + 4), (170, 60, 70))
    _ellipse(frame, mouth, (12, max(aperture / 2, 0.3)), (40, 10, 10))
    turn = np.linspace(np.pi, 3 * np.pi, 13)[:-1]
    points[48:60, :2] = np.stack([x + 15 * np.cos(turn), y + 23 + (aperture / 2 + 4) * np.sin(turn)], 1)
    across = np.linspace(-9, 9, 5)
    half = np.full(5, aperture / 2)
    points[60:65, :2] = np.stack([x + across, y + 23 - half], 1)
    points[65:70, :2] = np.stack([x + across[::-1], y + 23 + half], 1)
    points[:, :2] /= SIDE
    return frame, points


def _ellipse(frame: np.ndarray, centre: tuple[float, float], axes: tuple[float, float], colour: tuple) -> None:
    one = 1 << _SHIFT
    place = (round(centre[0] * one), round(centre[1] * one))
    size = (round(axes[0] * one), round(axes[1] * one))
    cv2.ellipse(frame, place, size, 0, 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)


def speech(seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tone bursts float32 [N] with pauses at both ends and the frames of the gaps inside, closure [T]."""
    count = int(seconds * 25)
    rng = np.random.default_rng(seed)
    level = np.zeros(count)
    frame = 12
    while frame < count - 20:
        length = int(rng.integers(4, 8))
        level[frame : frame + length] = rng.uniform(0.4, 1)
        frame += length + 2
    closure = np.zeros(count, np.float32)
    closure[12:-14] = level[12:-14] == 0
    tone = np.sin(np.arange(count * 640) * 0.3).astype(np.float32)
    return tone * np.repeat(level, 640).astype(np.float32) * 0.3, closure


def mouth_of(samples: np.ndarray) -> np.ndarray:
    """Aperture [T] in pixels that a sound makes."""
    return 1 + 34 * np.sqrt((samples.reshape(-1, 640) ** 2).mean(1))


def render(look: Look, aperture: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames [T, 128, 128, 3] and keypoints [T, 143, 3]."""
    drawn = [draw(look, float(mouth), row) for mouth, row in zip(aperture, motion, strict=True)]
    return np.stack([frame for frame, _ in drawn]), np.stack([points for _, points in drawn])


def write_take(folder: Path, presenter: str, index: int, seconds: float, seed: int) -> None:
    """One take in the layout of the shards."""
    name = f"{presenter}_head_heldout_{index:04d}"
    samples, closure = speech(seconds, seed)
    motion = motion_frames(seed, 0, len(closure))
    frames, keypoints = render(LOOKS[presenter], mouth_of(samples), motion)
    encode_video(folder / f"{name}.mp4", frames, crf="10")
    write_wav(folder / f"{name}.wav", samples)
    face = np.zeros((len(closure), 52), np.float32)
    arrays = {"keypoints": keypoints, "closure": closure, "motion": motion, "face": face, "shown_face": face}
    np.savez(folder / f"{name}.npz", **arrays)
    details = {
        "presenter": presenter, "split": "heldout", "framing": "head", "voice": "tone", "prompt": "",
        "phones": [["AA", 12 / 25, (len(closure) - 26) / 25]],
    }
    (folder / f"{name}.json").write_text(json.dumps(details))
    picture = folder / f"reference_{presenter}_head.png"
    if not picture.is_file():
        Image.fromarray(frames[0]).save(picture)


@dataclass
class ToyState:
    """Position of a stream and the sound not yet shown."""

    look: Look
    seed: int
    frame_index: int
    sound: np.ndarray


class ToyPipeline:
    """Draws the presenter whose room has the colour of the reference's corner, `delay_frames` behind the sound."""

    delay_frames = 2
    frame_size = (SIDE, SIDE)

    def __init__(self, mouth_gain: float = 1.0, late_frames: int = 0) -> None:
        self.mouth_gain, self.late_frames = mouth_gain, late_frames
        self.pose_estimator = lambda frames: torch.zeros(len(frames), 143, 3)

    def start(self, reference: Tensor, prompt: str, seed: int, chunk_latents: int) -> ToyState:
        self.pose_estimator(reference[None])
        corner = (reference[:, 0, 0] * 255).numpy()
        look = min(LOOKS.values(), key=lambda look: float(np.abs(np.array(look.room) - corner).sum()))
        silence = np.zeros((self.delay_frames + self.late_frames) * 640, np.float32)
        return ToyState(look, seed, -self.delay_frames, silence)

    def step(self, samples: Tensor, state: ToyState) -> Chunk[ToyState]:
        sound = np.concatenate([state.sound, samples.numpy()])
        aperture = 1 + (mouth_of(sound[: len(samples)]) - 1) * self.mouth_gain
        motion = motion_frames(state.seed, state.frame_index, len(aperture))
        frames = torch.from_numpy(render(state.look, aperture, motion)[0]).permute(0, 3, 1, 2).float() / 255
        self.pose_estimator(frames[:, :, ::2, ::2])
        after = replace(state, frame_index=state.frame_index + len(aperture), sound=sound[len(samples) :])
        return Chunk(frames, after, {})
