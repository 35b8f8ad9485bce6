import json
import os
from dataclasses import replace

import pytest
import torch

from benchmarks import bench_chunk, bench_sessions
from models.graphs import CudaGraphs
from models.pipeline import AvatarPipeline
from models.presets import preset

CPU = ["--preset", "tiny", "--device", "cpu"]


def test_chunk_is_timed_by_stage_beside_plain_pytorch(tmp_path, capsys):
    bench_chunk.main([*CPU, "--n", "1", "--chunks", "4", "--out", "chunk-1.3b", "--folder", str(tmp_path)])
    written = json.loads((tmp_path / "chunk-1.3b.json").read_text())
    for times in (written["ours"], written["plain"]):
        assert {"audio", "lr_a2v", "lr_decode", "pose", "refiner", "decode", "i420"} <= set(times["stage_ms"])
        assert all(ms > 0 for ms in times["stage_ms"].values())
        assert times["rtf"] == pytest.approx(times["chunk_ms"] / 160)
        assert times["first_chunk_ms"] > 0 and times["setup_ms"] > 0 and times["peak_memory_mb"] > 0
    assert written["speedup"] == pytest.approx(written["plain"]["chunk_ms"] / written["ours"]["chunk_ms"])
    assert (
        written["overlapped"]["rtf"] == pytest.approx(written["overlapped"]["chunk_ms"] / 160) and not written["is_fp8"]
    )
    assert written["settings"] == {"n": 1, "m": 1, "lr_steps": 1}
    assert "times as fast as plain PyTorch" in capsys.readouterr().out


def test_flop_are_counted_by_model():
    counts = [
        bench_chunk.count_flop(AvatarPipeline(bench_chunk.chosen_preset(bench_chunk.parse([*CPU, *more]))))
        for more in (["--n", "1"], ["--n", "1", "--steps", "2"])
    ]
    assert all(count > 0 for count in counts[0].values())
    assert counts[0]["all"] > counts[0]["LRA2V"] + counts[0]["PGRefiner"] + counts[0]["Decoder"]
    assert set(counts[0]) == {"LRA2V", "PGRefiner", "Decoder", "all"}
    assert counts[1]["LRA2V"] == 2 * counts[0]["LRA2V"] and counts[1]["PGRefiner"] == counts[0]["PGRefiner"]


def test_a_kept_prefix_is_counted_once():
    config = bench_chunk.chosen_preset(bench_chunk.parse([*CPU, "--n", "2", "--steps", "4"]))
    causal = replace(config.lr_a2v.transformer, prefix_causal=True)
    pipeline = AvatarPipeline(replace(config, lr_a2v=replace(config.lr_a2v, transformer=causal)))
    kept = bench_chunk.count_flop(pipeline)["LRA2V"]
    pipeline.keeps_prefix = False
    every_time = bench_chunk.count_flop(pipeline)["LRA2V"]
    assert 0.5 < kept / every_time < 0.72  # latents gone over: 2 + 4 · 2 instead of 4 · 4
    assert not pipeline.keeps_prefix and "call" not in vars(pipeline)


@pytest.mark.parametrize(("name", "layers", "heads", "head_dim"), [("1.3b", 30, 12, 128), ("2b", 28, 28, 64)])
def test_the_refiner_can_have_another_shape(name, layers, heads, head_dim):
    options = ["--preset", "paper-720p", "--device", "cpu", "--refiner", name, "--n", "4", "--m", "1"]
    config = bench_chunk.chosen_preset(bench_chunk.parse(options))
    shape = config.refiner.transformer
    assert (shape.layers, shape.heads, shape.head_dim) == (layers, heads, head_dim)
    assert shape.prefix_causal and (config.chunk_latents, config.motion_latents) == (4, 1)


def test_plain_pytorch_is_told_to_the_kernels_and_taken_back(monkeypatch):
    monkeypatch.delenv("KERNELS_BACKEND", raising=False)
    pipeline = AvatarPipeline(preset("tiny"))
    pipeline.graphs = graphs = CudaGraphs()
    with bench_chunk.plain_pytorch(pipeline):
        assert os.environ["KERNELS_BACKEND"] == "torch"
        assert pipeline.graphs is None and not pipeline.keeps_prefix
    assert "KERNELS_BACKEND" not in os.environ
    assert pipeline.graphs is graphs and pipeline.keeps_prefix


def test_too_few_chunks_are_refused(capsys):
    with pytest.raises(SystemExit):
        bench_chunk.parse([*CPU, "--chunks", "3"])
    assert "at least 4 chunks" in capsys.readouterr().err


def test_sessions_are_counted_in_turn_and_in_batches(tmp_path):
    options = ["--n", "1", "--largest", "2", "--seconds", "0", "--chunks", "3", "--out", "sessions"]
    result = bench_sessions.main([*CPU, *options, "--folder", str(tmp_path)])
    assert result["batches"][0]["batch"] == 1 and result["in_turn"]["ms"] > 0
    assert result["sessions"]["in_batches"] == max(row["sessions"] for row in result["batches"])
    assert json.loads((tmp_path / "sessions.json").read_text())["preset"] == "tiny"


@pytest.mark.parametrize(
    ("batch", "ms", "sessions"), [(1, 100.0, 4), (1, 500.0, 0), (8, 100.0, 32), (16, 480.0, 16), (16, 481.0, 0)]
)
def test_sessions_get_every_chunk_in_time(batch, ms, sessions):
    assert bench_sessions.row_of(batch, ms, 480.0)["sessions"] == sessions


def test_sessions_of_a_batch_are_steady_and_differ():
    torch.manual_seed(0)
    pipeline = AvatarPipeline(preset("tiny"))
    for parameter in pipeline.refiner.head.parameters():  # zeros at first: no noise would come through
        torch.nn.init.normal_(parameter, std=0.05)
    states, samples = bench_sessions.steady_states(pipeline, 2), bench_sessions.sounds(pipeline, 2)
    assert [state.motion_counts for state in states] == [(1, 1), (1, 1)]
    planes = bench_sessions.batched_chunk(pipeline, samples, states)
    assert planes.shape == (24, 144, 96) and planes.dtype == torch.uint8
    assert not torch.equal(planes[:12], planes[12:])
