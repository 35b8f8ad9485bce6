"""The chunk loop of the large presets, in shapes alone: nothing is allocated and nothing computed."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models import pipeline as module
from models.flops import flop_counter
from models.pipeline import AvatarPipeline
from models.presets import preset


@pytest.mark.parametrize(
    ("name", "size", "teraflop"), [("presenter-512", (512, 512), 0.509), ("paper-720p", (704, 1280), 165.1)]
)
def test_chunks_have_their_shapes_and_cost(name, size, teraflop, monkeypatch):
    monkeypatch.setattr(module, "background_points", lambda *_: torch.empty(20, 3))  # they are found by value
    with FakeTensorMode(allow_non_fake_inputs=True):
        pipeline = AvatarPipeline(preset(name))
        state = pipeline.start(torch.empty(3, *size))
        for index in (-2, 10):
            with flop_counter() as counter:
                frames, state, _ = pipeline.step(torch.empty(3 * 2560), state)
            assert frames.shape == (12, 3, *size) and state.frame_index == index + 12
        assert pipeline.to_i420(frames).shape == (12, size[0] * 3 // 2, size[1])
        motion = pipeline.preset.motion_latents
        assert state.lr_motion.shape == (1, 16, motion, size[0] // 16, size[1] // 16)
        assert state.hr_motion.shape == (1, 16, motion, size[0] // 8, size[1] // 8)
    assert counter.get_total_flops() / 1e12 == pytest.approx(teraflop, rel=0.01)
