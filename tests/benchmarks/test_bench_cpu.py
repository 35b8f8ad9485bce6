import json

import pytest
import torch

from benchmarks import bench_cpu
from models.pipeline import AvatarPipeline
from models.presets import preset


def test_a_stream_is_timed_by_stage_and_written(tmp_path, capsys):
    options = ["--preset", "tiny", "--seconds", "0", "--n", "1", "--out", "cpu", "--folder", str(tmp_path)]
    bench_cpu.main(options)
    written = json.loads((tmp_path / "cpu.json").read_text())
    times = written["pipelines"]["plain fp32"]
    assert times["chunks"] == 3 and times["rtf"] == pytest.approx(times["chunk_ms"] / 160)
    assert set(written["floor_ms"]) == set(bench_cpu.FLOOR_STAGES) < set(times["stage_ms"])
    assert all(0 < written["floor_ms"][stage] for stage in bench_cpu.FLOOR_STAGES)
    assert written["speedup"] == 1  # a preset without weights has one pipeline
    assert "as it serves" in capsys.readouterr().out


def test_flop_by_stage_are_those_of_the_whole():
    pipeline = AvatarPipeline(preset("tiny"))
    with torch.inference_mode():
        flop = bench_cpu.count_stage_flop(pipeline, 2)
        chunk = pipeline.step(torch.zeros(5120), pipeline.start(torch.zeros(3, 96, 96)))
    assert {"audio", *bench_cpu.FLOOR_STAGES} <= set(flop)
    assert flop["decode"] == 4 * flop["lr_decode"]
    assert chunk.stage_ms["decode"] > 0  # the pipeline counts time again


def test_pipelines_get_the_same_sound_and_are_compared():
    torch.manual_seed(0)
    one = AvatarPipeline(preset("tiny"))
    other = AvatarPipeline(preset("tiny"))
    with torch.inference_mode():
        streams = bench_cpu.time_streams({"one": one, "again": one, "other": other}, 1, 0.0)
    summaries = {label: stream.summary(160.0) for label, stream in streams.items()}
    assert summaries["again"]["psnr_db"] == summaries["one"]["psnr_db"] == pytest.approx(140)
    assert summaries["other"]["psnr_db"] < 100
