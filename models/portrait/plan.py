"""What the motion plan does to the face."""

from __future__ import annotations

import torch
from torch import Tensor

from models.motion import MOTION_CHANNELS
from models.portrait.face_mesh import FACE_INDEX

_BROW_GAIN, _LID_GAIN = 0.6, 1.6  # brow channel → brow actions; gaze down or up (radians) → lids, as training's people
_CHANNEL = {name: index for index, name in enumerate(MOTION_CHANNELS)}


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
