"""Streams that are stepped together come out as if each had been stepped alone."""

import pytest
import torch

from models.configs import SamplingConfig
from models.pipeline import AvatarPipeline
from models.state import ChunkState

CHUNK = 4 * 640
SAMPLINGS = {
    "plain": SamplingConfig(),
    "guided": SamplingConfig(lr_steps=2, audio_guidance=2.0, text_guidance=1.5, pose_guidance=1.5),
    "enlarged": SamplingConfig(is_refined=False),
    "half-rate": SamplingConfig(is_refined=False, is_half_rate=True),
}


def three_streams(pipeline: AvatarPipeline, reference: torch.Tensor) -> list[ChunkState]:
    return [
        pipeline.start(reference, "happy", seed=1),
        pipeline.start(1 - reference, "sad", seed=2, motion_energy=0.3),
        pipeline.start(reference.flip(2), seed=3, first_frame=8),
    ]


def assert_same(one: tuple[torch.Tensor, ChunkState], other: tuple[torch.Tensor, ChunkState]) -> None:
    assert one[0].shape == other[0].shape
    assert (one[0] - other[0]).abs().max() < 1e-4
    for name, value in vars(one[1]).items():
        found = getattr(other[1], name)
        if isinstance(value, torch.Tensor):
            assert torch.allclose(value, found, atol=1e-4), name
        elif isinstance(value, int | float):
            assert value == found, name
        elif isinstance(value, tuple):
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(value, found, strict=True)), name


@pytest.mark.parametrize("name", SAMPLINGS)
def test_streams_of_a_batch_come_out_as_alone(pipeline, reference, sound, name):
    together = alone = three_streams(pipeline, reference)
    for k in range(3):  # the first chunk has no motion latents
        parts = [sound[(2 * k + row) * CHUNK : (2 * k + row + 2) * CHUNK] for row in range(3)]
        made = pipeline.step_batch(parts, together, SAMPLINGS[name])
        expected = [pipeline.step(part, state, SAMPLINGS[name]) for part, state in zip(parts, alone, strict=True)]
        for one, other in zip(made, expected, strict=True):
            assert_same(one, other)
        assert not torch.allclose(made[0][0], made[1][0], atol=1e-2)
        together, alone = [chunk.state for chunk in made], [chunk.state for chunk in expected]


def test_streams_at_different_places_with_chunks_of_different_length(pipeline, reference, sound):
    states = three_streams(pipeline, reference)
    _, states[1], _ = pipeline.step(sound[:CHUNK], states[1])
    _, states[2], _ = pipeline.step(sound[:CHUNK], states[2], SAMPLINGS["enlarged"])
    states.append(states[0])
    parts = [sound[: size * CHUNK] for size in (2, 2, 2, 1)]
    for made, part, state in zip(pipeline.step_batch(parts, states), parts, states, strict=True):
        assert_same(made, pipeline.step(part, state))


def test_models_run_once_for_a_batch(pipeline, reference, sound, monkeypatch):
    batches, forward = [], pipeline.lr_a2v.forward

    def counted(window, *rest, **more):
        batches.append(len(window))
        return forward(window, *rest, **more)

    monkeypatch.setattr(pipeline.lr_a2v, "forward", counted)
    states = three_streams(pipeline, reference)
    pipeline.step_batch([sound[:CHUNK]] * 3, states)
    assert batches == [3]
    pipeline.step_batch([sound[:CHUNK], sound[: 2 * CHUNK], sound[:CHUNK]], states)
    assert sorted(batches[1:]) == [1, 2]


def test_states_of_a_batch_are_left_alone_and_share_its_time(pipeline, reference, sound):
    states = three_streams(pipeline, reference)
    made = pipeline.step_batch([sound[:CHUNK]] * 3, states)
    assert all(state.lr_motion is None for state in states)
    shares = [chunk.stage_ms["refiner"] for chunk in made]
    assert shares[0] == shares[1] == shares[2] > 0


def test_no_streams_and_missing_sound(pipeline, reference, sound):
    assert pipeline.step_batch([], []) == []
    with pytest.raises(ValueError, match="1 for 2 streams"):
        pipeline.step_batch([sound[:CHUNK]], three_streams(pipeline, reference)[:2])
    with pytest.raises(ValueError, match="samples"):
        pipeline.step_batch([sound[:CHUNK], sound[:7]], three_streams(pipeline, reference)[:2])
