import json

import pytest
import torch

from benchmarks import bench_kernels, kernel_cases
from benchmarks.kernel_cases import (
    AttentionCase,
    DualCase,
    I420Case,
    LowPassCase,
    ModulateCase,
    NormActCase,
    PoseCase,
    QKNormRopeCase,
)

TOY = ["--sizes", "toy", "--device", "cpu", "--seconds", "0"]


def test_toy_benchmark_runs_every_op_and_writes_results(tmp_path, capsys):
    rows = bench_kernels.main([*TOY, "--out", "toy", "--folder", str(tmp_path)])
    assert {row["op"] for row in rows} == set(bench_kernels.OPS)
    for row in rows:
        assert row["ms"] > 0 and row["share_of_copy"] > 0
        assert row["difference_from_ours"] <= (1 if row["op"] == "rgb_to_i420" else 1e-5)  # one step of a sample
        same = [r for r in rows if r["case"] == row["case"]]
        assert {"ours", "reference"} <= {r["implementation"] for r in same}
        assert same[0]["is_within_tolerance"] and same[0]["difference_from_reference"] < 1e-5
    written = json.loads((tmp_path / "toy.json").read_text())
    assert len(written["rows"]) == len(rows) and written["machine"]["torch"] and written["ceilings"]["copy_bytes"]
    assert "toy low-pass" in capsys.readouterr().out


def test_one_op_can_be_chosen():
    rows = bench_kernels.main([*TOY, "--op", "low_pass"])
    assert {row["case"] for row in rows} == {"toy low-pass"}


def test_a_kernel_that_differs_from_its_reference_is_told(monkeypatch, capsys):
    wrong = kernel_cases.norm_act
    monkeypatch.setattr(
        kernel_cases, "norm_act", lambda *inputs, backend=None: wrong(*inputs, backend=backend) + (backend is None)
    )
    rows = bench_kernels.main([*TOY, "--op", "norm_act"])
    assert [row["is_within_tolerance"] for row in rows if row["implementation"] == "ours"] == [False, False]
    assert "NOT EQUAL TO ITS REFERENCE" in capsys.readouterr().out


@pytest.mark.parametrize("sizes", bench_kernels.CASES)
def test_every_size_has_every_op(sizes):
    cases = bench_kernels.CASES[sizes]()
    assert {case.op for case in cases} == set(bench_kernels.OPS)
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.flop() > 0 and case.bytes(2) > 0 for case in cases)


def test_the_refiner_at_720p_attends_to_the_documented_window():
    """6 latents of 44 x 80 tokens: reference, 2 motion, 3 new; 4·L²·d·heads FLOP."""
    case = next(case for case in bench_kernels.CASES["720p"]() if case.name == "720p HR 28x64 bidirectional")
    assert case.flop() == 4 * (6 * 44 * 80) ** 2 * 64 * 28


@pytest.mark.parametrize(
    ("case", "pairs"),
    [
        (AttentionCase("all", 1, 1, 10, 12), 120),
        (AttentionCase("prefix", 1, 1, 10, 10, prefix_length=4), 4 * 4 + 6 * 10),
        (AttentionCase("cached", 1, 1, 6, 10, prefix_length=4, query_offset=4), 60),
        (AttentionCase("partly cached", 1, 1, 8, 10, prefix_length=4, query_offset=2), 2 * 4 + 6 * 10),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_flop_counts_visible_keys_only(case, pairs):
    assert case.visible_pairs() == pairs
    assert case.flop() == 4 * pairs


def test_bytes_count_inputs_and_output_once():
    assert AttentionCase("", 2, 8, 10, 12).bytes(2) == 2 * 8 * (10 + 12 + 12 + 10) * 2
    assert DualCase("", 2, 8, 3, 5, 7, 4, streams=2).bytes(2) == 2 * 8 * 2 * (15 + 7 + 2 * 3 * 4) * 2
    assert LowPassCase("", (1, 2, 3, 4, 5)).bytes(4) == 2 * 120 * 4
    assert ModulateCase("", 2, 3, 8).bytes(4) == (4 * 2 * 3 + 3 * 2) * 8 * 4
    assert QKNormRopeCase("", 2, 8, 5).bytes(2) == 4 * 80 * 2 + 2 * 5 * 4 * 4
    assert PoseCase("", 2, 3, 4).bytes(2) == 8 * 143 * 3 * 4 + 2 * 12 * 512 * 2
    assert I420Case("", 2, 4, 6).bytes(2) == 2 * 24 * 3 * 2 + 2 * 36
    assert NormActCase("", (1, 2, 3, 4), True).bytes(2) == 2 * 24 * 2


@pytest.mark.parametrize(
    "case", [case for case in bench_kernels.CASES["toy"]() if case.op != "attention"], ids=lambda case: case.name
)
def test_bytes_are_those_of_the_tensors(case):
    """What a call is given and returns, each once; small tables of gains and indices are left out."""
    run = case.call(torch.float32, torch.device("cpu"))
    result = run()
    results = (result,) if isinstance(result, torch.Tensor) else result
    given = [x for x in run.args if isinstance(x, torch.Tensor)]
    given += [x for pair in run.args if isinstance(pair, tuple) for x in pair if isinstance(x, torch.Tensor)]
    total = sum(x.numel() * x.element_size() for x in (*given, *results))
    assert case.bytes(4) <= total <= 1.05 * case.bytes(4) + 1024
