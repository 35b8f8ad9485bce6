"""Emotions: what they do to the face, what they are called in prompts, and how they give way to speech."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.portrait.face_mesh import FACE_ACTIONS
from training.synthetic.visemes import face_vector


@dataclass(frozen=True)
class Emotion:
    """An emotion.

    Attributes:
        face: float64 [52], actions at full strength.
        prompts: texts that ask for it.
        share: of takes.
        strengths: lowest and highest strength in takes.
    """

    face: np.ndarray
    prompts: tuple[str, ...]
    share: float
    strengths: tuple[float, float]


EMOTIONS: dict[str, Emotion] = {
    "neutral": Emotion(face_vector(), ("a friendly presenter, neutral", "neutral", "calm, neutral"), 0.55, (0, 0)),
    "happy": Emotion(
        face_vector(
            mouthSmile=0.62, cheekSquint=0.55, eyeSquint=0.25, mouthDimple=0.18, browInnerUp=0.12, browOuterUp=0.12
        ),
        ("happy, smiling", "a happy presenter", "cheerful, smiling"),
        0.15,
        (0.6, 1.0),
    ),
    "sad": Emotion(
        face_vector(mouthFrown=0.70, browInnerUp=0.85, eyeSquint=0.22, mouthShrugLower=0.30, mouthStretch=0.06),
        ("sad", "a sad presenter", "sad, downcast"),
        0.075,
        (0.6, 1.0),
    ),
    "surprised": Emotion(
        face_vector(browInnerUp=0.75, browOuterUp=0.80, eyeWide=0.75),
        ("surprised", "a surprised presenter", "surprised, eyes wide"),
        0.075,
        (0.6, 1.0),
    ),
    "angry": Emotion(
        face_vector(browDown=0.90, noseSneer=0.40, eyeSquint=0.40, mouthPress=0.25, mouthFrown=0.35),
        ("angry", "an angry presenter", "angry, frowning"),
        0.075,
        (0.6, 1.0),
    ),
    "thoughtful": Emotion(
        face_vector(
            browInnerUp=0.30, browDownLeft=0.55, browOuterUpRight=0.60, mouthPress=0.20, mouthLeft=0.20, eyeSquint=0.15
        ),
        ("thoughtful", "a thoughtful presenter", "thoughtful, pondering"),
        0.075,
        (0.6, 1.0),
    ),
}

_IS_MOUTH = np.array([name.startswith(("mouth", "jaw")) for name in FACE_ACTIONS])
_SPEECH_DAMPING = 0.35  # of the mouth's part, where the mouth speaks
_CLOSURE_DAMPING = 0.8  # of the mouth's part, where lips must touch
_SPEAKING_AT = 0.15  # sum of speech actions at which the mouth counts as fully speaking


def draw_emotion(rng: np.random.Generator) -> tuple[str, float, str]:
    """Name, strength in 0 … 1 and prompt of an emotion drawn by its share."""
    names = list(EMOTIONS)
    shares = np.array([EMOTIONS[name].share for name in names])
    name = names[rng.choice(len(names), p=shares / shares.sum())]
    emotion = EMOTIONS[name]
    return name, float(rng.uniform(*emotion.strengths)), emotion.prompts[rng.integers(len(emotion.prompts))]


def add_emotion(face: np.ndarray, closure: np.ndarray, name: str, strength: float) -> np.ndarray:
    """The face of speech with an emotion on it; shut lips win over the emotion.

    Args:
        face: float32 [n, 52] of speech.
        closure: float32 [n], 0 … 1.
        name: of an emotion.
        strength: 0 … 1.

    Returns:
        float32 [n, 52], 0 … 1.

    Raises:
        ValueError: if the emotion is unknown or the strength out of range.
    """
    if name not in EMOTIONS:
        raise ValueError(f"unknown emotion {name!r}, have {', '.join(EMOTIONS)}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be within 0 … 1, got {strength}")
    speaking = np.clip(face.sum(1) / _SPEAKING_AT, 0, 1)
    mouth = np.minimum(1 - _SPEECH_DAMPING * speaking, 1 - _CLOSURE_DAMPING * closure)
    part = np.where(_IS_MOUTH, mouth[:, None], 1.0)
    return np.clip(face + strength * part * EMOTIONS[name].face, 0, 1).astype(np.float32)
