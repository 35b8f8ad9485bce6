"""The portrait pipeline keeps the promises of `models.talking.TalkingModel`."""

import copy

import numpy as np
import pytest
import torch

from models.talking import Rung, TalkingModel
from tests.models.portrait.conftest import SIZE, presenter_of

CHUNK = 2560


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    loud = torch.rand(12, generator=torch.Generator().manual_seed(0)).repeat_interleave(CHUNK // 2)
    return loud * torch.randn(12 * CHUNK // 2, generator=torch.Generator().manual_seed(1))


def run(pipeline, state, sound, sizes, rung=Rung.FULL):
    frames, position = [], 0
    for size in sizes:
        part, state, _ = pipeline.step(sound[position : position + size * CHUNK], state, rung)
        frames.append(part)
        position += size * CHUNK
    return torch.cat(frames), state


def test_it_is_a_talking_model(pipeline):
    model: TalkingModel = pipeline
    state = model.start(torch.zeros(8, 8, 3, dtype=torch.uint8))
    assert model.still(state).shape == (1, *SIZE, 3) and state.frame_index == -model.delay_frames
    assert model.rungs[0] is Rung.FULL and Rung.HOLD not in model.rungs


def test_chunks_are_the_whole_however_it_is_cut(pipeline, presenter, sound):
    whole, after = run(pipeline, pipeline.start(presenter, seed=3), sound, [6])
    cut, other = run(pipeline, pipeline.start(presenter, seed=3), sound, [1, 2, 3])
    assert whole.shape == (24, *SIZE, 3) and whole.dtype == torch.uint8
    assert torch.equal(whole, cut)
    assert after.frame_index == other.frame_index == 22 and after.plan == other.plan


def test_later_sound_cannot_change_frames_before_the_look_ahead(pipeline, presenter, sound):
    changed = sound.clone()
    changed[3 * CHUNK :] = 0
    before, _ = run(pipeline, pipeline.start(presenter), sound, [1] * 6)
    after, _ = run(pipeline, pipeline.start(presenter), changed, [1] * 6)
    assert torch.equal(before[:12], after[:12]) and not torch.equal(before[12:16], after[12:16])


def test_a_batch_is_each_of_its_streams(pipeline, presenter, sound):
    states = [pipeline.start(presenter, seed=1), pipeline.start(presenter_of(seed=5), "glad", seed=2)]
    parts = [sound[:CHUNK], sound[CHUNK : 3 * CHUNK]]
    for made, part, state in zip(pipeline.step_batch(parts, states), parts, states, strict=True):
        alone = pipeline.step(part, state)
        assert torch.equal(made.frames, alone.frames) and made.state.plan == alone.state.plan
    with pytest.raises(ValueError, match="1 for 2"):
        pipeline.step_batch(parts[:1], states)


def test_a_state_is_left_alone_and_a_copy_goes_on_like_it(pipeline, presenter, sound):
    _, state = run(pipeline, pipeline.start(presenter), sound, [2])
    copied = copy.deepcopy(state)
    first = pipeline.step(sound[:CHUNK], state).frames
    assert torch.equal(first, pipeline.step(sound[:CHUNK], state).frames)
    assert torch.equal(first, pipeline.step(sound[:CHUNK], copied).frames)


def test_half_rate_shows_every_second_frame_twice(pipeline, presenter, sound):
    full, after = run(pipeline, pipeline.start(presenter), sound, [2])
    half, other = run(pipeline, pipeline.start(presenter), sound, [2], Rung.HALF_RATE)
    assert torch.equal(half, full[::2].repeat_interleave(2, dim=0)) and after.plan == other.plan


def test_motion_waits_while_frames_are_held_and_the_sound_goes_on(pipeline, presenter, sound):
    _, state = run(pipeline, pipeline.start(presenter), sound, [1])
    held = pipeline.hold(sound[CHUNK : 2 * CHUNK], state)
    assert held.plan == state.plan and held.frame_index == state.frame_index + 4
    assert torch.equal(held.audio, pipeline.step(sound[CHUNK : 2 * CHUNK], state).state.audio)


def test_prompt_energy_and_reference_change_what_follows_only(pipeline, presenter, sound):
    _, state = run(pipeline, pipeline.start(presenter, seed=4), sound, [1])
    plain = pipeline.step(sound[:CHUNK], state).frames
    smiling = pipeline.step(sound[:CHUNK], pipeline.set_prompt(state, "glad")).frames
    assert not torch.equal(plain, smiling)
    calm = pipeline.set_prompt(state, motion_energy=0.0)
    assert calm.plan.energy == 0 and calm.plan.index == state.plan.index and calm.text is state.text
    other = pipeline.set_reference(state, torch.full((8, 8, 3), 9, dtype=torch.uint8))
    assert other.plan == state.plan and torch.equal(other.audio, state.audio)
    assert not torch.equal(pipeline.step(sound[:CHUNK], other).frames, plain)


def test_a_stream_started_late_has_the_plan_of_its_time(pipeline, presenter, sound):
    _, state = run(pipeline, pipeline.start(presenter, seed=6), sound, [3])
    assert pipeline.start(presenter, seed=6, first_frame=12).plan == state.plan


def test_frames_are_the_callers_own(pipeline, presenter, sound):
    chunk = pipeline.step(sound[:CHUNK], pipeline.start(presenter))
    expected = chunk.frames.clone()
    chunk.frames[:] = 0
    pipeline.still(chunk.state)[:] = 0
    assert torch.equal(pipeline.step(sound[:CHUNK], pipeline.start(presenter)).frames, expected)


def test_stages_are_timed(pipeline, presenter, sound):
    spent = pipeline.step(sound[:CHUNK], pipeline.start(presenter)).stage_ms
    assert {"audio", "pose", "raster", "warp", "eyes", "mouth"} == set(spent) and min(spent.values()) > 0


@pytest.mark.parametrize("samples", [0, 1, CHUNK - 1, 7 * CHUNK])
def test_sound_of_a_wrong_length_is_refused(pipeline, presenter, samples):
    with pytest.raises(ValueError, match="samples"):
        pipeline.step(torch.zeros(samples), pipeline.start(presenter))


def test_bad_beginnings_are_refused(pipeline, presenter):
    with pytest.raises(ValueError, match="picture"):
        pipeline.start(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match="pixels"):
        pipeline.start(presenter_of((128, 128)))
    for wrong in ({"motion_energy": 3.0}, {"first_frame": 3}, {"chunk_latents": 7}):
        with pytest.raises(ValueError):
            pipeline.start(presenter, **wrong)
    assert np.array_equal(presenter.picture, presenter_of().picture)
