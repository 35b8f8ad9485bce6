"""Time a preset from sound to I420 planes on the CPU: as it serves, and in plain fp32, chunk by chunk in turn.

    python -m benchmarks.bench_cpu [--preset P] [--threads T] [--seconds S] [--n N] [--out NAME]

The default is `presenter-256` with its shipped weights; a preset without any gets random ones. Three pipelines make
the same stream, a chunk each in turn, so that what else runs on the machine hits all of them alike:

    served      as `AvatarPipeline.load` makes it: bf16 where the processor has instructions for it, channels last
    fp32        the same with precision="fp32"
    plain fp32  fp32, with the weights in PyTorch's own layout

Of each are reported: milliseconds by stage (medians), the median and the best chunk, processor time, the real-time
factor (compute for a second of video) and the PSNR of its frames against plain fp32. For the stages that are products
and convolutions also the floor: FLOP counted, at the best rate of one large product and one convolution of the VAE in
the same run, threads and precision. Figures count from a machine that does nothing else.

`--out NAME` writes NAME.json to `--folder`, by default benchmarks/results.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.bench_chunk import LATENT_S, LATENT_SAMPLES
from benchmarks.timing import RESULTS, describe_machine, measure_ceilings, print_machine, time_call, write_results
from kernels.rgb_to_i420 import rgb_to_i420
from models import checkpoints
from models.flops import flop_counter
from models.pipeline import AvatarPipeline
from models.presets import PRESETS, preset
from models.state import ChunkState

CPU = torch.device("cpu")
WARM_UP_CHUNKS = 3  # the first has no motion latents, the second is the first with them
FLOOR_STAGES = ("lr_a2v", "lr_decode", "animator", "refiner", "decode")


@dataclass
class Stream:
    """One pipeline's stream and what its chunks took."""

    pipeline: AvatarPipeline
    state: ChunkState
    chunk_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    stage_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    squared_error: list[float] = field(default_factory=list)  # of frames, against the first stream's

    def step(self, samples: Tensor) -> Tensor:
        """Make and time a chunk; returns its frames [4n, 3, H, W]."""
        started, cpu_started = time.perf_counter(), time.process_time()
        frames, self.state, stage_ms = self.pipeline.step(samples, self.state)
        converting = time.perf_counter()
        rgb_to_i420(frames)
        done = time.perf_counter()
        for stage, ms in stage_ms.items():
            self.stage_ms[stage].append(ms)
        self.stage_ms["i420"].append((done - converting) * 1e3)
        self.chunk_ms.append((done - started) * 1e3)
        self.cpu_ms.append((time.process_time() - cpu_started) * 1e3)
        return frames

    def forget_times(self) -> None:
        self.chunk_ms, self.cpu_ms, self.stage_ms, self.squared_error = [], [], defaultdict(list), []

    def summary(self, duration_ms: float) -> dict[str, Any]:
        chunk_ms = statistics.median(self.chunk_ms)
        return {
            "chunks": len(self.chunk_ms),
            "chunk_ms": chunk_ms,
            "best_chunk_ms": min(self.chunk_ms),
            "cpu_ms": statistics.median(self.cpu_ms),
            "rtf": chunk_ms / duration_ms,
            "stage_ms": {stage: statistics.median(ms) for stage, ms in self.stage_ms.items()},
            "psnr_db": -10 * math.log10(max(statistics.fmean(self.squared_error), 1e-14)),
        }


PRECISIONS = {"fp32": "fp32", "served": "auto"}


def make_pipelines(name: str) -> dict[str, AvatarPipeline]:
    """The three of the module's first lines; plain fp32 comes first, since the others are compared with it."""
    config, folder = preset(name), checkpoints.shipped_weights(name)
    plain = AvatarPipeline(config)
    if not (folder / "config.json").exists():
        return {"plain fp32": plain}
    for component in checkpoints.components(config):
        checkpoints.load_component(folder, component, getattr(plain, component))
    loaded = {label: AvatarPipeline.load(name, precision=precision) for label, precision in PRECISIONS.items()}
    return {"plain fp32": plain} | loaded


def time_streams(pipelines: dict[str, AvatarPipeline], n: int, seconds: float) -> dict[str, Stream]:
    """Chunks of n latents of the same sound in turn, for about `seconds` and at least three each after warming up."""
    generator = torch.Generator().manual_seed(0)
    streams = {}
    for label, pipeline in pipelines.items():
        reference = torch.rand(3, *pipeline.frame_size, generator=torch.Generator().manual_seed(1))
        streams[label] = Stream(pipeline, pipeline.start(reference))
    started, rounds = time.perf_counter(), 0
    while rounds < WARM_UP_CHUNKS + 3 or time.perf_counter() - started < seconds:
        if rounds == WARM_UP_CHUNKS:
            started = time.perf_counter()
            for stream in streams.values():
                stream.forget_times()
        samples = 0.1 * torch.randn(n * LATENT_SAMPLES, generator=generator)
        frames = {label: stream.step(samples) for label, stream in streams.items()}
        first = next(iter(frames.values()))
        for label, stream in streams.items():
            stream.squared_error.append(float((frames[label] - first).square().mean()))
        rounds += 1
    return streams


def count_stage_flop(pipeline: AvatarPipeline, n: int) -> dict[str, int]:
    """FLOP of a steady chunk by stage: matrix products, convolutions and attention."""
    counts: dict[str, int] = {}

    @contextmanager
    def counted(stage_ms: dict[str, float], stage: str) -> Iterator[None]:
        with flop_counter() as counter:
            yield
        counts[stage] = counts.get(stage, 0) + counter.get_total_flops()

    samples = torch.zeros(n * LATENT_SAMPLES)
    state = pipeline.start(torch.zeros(3, *pipeline.frame_size))
    for _ in range(2):
        _, state, _ = pipeline.step(samples, state)
    timed, pipeline.timed = pipeline.timed, counted  # type: ignore[method-assign]
    try:
        pipeline.step(samples, state)
    finally:
        pipeline.timed = timed  # type: ignore[method-assign]
    return counts


def best_rate(dtype: torch.dtype, is_toy: bool) -> dict[str, float]:
    """GFLOP/s of one large product and of a convolution as in the VAE's decoder, at the threads in use."""
    product = measure_ceilings(CPU, dtype, 0.3, is_toy).matmul_gflop_per_s
    width, size = (16, 8) if is_toy else (128, 32)
    picture = torch.randn(4, width, size, size).to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(width, width, 3, 3).to(dtype, memory_format=torch.channels_last)
    ms = time_call(lambda: F.conv2d(picture, kernel, padding=1), CPU, 0.3)
    return {"product": product, "convolution": 2 * 9 * width * picture.numel() / ms / 1e6}


def print_table(summaries: dict[str, dict[str, Any]], floor_ms: dict[str, float], frames: int) -> None:
    """Milliseconds a frame by stage, a column a pipeline, and the floor of the last of them."""
    print(f"{'ms a frame':<12}" + "".join(f"{label:>12}" for label in summaries) + f"{'floor':>12}{'reached':>10}")
    last = list(summaries.values())[-1]
    for stage in last["stage_ms"]:
        cells = "".join(f"{summary['stage_ms'][stage] / frames:>12.2f}" for summary in summaries.values())
        floor = floor_ms.get(stage)
        share = "" if floor is None else f"{floor / frames:>12.2f}{floor / last['stage_ms'][stage]:>10.0%}"
        print(f"{stage:<12}{cells}{share}")
    for name, key in (("chunk", "chunk_ms"), ("best chunk", "best_chunk_ms"), ("processor", "cpu_ms")):
        print(f"{name:<12}" + "".join(f"{summary[key] / frames:>12.2f}" for summary in summaries.values()))
    for key in ("rtf", "psnr_db"):
        print(f"{key:<12}" + "".join(f"{summary[key]:>12.3f}" for summary in summaries.values()))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="presenter-256")
    parser.add_argument("--threads", type=int, help="of PyTorch (default: as it chooses)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring (default: 60)")
    parser.add_argument("--n", type=int, help="new latents a chunk, 1-6 (default: the preset's)")
    parser.add_argument("--out", metavar="NAME", help="name of the JSON file")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where it goes")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads must be at least 1, got {arguments.threads}")
    return arguments


@torch.inference_mode()
def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark and print its table; returns what is written."""
    arguments = parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    config = preset(arguments.preset)
    n = arguments.n or config.chunk_latents
    machine = describe_machine(CPU) | {"load": os.getloadavg()[0], "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY")}
    print_machine(machine, f"{config.name}, n {n}")
    pipelines = make_pipelines(config.name)
    last = list(pipelines.values())[-1]
    dtype = torch.bfloat16 if last.is_bf16 else torch.float32
    rates = {str(kind): best_rate(kind, config.name == "tiny") for kind in {dtype, torch.float32}}
    flop = count_stage_flop(next(iter(pipelines.values())), n)
    floor_ms = {stage: flop[stage] / max(rates[str(dtype)].values()) / 1e6 for stage in FLOOR_STAGES if stage in flop}
    streams = time_streams(pipelines, n, arguments.seconds)
    duration_ms = n * LATENT_S * 1e3
    summaries = {label: stream.summary(duration_ms) for label, stream in streams.items()}
    print_table(summaries, floor_ms, 4 * n)
    pairs = zip(streams["plain fp32"].chunk_ms, list(streams.values())[-1].chunk_ms, strict=True)
    result = {
        "machine": machine,
        "preset": config.name,
        "n": n,
        "gflop_per_s": rates,
        "flop": flop,
        "floor_ms": floor_ms,
        "pipelines": summaries,
        "speedup": statistics.median(plain / served for plain, served in pairs),
    }
    for kind, rate in rates.items():
        print(f"{kind}: " + ", ".join(f"{what} {value:.0f} GFLOP/s" for what, value in rate.items()))
    print(f"{sum(flop.values()) / 4 / n / 1e9:.2f} GFLOP a frame")
    print(f"as it serves it is {result['speedup']:.2f} times as fast as plain fp32 (median of pairs of chunks)")
    if arguments.out:
        write_results(arguments.out, result, arguments.folder)
    return result


if __name__ == "__main__":
    main()
