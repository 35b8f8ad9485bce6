"""Expression planner: speech tokens, a mood and the motion plan → 52 face actions a frame, for anyone's face.

The truth it learns (`training.synthetic.visemes`, `.emotions`) is a mouth that follows the phones, hard windows in
which lips must touch or rest, an emotion that gives way to both, and the plan's blinks, brows and lids. The planner has
the same parts: what the sound decides is learned; how the parts meet is written down once, here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.checkpoints import load_component, shipped_weights
from models.conditions import AudioEncoder, TextEncoder
from models.configs import AudioEncoderConfig, ExpressionPlannerConfig, TextEncoderConfig
from models.layers import start_at_zero
from models.portrait.face_mesh import FACE_ACTIONS, FACE_INDEX
from models.portrait.plan import with_plan
from models.portrait.weights import read_portrait_config

MOODS = ("happy", "sad", "surprised", "angry", "thoughtful")  # neutral is none of them
ACCENT_RAD = 0.05  # down, on the most stressed syllable
HEAD_LIMIT_RAD = 0.2
LISTENING_SMILE = 0.25

_SPEECH_DAMPING = 0.35  # of a mood's part of the mouth, where the mouth speaks
_CLOSURE_DAMPING = 0.8  # the same, where lips must touch
_SPEAKING_AT = 0.15  # sum of speech actions at which the mouth counts as fully speaking


@dataclass(frozen=True)
class Speech:
    """What the sound alone decides, before it is shown.

    Attributes:
        face: [B, F, 52], gated, not yet limited to 0 … 1.
        closure, silence: [B, F], log odds that p, b, m or a pause shut the lips.
        shut: [B, F] in 0 … 1, how far the closure gate has shut them.
        accent: [B, F] in 0 … 1, how much this moment is stressed.
        listening: [B, F] in 0 … 1, how long nobody has been speaking: 1 after a second or so.
    """

    face: Tensor
    closure: Tensor
    silence: Tensor
    shut: Tensor
    accent: Tensor
    listening: Tensor


class ExpressionPlanner(nn.Module):
    """`models.configs.ExpressionPlannerConfig`; `forward` is all that serving needs."""

    closed_face: Tensor
    mood_faces: Tensor
    moves_in_speech: Tensor
    is_mouth: Tensor

    def __init__(self, config: ExpressionPlannerConfig) -> None:
        super().__init__()
        self.config = config
        self.hidden = nn.Sequential(nn.Linear(config.audio_width, config.width), nn.SiLU(), nn.Dropout(config.dropout))
        self.face = nn.Linear(config.width, len(FACE_ACTIONS))
        self.gates = nn.Linear(config.width, 2)
        self.manner = nn.Linear(config.width, 2)
        self.mood = nn.Linear(config.text_tokens * config.text_width, len(MOODS))
        start_at_zero(self.face)
        self.register_buffer("closed_face", torch.zeros(len(FACE_ACTIONS)))  # of p, b and m
        self.register_buffer("moves_in_speech", torch.ones(len(FACE_ACTIONS)))  # 1 for actions that speech uses
        self.register_buffer("mood_faces", torch.zeros(len(MOODS), len(FACE_ACTIONS)))
        is_mouth = [name.startswith(("mouth", "jaw")) for name in FACE_ACTIONS]
        self.register_buffer("is_mouth", torch.tensor(is_mouth), persistent=False)

    def forward(self, tokens: Tensor, text: Tensor, plan: Tensor, listening: Tensor) -> tuple[Tensor, Tensor]:
        """What a face does in F frames.

        Args:
            tokens: [B, F, audio_width] of an `AudioEncoder`.
            text: [B, Lt, text_width], prompt tokens.
            plan: [B, F, 11], the motion plan (`models.motion.motion_frames`).
            listening: [B, F, 2], what a listener does beside it (`models.motion.listening_frames`).

        Returns:
            actions: [B, F, 52] in 0 … 1, in the order of `FACE_ACTIONS`.
            plan: [B, F, 11], with the accents of the speech and the nods of a listener.
        """
        speech = self.speech(tokens)
        nods, smiles = (speech.listening[..., None] * listening).unbind(-1)
        face = self.with_mood(speech, self.moods(text))
        for side in ("Left", "Right"):
            face[..., FACE_INDEX["mouthSmile" + side]] += LISTENING_SMILE * smiles
        return with_plan(face, plan), with_accents(plan, speech.accent, nods)

    def speech(self, tokens: Tensor) -> Speech:
        """Tokens [B, F, audio_width] → what the sound decides."""
        hidden = self.hidden(tokens)
        accent, listening = torch.sigmoid(self.manner(hidden).float()).unbind(-1)
        closure, silence = self.gates(hidden).float().unbind(-1)
        shut = _gate(closure, self.config.closure_gate)
        quiet = _gate(silence, self.config.silence_gate)
        face = self.face(hidden).float() * self.moves_in_speech * (1 - quiet)[..., None]
        face = torch.lerp(face, self.closed_face.expand_as(face), shut[..., None])
        return Speech(face, closure, silence, shut, accent, listening)

    def moods(self, text: Tensor) -> Tensor:
        """Prompt tokens [B, Lt, text_width] → strengths [B, 5] in 0 … 1 of `MOODS`."""
        return torch.sigmoid(self.mood(text.flatten(1)))

    def with_mood(self, speech: Speech, strengths: Tensor) -> Tensor:
        """The speaking face with moods [B, 5] on it, which give way to speech and more to shut lips: [B, F, 52]."""
        face = speech.face.clamp(0, 1)
        speaking = (face.sum(2) / _SPEAKING_AT).clamp(0, 1)
        mouth = torch.minimum(1 - _SPEECH_DAMPING * speaking, 1 - _CLOSURE_DAMPING * speech.shut)
        part = torch.where(self.is_mouth, mouth[..., None], 1.0)
        return (face + part * (strengths @ self.mood_faces)[:, None]).clamp(0, 1)


def with_accents(plan: Tensor, accent: Tensor, nods: Tensor) -> Tensor:
    """The plan [B, F, 11] with a head that dips on stressed words, accent [B, F], and nods [B, F] radians.

    Turns end softly at `HEAD_LIMIT_RAD`: what a single picture can show.
    """
    yaw, pitch, roll, *others = plan.unbind(-1)
    pitch = pitch + ACCENT_RAD * accent + nods
    turns = [HEAD_LIMIT_RAD * torch.tanh(turn / HEAD_LIMIT_RAD) for turn in (yaw, pitch, roll)]
    return torch.stack([*turns, *others], dim=-1)


def _gate(log_odds: Tensor, limits: tuple[float, float]) -> Tensor:
    """0 below the lower limit of probability, 1 above the upper one."""
    low, high = limits
    return ((torch.sigmoid(log_odds) - low) / (high - low)).clamp(0, 1)


class ExpressionActor:
    """Speech encoder, prompt encoder and planner of a portrait weights folder: an `Actor` of `PortraitPipeline`."""

    def __init__(self, audio: AudioEncoder, text: TextEncoder, planner: ExpressionPlanner) -> None:
        self.ears, self.text, self.planner = audio, text, planner
        for part in (audio, text, planner):
            part.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path | None = None) -> ExpressionActor:
        """With the weights of a folder, those that come with the package if None.

        Raises:
            CheckpointError: if a part is missing, broken, or does not fit its configuration.
        """
        folder = folder or shipped_weights("portrait")
        audio = AudioEncoder(read_portrait_config(folder, "audio", AudioEncoderConfig))
        text = TextEncoder(read_portrait_config(folder, "text", TextEncoderConfig))
        planner = ExpressionPlanner(read_portrait_config(folder, "planner", ExpressionPlannerConfig))
        load_component(folder, "audio", audio)
        load_component(folder, "text", text)
        load_component(folder, "planner", planner)
        return cls(audio, text, planner)

    @property
    def delay_frames(self) -> int:
        """Frames that a token is behind the sound."""
        return self.ears.config.look_ahead_frames

    def encode_text(self, prompt: str) -> Tensor:
        """Prompt tokens [1, Lt, W]."""
        return self.text(self.text.tokenize([prompt]))

    def act(self, tokens: Tensor, text: Tensor, plan: Tensor, listening: Tensor) -> tuple[Tensor, Tensor]:
        """See `ExpressionPlanner.forward`."""
        return self.planner(tokens, text, plan, listening)
