"""What is replayed is what would have been called; on a CPU a stand-in replays by calling once more."""

import logging

import pytest
import torch

from models.configs import SamplingConfig
from models.graphs import CudaGraphs, capture_cuda
from models.pipeline import AvatarPipeline
from models.presets import tiny
from tests.models.conftest import fill_zero_weights

CHUNK = 4 * 640
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def flat(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in flat(item)]


class Recorder:
    """Captures like CUDA: every replay reads the same inputs and writes the same results."""

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def __call__(self, run):
        self.captures += 1
        results = run()

        def replay() -> None:
            self.replays += 1
            for old, new in zip(flat(results), flat(run()), strict=True):
                old.copy_(new)

        for tensor in flat(results):
            tensor.zero_()  # nothing is there before the first replay
        return replay, results


def affine(x, scale, offset=None, pair=()):
    y = scale * x if offset is None else scale * x + offset
    return y, tuple(x.mean() + item for item in pair)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_same_shapes_share_a_capture_and_results_stay(recorder):
    graphs = CudaGraphs(recorder)
    one, two = torch.randn(2, 2, 3, 4)
    first, _ = graphs(affine, one, 2)
    second, (mean,) = graphs(affine, two, 2, pair=[torch.ones(2, 1)])
    third, _ = graphs(affine, two, 2)
    assert torch.equal(first, 2 * one) and torch.equal(second, 2 * two) and torch.equal(third, 2 * two)
    assert torch.allclose(mean, two.mean() + torch.ones(2, 1))
    assert (recorder.captures, recorder.replays) == (2, 3)


def test_shapes_types_and_other_arguments_have_captures_of_their_own(recorder):
    graphs = CudaGraphs(recorder)
    x = torch.randn(2, 3)
    calls = [((x, 2), {}), ((x.double(), 2), {}), ((x[:, :2], 2), {}), ((x, 3), {}), ((x, 2), {"offset": x})]
    for arguments, named in calls * 2:
        assert torch.equal(graphs(affine, *arguments, **named)[0], affine(*arguments, **named)[0])
    assert recorder.captures == len(calls)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_batches_are_filled_up_to_a_power_of_two(recorder, batch):
    graphs = CudaGraphs(recorder)

    def normalised(x, windows):
        assert len(x) in (1, 2, 4, 8) and len(windows) == 3 * len(x)
        return x / x.abs().amax(dim=1, keepdim=True), windows + 1

    for _ in range(2):
        x, windows = torch.randn(batch, 4), torch.randn(3 * batch, 2)
        y, more = graphs(normalised, x, windows)
        assert torch.equal(y, x / x.abs().amax(dim=1, keepdim=True)) and torch.equal(more, windows + 1)
    assert recorder.captures == 1


def test_the_graph_that_is_unused_for_longest_goes_first(recorder):
    graphs = CudaGraphs(recorder, most=2)
    for size in (1, 2, 1, 3, 1):
        graphs(affine, torch.zeros(1, size), 1)
    assert recorder.captures == 3
    graphs(affine, torch.zeros(1, 2), 1)
    assert recorder.captures == 4


def test_what_cannot_be_captured_is_called_with_one_warning(caplog):
    tries = []

    def refuse(run):
        tries.append(run)
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = CudaGraphs(refuse)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(graphs(affine, torch.ones(1, 2), 3)[0], torch.full((1, 2), 3.0))
    assert len(tries) == 1
    assert [record.message for record in caplog.records] == [
        "affine runs without a CUDA graph, since it could not be captured: "
        "operation not permitted when stream is capturing"
    ]


def chunks(pipeline: AvatarPipeline, reference, sound, sampling: SamplingConfig) -> list[torch.Tensor]:
    """Four chunks of two streams together; the last of one alone."""
    states, frames = [pipeline.start(reference, "happy", seed=1), pipeline.start(1 - reference, seed=2)], []
    for k in range(4):
        streams = slice(0, 1 if k == 3 else 2)
        parts = [sound[k * CHUNK : (k + 1) * CHUNK]] * len(states[streams])
        made = pipeline.step_batch(parts, states[streams], sampling)
        states[streams] = [chunk.state for chunk in made]
        frames += [chunk.frames for chunk in made]
    return frames


@pytest.mark.parametrize("is_refined", [True, False])
def test_chunks_of_a_pipeline_come_out_as_without(pipeline, reference, sound, recorder, monkeypatch, is_refined):
    sampling = SamplingConfig(lr_steps=2, is_refined=is_refined)
    plain = chunks(pipeline, reference, sound, sampling)
    monkeypatch.setattr(pipeline, "graphs", CudaGraphs(recorder))
    for one, other in zip(chunks(pipeline, reference, sound, sampling), plain, strict=True):
        assert (one - other).abs().max() < 1e-5
    assert recorder.captures < recorder.replays
    captures = recorder.captures
    chunks(pipeline, reference, sound, sampling)
    assert recorder.captures == captures  # the first chunk's and the steady one's serve every stream


@needs_cuda
def test_chunks_on_cuda_come_out_as_without(reference, sound, caplog):
    torch.manual_seed(0)
    pipeline, sampling = AvatarPipeline(tiny(), "cuda"), SamplingConfig(lr_steps=2)
    for component in (pipeline.vae, pipeline.lr_a2v, pipeline.refiner):
        fill_zero_weights(component)
    plain = chunks(pipeline, reference, sound, sampling)
    pipeline.graphs = CudaGraphs()
    for one, other in zip(chunks(pipeline, reference, sound, sampling), plain, strict=True):
        assert (one - other).abs().max() < 1e-3
    assert not caplog.records  # everything was captured


@needs_cuda
def test_a_captured_call_on_cuda_is_the_call():
    layer = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 8)).cuda()
    graphs = CudaGraphs(capture_cuda)
    with torch.inference_mode():
        for _ in range(3):
            x = torch.randn(3, 64, device="cuda")
            assert torch.allclose(graphs(layer, x), layer(x), atol=1e-6)
