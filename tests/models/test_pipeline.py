import copy
import dataclasses

import pytest
import torch

from models.configs import UNDISTILLED, SamplingConfig
from models.pipeline import AvatarPipeline

CHUNK = 4 * 640


def run(pipeline: AvatarPipeline, state, sound: torch.Tensor, sizes: list[int], **options):
    """Frames of consecutive steps of the given sizes in latents."""
    frames, position = [], 0
    for size in sizes:
        part, state, _ = pipeline.step(sound[position : position + size * CHUNK], state, **options)
        frames.append(part)
        position += size * CHUNK
    return torch.cat(frames), state


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_every_chunk_size_gives_all_frames_in_range(pipeline, reference, sound, size):
    state = pipeline.start(reference, "happy", seed=3, chunk_latents=size)
    frames, state = run(pipeline, state, sound, [size] * (12 // size))
    assert frames.shape == (48, 3, 96, 96)
    assert frames.min() >= 0 and frames.max() <= 1
    assert state.frame_index == 48 - pipeline.delay_frames


def test_later_sound_cannot_change_frames_before_the_look_ahead(pipeline, reference, sound):
    changed = sound.clone()
    changed[24 * 640 :] = 0
    state = pipeline.start(reference)
    before, _ = run(pipeline, state, sound, [1] * 12)
    after, _ = run(pipeline, state, changed, [1] * 12)
    assert torch.equal(before[:24], after[:24])
    assert not torch.equal(before[24:28], after[24:28])


def test_step_leaves_its_state_alone(pipeline, reference, sound):
    state = pipeline.start(reference)
    first, _, _ = pipeline.step(sound[:CHUNK], state)
    again, _, _ = pipeline.step(sound[:CHUNK], state)
    assert torch.equal(first, again)


def test_streams_on_one_pipeline_do_not_touch_each_other(pipeline, reference, sound):
    alone, _ = run(pipeline, pipeline.start(reference, seed=1), sound, [2] * 4)
    one, other = pipeline.start(reference, seed=1), pipeline.start(1 - reference, seed=2)
    mixed = []
    for k in range(4):
        part = sound[2 * k * CHUNK : 2 * (k + 1) * CHUNK]
        frames, one, _ = pipeline.step(part, one)
        _, other, _ = pipeline.step(part.flip(0), other)
        mixed.append(frames)
    assert torch.equal(torch.cat(mixed), alone)


def test_copied_state_goes_on_like_the_original(pipeline, reference, sound):
    _, state = run(pipeline, pipeline.start(reference), sound, [3])
    copied = copy.deepcopy(state)
    one, _, _ = pipeline.step(sound[3 * CHUNK : 4 * CHUNK], state)
    two, _, _ = pipeline.step(sound[3 * CHUNK : 4 * CHUNK], copied)
    assert torch.equal(one, two)


def test_state_does_not_grow(pipeline, reference, sound):
    def size(state) -> int:
        tensors = [v for v in vars(state).values() if isinstance(v, torch.Tensor)]
        tensors += [*state.lr_cache, *state.hr_cache, state.audio.samples, state.audio.mels]
        return sum(t.numel() for t in tensors)

    _, early = run(pipeline, pipeline.start(reference), sound, [3])
    _, late = run(pipeline, early, sound, [3] * 4)
    assert size(early) == size(late)


def test_seed_decides_the_motion(pipeline, reference, sound):
    one, _, _ = pipeline.step(sound[:CHUNK], pipeline.start(reference, seed=1))
    two, _, _ = pipeline.step(sound[:CHUNK], pipeline.start(reference, seed=2))
    assert not torch.allclose(one, two)


def test_noise_of_a_latent_does_not_depend_on_the_chunk(pipeline, reference):
    state = pipeline.start(reference, seed=9)
    together = pipeline._noise([state], 3, state.reference.lr_latents, stream=0)
    alone = pipeline._noise([dataclasses.replace(state, latent_index=2)], 1, state.reference.lr_latents, stream=0)
    assert torch.allclose(together[:, :, 2:], alone)


def test_guided_many_step_path_runs(pipeline, reference, sound):
    few = dataclasses.replace(UNDISTILLED, lr_steps=3, refiner_steps=2)
    guided_frames, _, _ = pipeline.step(sound[:CHUNK], pipeline.start(reference, "sad"), few)
    plain, _, _ = pipeline.step(sound[:CHUNK], pipeline.start(reference, "sad"), SamplingConfig(3, 2))
    assert guided_frames.shape == plain.shape
    assert not torch.allclose(guided_frames, plain)


@pytest.mark.parametrize("samples", [0, 1, CHUNK - 1, 7 * CHUNK])
def test_sound_of_a_wrong_length_is_refused(pipeline, reference, samples):
    with pytest.raises(ValueError, match="samples"):
        pipeline.step(torch.zeros(samples), pipeline.start(reference))


def test_reference_of_a_wrong_size_is_refused(pipeline):
    with pytest.raises(ValueError, match="reference"):
        pipeline.start(torch.rand(3, 32, 32))
