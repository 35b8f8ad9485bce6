import json

import pytest

from benchmarks import bench_kernels
from benchmarks.bench_kernels import AttentionCase, LowPassCase


def test_toy_benchmark_runs_every_case_and_writes_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_kernels, "RESULTS", tmp_path)
    arguments = ["--sizes", "toy", "--device", "cpu", "--seconds", "0", "--out", "toy"]
    rows = bench_kernels.main(arguments)
    assert {row["case"] for row in rows} == {case.name for case in bench_kernels.CASES["toy"]}
    for row in rows:
        assert row["ms"] > 0 and row["difference_from_ours"] < 1e-5
        assert {"ours", "reference"} <= {r["implementation"] for r in rows if r["case"] == row["case"]}
    written = json.loads((tmp_path / "toy.json").read_text())
    assert len(written["rows"]) == len(rows) and written["machine"]["torch"]
    assert "toy low-pass" in capsys.readouterr().out


def test_one_op_can_be_chosen():
    rows = bench_kernels.main(["--sizes", "toy", "--device", "cpu", "--seconds", "0", "--op", "low_pass"])
    assert {row["case"] for row in rows} == {"toy low-pass"}


@pytest.mark.parametrize(
    ("case", "pairs"),
    [
        (AttentionCase("all", 1, 1, 10, 12), 120),
        (AttentionCase("prefix", 1, 1, 10, 10, prefix_length=4), 4 * 4 + 6 * 10),
        (AttentionCase("cached", 1, 1, 6, 10, prefix_length=4, query_offset=4), 60),
        (AttentionCase("partly cached", 1, 1, 8, 10, prefix_length=4, query_offset=2), 2 * 4 + 6 * 10),
        (AttentionCase("audio", 1, 1, 6, 8, audio_frames=2), 3 * (6 + 6)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_flop_counts_visible_keys_only(case, pairs):
    assert case.visible_pairs() == pairs
    assert case.flop() == 4 * pairs


def test_bytes_count_inputs_and_output_once():
    assert AttentionCase("", 2, 8, 10, 12).bytes(2) == 2 * 8 * (10 + 12 + 12 + 10) * 2
    assert LowPassCase("", (1, 2, 3, 4, 5)).bytes(4) == 2 * 120 * 4
