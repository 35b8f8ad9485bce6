"""Two chunks on the way at once give the frames of one after the other."""

import threading

import pytest
import torch

from models.configs import SamplingConfig
from models.overlap import overlapped
from models.pipeline import AvatarPipeline
from models.presets import tiny
from tests.models.conftest import fill_zero_weights
from tests.models.test_batch import SAMPLINGS, assert_same

CHUNK = 4 * 640


def parts(sound: torch.Tensor) -> list[torch.Tensor]:
    """Chunks of one, two, one, … latents."""
    edges = [0, 1, 3, 4, 6, 7]
    return [sound[first * CHUNK : end * CHUNK] for first, end in zip(edges, edges[1:], strict=False)]


@pytest.mark.parametrize("name", SAMPLINGS)
def test_frames_and_states_are_those_of_one_after_the_other(pipeline, reference, sound, name):
    expected, state = [], pipeline.start(reference, "happy", seed=1)
    for samples in parts(sound):
        expected.append(pipeline.step(samples, state, SAMPLINGS[name]))
        state = expected[-1].state
    found = list(overlapped(pipeline, parts(sound), pipeline.start(reference, "happy", seed=1), SAMPLINGS[name]))
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other)


def test_goes_on_where_a_stream_is(pipeline, reference, sound):
    _, state, _ = pipeline.step(sound[:CHUNK], pipeline.start(reference))
    (chunk,) = overlapped(pipeline, [sound[CHUNK : 2 * CHUNK]], state)
    assert_same(chunk, pipeline.step(sound[CHUNK : 2 * CHUNK], state))
    assert list(overlapped(pipeline, [], state)) == []


def test_the_next_lr_half_runs_while_this_hr_half_does(pipeline, reference, sound, monkeypatch):
    starts, second, met = [], threading.Event(), []
    draft, finish = pipeline.draft, pipeline.finish

    def counted_draft(*arguments):
        starts.append(threading.current_thread())
        if len(starts) == 2:
            second.set()
        return draft(*arguments)

    def waiting_finish(drafted):
        met.append(second.wait(20))  # only another thread can set it
        return finish(drafted)

    monkeypatch.setattr(pipeline, "draft", counted_draft)
    monkeypatch.setattr(pipeline, "finish", waiting_finish)
    next(overlapped(pipeline, [sound[:CHUNK], sound[CHUNK : 2 * CHUNK]], pipeline.start(reference)))
    assert met == [True] and threading.current_thread() not in starts


def test_stage_times_are_of_the_chunk_itself(pipeline, reference, sound):
    chunks = list(overlapped(pipeline, parts(sound), pipeline.start(reference)))
    for chunk in chunks:
        assert {"lr_a2v", "refiner", "decode"} <= chunk.stage_ms.keys()
    assert chunks[-1].stage_ms["refiner"] < sum(chunk.stage_ms["refiner"] for chunk in chunks)


def test_bad_sound_is_an_error_and_leaves_no_thread(pipeline, reference, sound):
    before = threading.active_count()
    with pytest.raises(ValueError, match="samples"):
        list(overlapped(pipeline, [sound[:CHUNK], sound[:7]], pipeline.start(reference), SamplingConfig()))
    assert threading.active_count() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_halves_on_two_cuda_streams_do_not_read_early(reference, sound):
    torch.manual_seed(0)
    pipeline = AvatarPipeline(tiny(), "cuda")
    for component in (pipeline.vae, pipeline.lr_a2v, pipeline.refiner):
        fill_zero_weights(component)
    state, chunks = pipeline.start(reference, seed=1), [sound[k * CHUNK : (k + 1) * CHUNK] for k in range(12)]
    for frames, after, _ in overlapped(pipeline, list(chunks), state):
        expected, state, _ = pipeline.step(chunks.pop(0), state)
        assert (frames - expected).abs().max() < 1e-3 and after.frame_index == state.frame_index
