"""Time the kernels beside their references and PyTorch's own, with bytes and FLOP counted first.

    python -m benchmarks.bench_kernels [--sizes toy|256|512|720p] [--dtype bf16|fp16|fp32] [--op OP]
                                       [--compile] [--tiles] [--out NAME]

On a CUDA device the default is the shapes of `paper-720p`, on a CPU toy shapes. Every implementation is compared
with the first one ("ours"), and that with the reference, before it is timed. `--compile` adds the references under
torch.compile (of the first case of each op: compiling takes long), `--tiles` the attention kernels with other tiles
(CUDA). `--out NAME` writes NAME.json with the machine to `--folder`, by default benchmarks/results.

Times are medians of single calls, on CUDA between two events on the stream, with a 256 MiB write before each call
so that inputs come from memory. Bytes are each input and the output once; FLOP of attention are the two matrix
products over the keys each query may see. The last column is the share of what the machine can do at best, measured
in the same run: for attention of a large matrix product, for the other ops of a large copy.

Exit code 1 if a kernel differs from its reference by more than the stated tolerance.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernel_cases import (
    TOLERANCES,
    Case,
    LowPassCase,
    NormActCase,
    Result,
    preset_cases,
    window_cases,
)
from benchmarks.timing import (
    DTYPES,
    RESULTS,
    Ceilings,
    describe_machine,
    measure_ceilings,
    print_machine,
    time_call,
    write_results,
)
from models.presets import preset

OPS = (
    "attention", "dual_cross_attention", "low_pass", "modulate", "qk_norm_rope", "pose_tokens", "rgb_to_i420",
    "norm_act",
)  # fmt: skip
BOUND_BY_PRODUCTS = ("attention", "dual_cross_attention")


def _norm_act_cases(label: str, shape: tuple[int, ...]) -> list[Case]:
    """The widest activations of a Wan-style decoder: its last level, one latent at a time."""
    layouts = ((False, "channels first"), (True, "channels last"))
    return [NormActCase(f"{label} norm, act, {name}", shape, is_last) for is_last, name in layouts]


CASES: dict[str, Callable[[], list[Case]]] = {
    "toy": lambda: [*preset_cases(preset("tiny"), "toy"), *_norm_act_cases("toy", (1, 24, 2, 5, 6))],
    "256": lambda: [*preset_cases(preset("presenter-256"), "256"), *_norm_act_cases("256", (1, 96, 4, 256, 256))],
    "512": lambda: [*preset_cases(preset("presenter-512"), "512"), *_norm_act_cases("512", (1, 96, 4, 512, 512))],
    "720p": lambda: [
        *preset_cases(preset("paper-720p"), "720p"),
        *window_cases("720p HR 12x128", 12, 128, 44 * 80, 6, 3),  # the 1.3B shape
        LowPassCase("720p low-pass beyond the L2", (512, 16, 3, 44, 80)),
        *_norm_act_cases("720p", (1, 96, 4, 704, 1280)),
    ],
}


def largest_difference(found: Result, expected: Result, is_relative: bool = False) -> float:
    """Largest difference of two results; relative: to 1 + the magnitude of what is expected."""
    pairs = zip(_parts(found), _parts(expected), strict=True)
    differences = []
    for one, other in pairs:
        difference = (one.float() - other.float()).abs()
        differences.append(float((difference / (1 + other.float().abs()) if is_relative else difference).max()))
    return max(differences)


def _parts(result: Result) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else result


def bench_case(
    case: Case,
    dtype: torch.dtype,
    device: torch.device,
    ceilings: Ceilings,
    seconds: float,
    is_compiled: bool = False,
    has_tiles: bool = False,
) -> Iterator[dict[str, Any]]:
    """One row an implementation; one that cannot run here gives its reason instead of times."""
    flop, size = case.flop(), case.bytes(dtype.itemsize)
    runs = [*case.runs(dtype, device, has_tiles)]
    if is_compiled and runs[-1][0] == "reference":
        runs.append(("compiled reference", _compiled(runs[-1][1])))
    ours: Result | None = None
    for name, run in runs:
        row: dict[str, Any] = {"case": case.name, "op": case.op, "implementation": name, "flop": flop, "bytes": size}
        try:
            result = run()
            if ours is None:
                ours = result
                row["difference_from_reference"] = largest_difference(*case.checked(ours, dtype, device), True)
                row["tolerance"] = TOLERANCES[dtype]
                row["is_within_tolerance"] = row["difference_from_reference"] <= TOLERANCES[dtype]
            row["difference_from_ours"] = largest_difference(result, ours)
            del result
            ms = time_call(run, device, seconds)
        except (RuntimeError, ImportError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            yield row | {"error": reason[0]}
            continue
        row |= {"ms": ms, "gflop_per_s": flop / ms / 1e6, "gbyte_per_s": size / ms / 1e6}
        row["share_of_matmul"] = row["gflop_per_s"] / ceilings.matmul_gflop_per_s
        row["share_of_copy"] = row["gbyte_per_s"] / ceilings.copy_gbyte_per_s
        yield row


def _compiled(run: Callable[[], Result]) -> Callable[[], Result]:
    assert isinstance(run, partial)
    return partial(torch.compile(run.func, dynamic=False), *run.args, **run.keywords)


def format_row(row: dict[str, Any]) -> str:
    head = f"{row['case'][:34]:<34} {row['implementation']:<22}"
    if "error" in row:
        return f"{head} - {row['error'][:80]}"
    share = row["share_of_matmul" if row["op"] in BOUND_BY_PRODUCTS else "share_of_copy"]
    verdict = "" if row.get("is_within_tolerance", True) else "  NOT EQUAL TO ITS REFERENCE"
    return (
        f"{head} {row['ms']:>10.4f} {row['gflop_per_s']:>10.1f} {row['gbyte_per_s']:>9.1f} "
        f"{row['difference_from_ours']:>9.1e} {share:>6.1%}{verdict}"
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=list(CASES), help="default: 720p on CUDA, toy on a CPU")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bf16 on CUDA, fp32 on a CPU")
    parser.add_argument("--op", choices=OPS, action="append", help="may be given again; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=0.5, help="time spent on each implementation")
    parser.add_argument("--compile", action="store_true", help="add the references under torch.compile")
    parser.add_argument("--tiles", action="store_true", help="add other tiles of the attention kernels (CUDA)")
    parser.add_argument("--out", metavar="NAME", help="name of the JSON file")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where it goes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark and print its table; returns the rows."""
    arguments = parse(argv)
    device = torch.device(arguments.device)
    sizes = arguments.sizes or ("720p" if device.type == "cuda" else "toy")
    dtype_name = arguments.dtype or ("bf16" if device.type == "cuda" else "fp32")
    dtype = DTYPES[dtype_name]

    machine = describe_machine(device)
    print_machine(machine, dtype_name)
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        ceilings = measure_ceilings(device, dtype, arguments.seconds, is_toy=sizes == "toy")
        print(
            f"at best: {ceilings.matmul_gflop_per_s:.1f} GFLOP/s in a product of {ceilings.matmul_size},"
            f" {ceilings.copy_gbyte_per_s:.1f} GB/s in a copy of {ceilings.copy_bytes / 1e6:.4g} MB"
        )
        head = ("ms", "GFLOP/s", "GB/s", "max diff", "share")
        print("{:<34} {:<22} {:>10} {:>10} {:>9} {:>9} {:>6}".format("case", "implementation", *head))
        compiled: set[str] = set()
        for case in CASES[sizes]():
            if arguments.op and case.op not in arguments.op:
                continue
            print(f"{case.name}: {case.flop() / 1e9:.4g} GFLOP, {case.bytes(dtype.itemsize) / 1e6:.4g} MB")
            is_compiled = arguments.compile and case.op not in compiled
            compiled.add(case.op)
            for row in bench_case(case, dtype, device, ceilings, arguments.seconds, is_compiled, arguments.tiles):
                rows.append(row | {"dtype": dtype_name, "settings": asdict(case)})  # type: ignore[call-overload]
                print(format_row(row), flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
    if arguments.out:
        write_results(arguments.out, {"machine": machine, "ceilings": ceilings, "rows": rows}, arguments.folder)
    return rows


if __name__ == "__main__":
    if not all(row.get("is_within_tolerance", True) for row in main()):
        sys.exit("bench_kernels: a kernel differs from its reference by more than its tolerance")
