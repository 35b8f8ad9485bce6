"""Ways to save time in a step: each is causal, and any may follow any other."""

import dataclasses
import itertools

import pytest
import torch

from models.configs import SamplingConfig
from models.pipeline import AvatarPipeline

CHUNK = 4 * 640
FULL = SamplingConfig(audio_guidance=2.0)
PLAIN = SamplingConfig()
LARGE = SamplingConfig(is_refined=False)
HALF = SamplingConfig(is_refined=False, is_half_rate=True)
HALF_REFINED = SamplingConfig(is_half_rate=True)
RUNGS = {"full": FULL, "plain": PLAIN, "large": LARGE, "half": HALF, "half-refined": HALF_REFINED, "hold": None}


def run(pipeline: AvatarPipeline, state, sound: torch.Tensor, rungs, size: int = 1):
    """Frames of consecutive steps of `size` latents, each by its own rung; a held chunk gives none."""
    frames = []
    for index, sampling in enumerate(rungs):
        part = sound[index * size * CHUNK : (index + 1) * size * CHUNK]
        if sampling is None:
            state = pipeline.hold(part, state)
        else:
            new, state, _ = pipeline.step(part, state, sampling)
            frames.append(new)
    return torch.cat(frames), state


@pytest.mark.parametrize("first, second", list(itertools.product(RUNGS, RUNGS)))
def test_any_rung_follows_any_other(pipeline, reference, sound, first, second):
    rungs = [FULL, RUNGS[first], RUNGS[second], FULL]
    frames, state = run(pipeline, pipeline.start(reference), sound, rungs)
    assert frames.shape == (16 - 4 * (first == "hold") - 4 * (second == "hold"), 3, 96, 96)
    assert frames.min() >= 0 and frames.max() <= 1
    assert state.frame_index == 16 - pipeline.delay_frames and state.latent_index == 4


@pytest.mark.parametrize("name", [name for name in RUNGS if name != "hold"])
def test_every_rung_is_causal(pipeline, reference, sound, name):
    changed = sound.clone()
    changed[12 * 640 :] = 0
    before, _ = run(pipeline, pipeline.start(reference), sound, [RUNGS[name]] * 6)
    after, _ = run(pipeline, pipeline.start(reference), changed, [RUNGS[name]] * 6)
    assert torch.equal(before[:12], after[:12])
    assert not torch.equal(before[12:], after[12:])


def test_half_rate_shows_every_second_frame_twice_and_is_otherwise_the_same(pipeline, reference, sound):
    for whole, half in ((LARGE, HALF), (PLAIN, HALF_REFINED)):
        one, after_one = run(pipeline, pipeline.start(reference), sound, [whole] * 2, size=2)
        two, after_two = run(pipeline, pipeline.start(reference), sound, [half] * 2, size=2)
        assert torch.allclose(two, one[::2].repeat_interleave(2, dim=0), atol=1e-5)
        for cache in ("lr_cache", "hr_cache"):
            pairs = zip(getattr(after_one, cache), getattr(after_two, cache), strict=True)
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def test_refiner_left_out_is_the_small_picture_enlarged(pipeline, reference, sound):
    state = pipeline.start(reference)
    frames, _, _ = pipeline.step(sound[:CHUNK], state, LARGE)
    _, refined, _ = pipeline.step(sound[:CHUNK], state, PLAIN)
    small, _ = pipeline.vae.decode_chunk(refined.lr_motion, state.lr_cache)
    enlarged = torch.nn.functional.interpolate(small[0].clamp(0, 1), scale_factor=2, mode="bicubic")
    assert torch.allclose(frames, enlarged.clamp(0, 1), atol=1e-5)


def test_climbing_back_goes_on_as_if_nothing_had_happened_to_the_small_picture(pipeline, reference, sound):
    _, straight = run(pipeline, pipeline.start(reference), sound, [PLAIN] * 3)
    _, detour = run(pipeline, pipeline.start(reference), sound, [PLAIN, LARGE, PLAIN])
    assert torch.allclose(straight.lr_motion, detour.lr_motion, atol=1e-5)
    assert detour.hr_motion.shape == straight.hr_motion.shape


def test_climbing_back_with_more_motion_latents_than_refined_ones(pipeline, reference, sound, monkeypatch):
    monkeypatch.setattr(pipeline, "preset", dataclasses.replace(pipeline.preset, motion_latents=2))
    rungs = [PLAIN, PLAIN, LARGE, PLAIN, PLAIN, PLAIN]
    frames, state = run(pipeline, pipeline.start(reference), sound, rungs)
    assert len(frames) == 24 and state.hr_motion.shape[2] == state.lr_motion.shape[2] == 2


def test_motion_plan_waits_while_frames_are_held_and_the_sound_goes_on(pipeline, reference, sound):
    _, state = run(pipeline, pipeline.start(reference), sound, [PLAIN])
    held = pipeline.hold(sound[CHUNK : 2 * CHUNK], state)
    assert held.plan == state.plan and held.frame_index == state.frame_index + 4
    _, stepped, _ = pipeline.step(sound[CHUNK : 2 * CHUNK], state)
    assert torch.equal(held.audio_tokens, stepped.audio_tokens)
    assert torch.equal(held.audio.samples, stepped.audio.samples)


def test_new_energy_comes_in_slowly(pipeline, reference, sound):
    _, state = run(pipeline, pipeline.start(reference, motion_energy=0.5), sound, [PLAIN] * 2)
    changed = pipeline.set_prompt(state, motion_energy=2.0)
    energies = changed.plan.energies(state.plan.index - 4, 40)
    assert (energies[:4] == 0.5).all() and energies[-1] == 2.0
    assert 0 < abs(energies[1:] - energies[:-1]).max() < 0.1
    _, halfway = run(pipeline, changed, sound, [PLAIN] * 3)
    again = pipeline.set_prompt(halfway, motion_energy=0.0)
    index = halfway.plan.index
    assert abs(again.plan.energies(index, 1)[0] - halfway.plan.energies(index - 1, 1)[0]) < 0.1
    assert again.plan.energies(index + 30, 1)[0] == 0


def test_new_prompt_counts_from_the_next_step_on(pipeline, reference, sound):
    _, state = run(pipeline, pipeline.start(reference, "sad"), sound, [PLAIN])
    changed = pipeline.set_prompt(state, "happy")
    assert torch.equal(pipeline.set_prompt(changed, "sad").text, state.text)
    one, _, _ = pipeline.step(sound[:CHUNK], state)
    two, _, _ = pipeline.step(sound[:CHUNK], changed)
    assert not torch.equal(one, two)


def test_energy_out_of_range_is_refused(pipeline, reference):
    with pytest.raises(ValueError, match="motion_energy"):
        pipeline.start(reference, motion_energy=2.1)
    with pytest.raises(ValueError, match="motion_energy"):
        pipeline.set_prompt(pipeline.start(reference), motion_energy=-0.1)


def test_new_reference_keeps_the_sound_and_the_plan(pipeline, reference, sound):
    _, state = run(pipeline, pipeline.start(reference, "sad", seed=4, motion_energy=0.3), sound, [PLAIN] * 2)
    other = pipeline.set_reference(state, 1 - reference)
    assert other.frame_index == state.frame_index and other.plan == state.plan
    assert torch.equal(other.text, state.text) and torch.equal(other.audio_tokens, state.audio_tokens)
    fresh = pipeline.start(1 - reference)
    assert torch.equal(other.reference.hr_latents, fresh.reference.hr_latents)
    assert other.hr_motion is None and other.lr_motion is None
    frames, _, _ = pipeline.step(sound[:CHUNK], other)
    assert frames.shape == (4, 3, 96, 96)


def test_stream_started_late_has_the_noise_and_the_plan_of_its_time(pipeline, reference, sound):
    _, state = run(pipeline, pipeline.start(reference, seed=6), sound, [PLAIN] * 3)
    late = pipeline.start(reference, seed=6, first_frame=12)
    assert (late.frame_index, late.latent_index, late.plan) == (
        state.frame_index,
        state.latent_index,
        state.plan,
    )
    one = pipeline._noise([late], 2, late.reference.lr_latents, stream=0)
    assert torch.equal(one, pipeline._noise([state], 2, state.reference.lr_latents, stream=0))
    with pytest.raises(ValueError, match="first_frame"):
        pipeline.start(reference, first_frame=6)
