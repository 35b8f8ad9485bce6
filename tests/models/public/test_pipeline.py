import dataclasses

import pytest
import torch

from models.public.loading import load_public
from models.public.pipeline import FlashHeadPipeline
from models.talking import Rung
from tests.models.public import tiny_folders

FOLDERS = {"pro": "SoulX-FlashHead-1_3B/Model_Pro", "lite": "SoulX-FlashHead-1_3B/Model_Lite", "leaptalk": "leaptalk"}
SIZE = (64, 64)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return tiny_folders.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=FOLDERS)
def pipeline(tree, request) -> FlashHeadPipeline:
    return load_public(tree / FOLDERS[request.param], frame_size=SIZE)


@pytest.fixture(scope="module")
def lite(tree) -> FlashHeadPipeline:
    """The one that costs least."""
    return load_public(tree / FOLDERS["lite"], frame_size=SIZE)


def picture(seed=0):
    return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 0.6 + 0.2


def sound(pipeline, chunk, seed=0):
    generator = torch.Generator().manual_seed(100 * seed + chunk)
    return torch.randn(pipeline.fixed_latents * 2560, generator=generator) * 0.1


def test_a_chunk_has_the_families_length_and_follows_the_sound(pipeline):
    state = pipeline.start(picture(), seed=1)
    frames, after, stage_ms = pipeline.step(sound(pipeline, 0), state)
    assert frames.shape == (4 * pipeline.fixed_latents, 3, 64, 64) and frames.dtype == torch.float32
    assert 0 <= frames.min() and frames.max() <= 1
    assert after.frame_index == len(frames) and stage_ms.keys() == {"audio", "denoise", "decode", "encode"}
    assert pipeline.fixed_latents == {5: 7, 9: 6}[pipeline.shape.motion_frames]


def test_other_sound_makes_other_frames(lite):
    state = lite.start(picture(), seed=1)
    one, other = (lite.step(sound(lite, 0, seed), state).frames for seed in (0, 1))
    assert (other - one).abs().max() > 1e-3


def test_a_step_leaves_its_state_as_it_was(lite):
    state = lite.start(picture(), seed=1)
    first = lite.step(sound(lite, 0), state).frames
    assert torch.equal(lite.step(sound(lite, 0), state).frames, first)


def test_two_sessions_at_once_are_two_sessions_alone(lite):
    def alone(seed):
        state, made = lite.start(picture(), seed=seed), []
        for chunk in range(2):
            frames, state, _ = lite.step(sound(lite, chunk, seed), state)
            made.append(frames)
        return torch.cat(made)

    states, interleaved = [lite.start(picture(), seed=seed) for seed in (3, 3, 4)], [[], [], []]
    for chunk in range(2):
        for row, seed in enumerate((3, 3, 4)):
            frames, states[row], _ = lite.step(sound(lite, chunk, seed), states[row])
            interleaved[row].append(frames)
    first, twin, other = (torch.cat(made) for made in interleaved)
    assert torch.equal(first, twin) and torch.equal(first, alone(3)) and torch.equal(other, alone(4))
    assert not torch.equal(first, other)


def test_a_batch_makes_what_each_stream_would_make(lite):
    states = [lite.start(picture(seed), seed=seed) for seed in range(3)]
    states[1] = lite.step(sound(lite, 9), states[1]).state  # this one is past its start
    sounds = [sound(lite, 0, seed) for seed in range(3)]
    for together, samples, state in zip(lite.step_batch(sounds, states), sounds, states, strict=True):
        alone = lite.step(samples, state)
        torch.testing.assert_close(together.frames, alone.frames, atol=2e-4, rtol=0)
        assert together.state.frame_index == alone.state.frame_index


def test_half_the_steps_make_other_frames(lite):
    state = lite.start(picture(), seed=1)
    assert lite.rungs == (Rung.FULL, Rung.NO_REFINER)
    full, cheap = (lite.step(sound(lite, 0), state, rung).frames for rung in lite.rungs)
    assert (full - cheap).abs().max() > 1e-3


def test_one_step_has_no_cheaper_rung_and_no_noise(tree):
    leap = load_public(tree / FOLDERS["leaptalk"], frame_size=SIZE)
    assert leap.rungs == (Rung.FULL,)
    state = leap.start(picture(), seed=1)
    made = [leap.step(sound(leap, 0), dataclasses.replace(state, seed=seed)).frames for seed in (1, 2)]
    assert torch.equal(*made)


def test_hold_hears_and_stands_still(lite):
    state = lite.start(picture(), seed=1)
    held = lite.hold(sound(lite, 0), state)
    assert held.frame_index == 24 and held.prefix is state.prefix
    assert torch.equal(held.ring.samples[-24 * 640 :], sound(lite, 0))


def test_another_picture_starts_from_itself_and_goes_on_hearing(lite):
    state = lite.step(sound(lite, 0), lite.start(picture(), seed=1)).state
    changed = lite.set_reference(state, picture(1))
    assert changed.frame_index == state.frame_index and changed.ring is state.ring
    assert changed.prefix.shape[2] == 1
    assert torch.equal(lite.still(changed), lite.still(lite.start(picture(1))))


def test_the_still_is_the_picture(lite):
    torch.testing.assert_close(lite.still(lite.start(picture()))[0], picture())


def test_frames_have_the_colours_of_the_picture(lite):
    frames = lite.step(sound(lite, 0), lite.start(picture(), seed=1)).frames
    torch.testing.assert_close(frames.mean(dim=(0, 2, 3)), picture().mean(dim=(1, 2)), atol=0.05, rtol=0)


def test_pictures_of_any_size_are_cut_to_the_frame(lite):
    large = (torch.rand(130, 90, 3) * 255).to(torch.uint8)
    assert lite.prepare(large).picture.shape == (1, 3, 1, 64, 64)
    assert lite.prepare(torch.rand(3, 80, 100)).picture.shape == (1, 3, 1, 64, 64)
    with pytest.raises(ValueError, match="uint8"):
        lite.prepare(torch.zeros(64, 64))


@pytest.mark.parametrize("samples", [0, 2560, 24 * 640 - 1])
def test_a_chunk_of_another_length_is_refused(lite, samples):
    with pytest.raises(ValueError, match="15360"):
        lite.step(torch.zeros(samples), lite.start(picture()))


def test_options_out_of_range_are_refused(lite, tree):
    with pytest.raises(ValueError, match="chunk_latents must be 6"):
        lite.start(picture(), chunk_latents=2)
    with pytest.raises(ValueError, match="every stream"):
        lite.step_batch([], [lite.start(picture())])
    with pytest.raises(ValueError, match="multiples"):
        load_public(tree / FOLDERS["lite"], frame_size=(60, 60))
    with pytest.raises(ValueError, match="precision"):
        load_public(tree / FOLDERS["lite"], precision="fp4", frame_size=SIZE)


def test_frames_can_be_made_in_bf16(tree):
    made = load_public(tree / FOLDERS["lite"], precision="bf16", frame_size=SIZE)
    frames = made.step(sound(made, 0), made.start(picture(), seed=1)).frames
    assert torch.isfinite(frames).all() and frames.std() > 0.01


def test_a_state_is_of_constant_size(lite):
    state = lite.step(sound(lite, 0), lite.start(picture())).state
    later = lite.step(sound(lite, 1), state).state
    sizes = [
        {f.name: getattr(one, f.name).shape for f in dataclasses.fields(one) if f.name == "prefix"}
        | {"ring": one.ring.samples.shape, "held": one.prefix.untyped_storage().nbytes()}
        for one in (state, later)
    ]
    assert sizes[0] == sizes[1]
