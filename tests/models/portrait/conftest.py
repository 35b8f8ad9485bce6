"""A face without a renderer: the canonical mesh laid on a coloured picture, with the layout of an ordinary person."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from models.portrait.face_mesh import FACE_INDEX, FaceMesh, load_face_mesh
from models.portrait.guess import guessed_layout
from models.portrait.pipeline import PortraitPipeline
from models.presenter import Presenter

SIZE = (192, 192)
UNIT = 38.0


def laid(
    mesh: FaceMesh, size: tuple[int, int] = SIZE, unit: float = UNIT, turn: np.ndarray | None = None
) -> np.ndarray:
    """Landmarks [L, 3] of the canonical face in the middle of a canvas."""
    points = mesh.canonical if turn is None else mesh.canonical @ turn.T
    return (points * unit + (size[1] / 2, 0.43 * size[0], 0)).astype(np.float32)


def irises_of(mesh: FaceMesh, landmarks: np.ndarray) -> np.ndarray:
    """Centres [2, 3] of its eyes."""
    loops = [[mesh.loops[f"lid_{part}_{side}"] for part in ("upper", "lower")] for side in ("left", "right")]
    return np.stack([landmarks[np.concatenate(pair)].mean(0) for pair in loops])


def painted(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth coloured picture, uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).uniform(0, 255, (*size, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def presenter_of(size: tuple[int, int] = SIZE, seed: int = 0, turn: np.ndarray | None = None) -> Presenter:
    mesh = load_face_mesh()
    landmarks = laid(mesh, size, UNIT * min(size) / min(SIZE), turn)
    return Presenter(painted(size, seed), landmarks, irises_of(mesh, landmarks), guessed_layout(landmarks, size))


@pytest.fixture(scope="session")
def mesh() -> FaceMesh:
    return load_face_mesh()


@pytest.fixture(scope="session")
def presenter() -> Presenter:
    return presenter_of()


class LoudEars:
    """A token is the loudness of a frame; the look-ahead is two frames."""

    def start(self, device="cpu"):
        return torch.zeros(0)

    def step(self, samples, state):
        heard = torch.cat([state, samples])
        whole = len(samples) - (0 if len(state) else 2 * 640)
        tokens = heard[: max(whole, 0)].view(-1, 640).square().mean(1).sqrt()[:, None]
        return tokens, heard[max(whole, 0) :]


class LoudActor:
    """The jaw follows the loudness; a prompt smiles."""

    delay_frames = 2
    ears = LoudEars()

    def encode_text(self, prompt):
        return torch.full((1, 1, 1), float(bool(prompt)))

    def act(self, tokens, text, plan, listening):
        out = torch.zeros(*tokens.shape[:2], 52)
        out[..., FACE_INDEX["jawOpen"]] = tokens[..., 0].clamp(0, 1)
        for side in ("Left", "Right"):
            out[..., FACE_INDEX[f"mouthSmile{side}"]] = 0.5 * text[:, :, 0]
            out[..., FACE_INDEX[f"eyeBlink{side}"]] = plan[..., 8]
        return out, plan


@pytest.fixture(scope="session")
def pipeline() -> PortraitPipeline:
    return PortraitPipeline(LoudActor(), lambda picture, size: presenter_of(size, int(picture[0, 0, 0])), SIZE)
