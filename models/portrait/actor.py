"""From sound to face actions with what the shipped presenters bring: the speech encoder's own face head."""

from __future__ import annotations

import torch
from torch import Tensor

from models import checkpoints
from models.conditions import AudioEncoder, TextEncoder
from models.motion import MOTION_CHANNELS
from models.portrait.face_mesh import FACE_INDEX
from models.presets import preset

_BROW_GAIN, _LID_GAIN = 0.6, 1.6  # brow channel → brow actions; gaze down or up (radians) → lids, as training's people
_CHANNEL = {name: index for index, name in enumerate(MOTION_CHANNELS)}


class FaceHeadActor:
    """The speech encoder of a preset reads face actions off the sound; the motion plan adds brows, blinks and lids."""

    def __init__(self, audio: AudioEncoder, text: TextEncoder) -> None:
        self.ears = audio.eval().requires_grad_(False)
        self._text = text.eval().requires_grad_(False)

    @classmethod
    def load(cls, name: str = "presenter-256") -> FaceHeadActor:
        """With the weights of a shipped preset.

        Raises:
            CheckpointError: if they are missing or broken.
        """
        config, folder = preset(name), checkpoints.shipped_weights(name)
        audio, text = AudioEncoder(config.audio), TextEncoder(config.text)
        checkpoints.load_component(folder, "audio", audio)
        checkpoints.load_component(folder, "text", text)
        return cls(audio, text)

    @property
    def delay_frames(self) -> int:
        """Frames that a token is behind the sound."""
        return self.ears.config.look_ahead_frames

    def encode_text(self, prompt: str) -> Tensor:
        """Prompt tokens [1, Lt, W]; nothing of them shows yet."""
        return self._text(self._text.tokenize([prompt]))

    def act(self, tokens: Tensor, text: Tensor, plan: Tensor, listening: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, F, D] and motion plan [B, F, 11] → face actions [B, F, 52] in 0 … 1, and the plan as it is."""
        return with_plan(self.ears.face_head(tokens), plan), plan


def with_plan(actions: Tensor, plan: Tensor) -> Tensor:
    """Face actions [B, F, 52] with what the motion plan [B, F, 11] does to the face: brows, blinks, lids that go with
    the gaze; in 0 … 1."""
    out = actions.clamp(0, 1)
    brow, gaze = _BROW_GAIN * plan[..., _CHANNEL["brow"]], _LID_GAIN * plan[..., _CHANNEL["gaze_y"]]
    out[..., FACE_INDEX["browInnerUp"]] += brow
    for side in ("Left", "Right"):
        out[..., FACE_INDEX[f"browOuterUp{side}"]] += brow
        out[..., FACE_INDEX[f"eyeLookDown{side}"]] += gaze.clamp_min(0)
        out[..., FACE_INDEX[f"eyeLookUp{side}"]] -= gaze.clamp_max(0)
        blink = FACE_INDEX[f"eyeBlink{side}"]
        out[..., blink] = torch.maximum(out[..., blink], plan[..., _CHANNEL["blink"]])
    return out.clamp(0, 1)
