"""Time whole chunks of a preset, by stage: sound in, I420 planes out.

    python -m benchmarks.bench_chunk [--preset P] [--device D] [--n N] [--m M] [--steps S] [--refiner 1.3b|2b]
                                     [--precision fp32|bf16] [--graphs] [--fp8] [--chunks C] [--no-plain] [--out NAME]

On a CUDA device the default is `paper-720p`, on a CPU `tiny`. Weights are the shipped ones of that preset where
there are any and no shape is changed, else random: times do not depend on them. `--refiner` gives the refiner another
shape (1.3b: 30 layers of 12 x 128; 2b: 28 layers of 28 x 64).

Of a chunk are reported: milliseconds by stage, the real-time factor (compute for a second of video), the latency of a
stream's first chunk, set-up of a stream, peak memory, and for the models FLOP and what they would take at the rate of
a large matrix product. Stages wait for the device before their time is taken. "Overlapped" is the time between chunks
when the LR half of each is made beside the HR half of the one before (`models.overlap`).

`--graphs` replays the models from CUDA graphs, `--fp8` multiplies in 8 bits in the blocks of both transformers.

The same chunk then runs in plain PyTorch in the same process (KERNELS_BACKEND=torch: its fused attention, no kernels of
ours, no graphs, no kept prefix, no fp8) unless `--no-plain`; the ratio of the two is the last line.

`--out NAME` writes NAME.json to `--folder`, by default benchmarks/results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import (
    DTYPES,
    RESULTS,
    describe_machine,
    measure_ceilings,
    peak_memory_mb,
    print_machine,
    reset_peak_memory,
    synchronize,
    write_results,
)
from kernels.rgb_to_i420 import rgb_to_i420
from models import checkpoints
from models.configs import Preset, TransformerConfig
from models.flops import flop_counter
from models.fp8 import use_fp8
from models.graphs import CudaGraphs
from models.overlap import overlapped
from models.pipeline import AvatarPipeline
from models.presets import PRESETS, preset
from models.state import ChunkState
from models.timing import SAMPLES_PER_LATENT as LATENT_SAMPLES

LATENT_S = 4 / 25
REFINER_SHAPES = {
    "1.3b": TransformerConfig(width=1536, layers=30, heads=12, mlp_ratio=8960 / 1536),
    "2b": TransformerConfig(width=1792, layers=28, heads=28, mlp_ratio=4.0),
}
COUNTED = {  # model whose FLOP are counted: the stages that it is
    "LRA2V": ("lr_a2v",),
    "PGRefiner": ("refiner",),
    "Decoder": ("lr_decode", "decode"),
}


@dataclass(frozen=True)
class ChunkTimes:
    """Of one stream. `stage_ms` and `chunk_ms` are medians over the chunks after the first two.

    The second chunk is the first with motion latents: its shapes are new as well.
    """

    setup_ms: float
    first_chunk_ms: float
    chunk_ms: float
    stage_ms: dict[str, float]
    rtf: float
    peak_memory_mb: float


def chosen_preset(arguments: argparse.Namespace) -> Preset:
    """The preset with the shapes of the command line."""
    config = preset(arguments.preset)
    n = arguments.n or config.chunk_latents
    m = config.motion_latents if arguments.m is None else arguments.m
    sampling = replace(config.sampling, lr_steps=arguments.steps or config.sampling.lr_steps)
    config = replace(config, chunk_latents=n, motion_latents=m, sampling=sampling)
    if arguments.refiner:
        old = config.refiner.transformer
        shape = replace(
            REFINER_SHAPES[arguments.refiner],
            attention_window=old.attention_window,
            prefix_causal=old.prefix_causal,
        )
        config = replace(config, refiner=replace(config.refiner, transformer=shape))
    return config


def make_pipeline(
    config: Preset, device: torch.device, precision: str, has_graphs: bool = False, is_fp8: bool = False
) -> AvatarPipeline:
    """With shipped weights if the preset is as shipped, else with random ones; transformers in bf16 or fp8 if asked."""
    is_bf16 = precision == "bf16"
    has_weights = (checkpoints.shipped_weights(config.name) / "config.json").exists()
    if has_weights and config.refiner == preset(config.name).refiner:
        pipeline = AvatarPipeline.load(config.name, device=device, precision=precision)
        pipeline.preset = config
    else:
        torch.manual_seed(0)
        pipeline = AvatarPipeline(config, device, is_bf16)
    if is_bf16:  # autocast would make bf16 of the weights in every call
        for module in (pipeline.lr_a2v, pipeline.refiner, pipeline.tiny_decoder):
            if module is not None:
                module.to(torch.bfloat16)
    if is_fp8:
        count = sum(use_fp8(module) for module in (pipeline.lr_a2v, pipeline.refiner))
        print(f"{count} linear layers in fp8")
    if has_graphs:
        pipeline.graphs = CudaGraphs()
    return pipeline


def run_chunk(pipeline: AvatarPipeline, samples: Tensor, state: ChunkState) -> tuple[ChunkState, dict[str, float]]:
    """One chunk to I420 planes: the next state, and the milliseconds of its stages."""
    frames, state, stage_ms = pipeline.step(samples, state)
    started = time.perf_counter()
    rgb_to_i420(frames)
    synchronize(pipeline.device)
    return state, stage_ms | {"i420": (time.perf_counter() - started) * 1e3}


def time_stream(pipeline: AvatarPipeline, chunks: int) -> ChunkTimes:
    """Times of a stream of `chunks` >= 3 chunks of noise."""
    device, n = pipeline.device, pipeline.preset.chunk_latents
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(3, *pipeline.preset.hr_size, generator=generator)
    sound = [0.1 * torch.randn(n * LATENT_SAMPLES, generator=generator) for _ in range(chunks)]
    reset_peak_memory(device)
    with torch.inference_mode():
        synchronize(device)
        started = time.perf_counter()
        state = pipeline.start(reference)
        synchronize(device)
        setup_ms = (time.perf_counter() - started) * 1e3
        chunk_ms, stages = [], []
        for samples in sound:
            started = time.perf_counter()
            state, stage_ms = run_chunk(pipeline, samples, state)
            chunk_ms.append((time.perf_counter() - started) * 1e3)
            stages.append(stage_ms)
    steady_ms = statistics.median(chunk_ms[2:])
    return ChunkTimes(
        setup_ms=setup_ms,
        first_chunk_ms=chunk_ms[0],
        chunk_ms=steady_ms,
        stage_ms={stage: statistics.median(ms[stage] for ms in stages[2:]) for stage in stages[-1]},
        rtf=steady_ms / 1e3 / (n * LATENT_S),
        peak_memory_mb=peak_memory_mb(device),
    )


def time_overlapped(pipeline: AvatarPipeline, chunks: int) -> float:
    """Milliseconds between two chunks' frames where `overlapped` makes the stream; median after the first two."""
    generator = torch.Generator().manual_seed(0)
    n = pipeline.preset.chunk_latents
    sound = [0.1 * torch.randn(n * LATENT_SAMPLES, generator=generator) for _ in range(chunks)]
    state = pipeline.start(torch.rand(3, *pipeline.preset.hr_size, generator=generator))
    ready = []
    for frames, *_ in overlapped(pipeline, sound, state):
        rgb_to_i420(frames)
        synchronize(pipeline.device)
        ready.append(time.perf_counter())
    return 1e3 * statistics.median(late - early for early, late in pairwise(ready[1:]))


@contextmanager
def plain_pytorch(pipeline: AvatarPipeline) -> Iterator[None]:
    """Without graphs and a kept prefix, and without kernels of ours wherever the caller names no backend."""
    graphs, keeps_prefix = pipeline.graphs, pipeline.keeps_prefix
    pipeline.graphs, pipeline.keeps_prefix = None, False
    before = os.environ.get("KERNELS_BACKEND")
    os.environ["KERNELS_BACKEND"] = "torch"
    try:
        yield
    finally:
        pipeline.graphs, pipeline.keeps_prefix = graphs, keeps_prefix
        if before is None:
            del os.environ["KERNELS_BACKEND"]
        else:
            os.environ["KERNELS_BACKEND"] = before


def count_flop(pipeline: AvatarPipeline) -> dict[str, int]:
    """FLOP of a steady chunk by model: matrix products, convolutions and attention. Runs three chunks."""
    samples = torch.zeros(pipeline.preset.chunk_latents * LATENT_SAMPLES)
    counts = dict.fromkeys(COUNTED, 0)

    def counted(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        model = type(getattr(function, "__self__", function)).__name__
        name = "Decoder" if getattr(function, "__name__", "") == "decode_chunk" else model
        with flop_counter() as counter:
            result = function(*arguments, **named)
        counts[name] = counts.get(name, 0) + counter.get_total_flops()
        return result

    keeps_prefix = pipeline.keeps_prefix
    with torch.inference_mode(), plain_pytorch(pipeline):
        pipeline.keeps_prefix = keeps_prefix
        state = pipeline.start(torch.zeros(3, *pipeline.preset.hr_size))
        for _ in range(2):
            state, _ = run_chunk(pipeline, samples, state)
        pipeline.call = counted  # type: ignore[method-assign]
        try:
            with flop_counter() as counter:
                run_chunk(pipeline, samples, state)
        finally:
            del pipeline.call
    return {name: counts[name] for name in COUNTED} | {"all": counter.get_total_flops()}


def print_times(times: ChunkTimes, floors_ms: dict[str, float]) -> None:
    for stage, ms in times.stage_ms.items():
        model = next((name for name, stages in COUNTED.items() if stage in stages), None)
        floor = ""
        if model is not None and stage == COUNTED[model][-1]:
            spent = sum(times.stage_ms[part] for part in COUNTED[model])
            floor = f"{model}: floor {floors_ms[model]:.3f} ms, {floors_ms[model] / spent:.1%} of it"
        print(f"  {stage:<12} {ms:>10.3f} ms  {floor}".rstrip())
    print(f"  {'chunk':<12} {times.chunk_ms:>10.3f} ms  rtf {times.rtf:.3f}")
    print(
        f"  set-up {times.setup_ms:.1f} ms, first chunk {times.first_chunk_ms:.1f} ms,"
        f" peak memory {times.peak_memory_mb:.0f} MB"
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    has_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="paper-720p" if has_cuda else "tiny")
    parser.add_argument("--device", default="cuda" if has_cuda else "cpu")
    parser.add_argument("--n", type=int, help="new latents a chunk, 1-6 (default: the preset's)")
    parser.add_argument("--m", type=int, help="motion latents, at least 1 (default: the preset's)")
    parser.add_argument("--steps", type=int, help="LR steps (default: the preset's)")
    parser.add_argument("--refiner", choices=list(REFINER_SHAPES), help="another shape of the refiner")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 on CUDA, fp32 on a CPU")
    parser.add_argument("--graphs", action="store_true", help="replay the models from CUDA graphs")
    parser.add_argument("--fp8", action="store_true", help="the blocks' products in fp8")
    parser.add_argument("--chunks", type=int, default=8, help="of a stream, at least 4 (default: 8)")
    parser.add_argument("--no-plain", action="store_true", help="leave plain PyTorch out")
    parser.add_argument("--out", metavar="NAME", help="name of the JSON file")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where it goes")
    arguments = parser.parse_args(argv)
    if arguments.graphs and torch.device(arguments.device).type != "cuda":
        parser.error("--graphs needs a CUDA device")
    if arguments.chunks < 4 or (arguments.m is not None and arguments.m < 1):
        parser.error("there must be at least 4 chunks and 1 motion latent")
    return arguments


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark and print its table; returns what is written."""
    arguments = parse(argv)
    device = torch.device(arguments.device)
    precision = arguments.precision or ("bf16" if device.type == "cuda" else "fp32")
    config = chosen_preset(arguments)
    machine = describe_machine(device)
    print_machine(machine, precision)
    pipeline = make_pipeline(config, device, precision, arguments.graphs, arguments.fp8)
    ceilings = measure_ceilings(device, DTYPES[precision], 0.2, is_toy=config.name == "tiny")

    cold = time_stream(pipeline, 3)  # kernels are compiled, and PyTorch chooses its own
    ours = time_stream(pipeline, arguments.chunks)
    overlapped_ms = time_overlapped(pipeline, arguments.chunks)
    flop = count_flop(pipeline)
    floors_ms = {model: count / ceilings.matmul_gflop_per_s / 1e6 for model, count in flop.items()}
    settings = f"n {config.chunk_latents}, m {config.motion_latents}, {config.sampling.lr_steps} LR steps"
    shape = config.refiner.transformer
    print(f"{config.name}, {settings}, refiner {shape.layers} x {shape.heads} x {shape.head_dim}, {precision}")
    print_times(ours, floors_ms)
    overlapped_rtf = overlapped_ms / 1e3 / (config.chunk_latents * LATENT_S)
    print(f"  {'overlapped':<12} {overlapped_ms:>10.3f} ms  rtf {overlapped_rtf:.3f}")
    print(f"  first stream of the process: set-up {cold.setup_ms:.0f} ms, first chunk {cold.first_chunk_ms:.0f} ms")
    result: dict[str, Any] = {
        "machine": machine,
        "preset": config.name,
        "settings": {"n": config.chunk_latents, "m": config.motion_latents, "lr_steps": config.sampling.lr_steps},
        "refiner": asdict(shape),
        "precision": precision,
        "has_graphs": arguments.graphs,
        "is_fp8": arguments.fp8,
        "ceilings": ceilings,
        "cold": cold,
        "ours": ours,
        "overlapped": {"chunk_ms": overlapped_ms, "rtf": overlapped_rtf},
        "flop": flop,
        "floor_ms": floors_ms,
    }
    if not arguments.no_plain:
        if arguments.fp8:
            del pipeline
            pipeline = make_pipeline(config, device, precision)
        with plain_pytorch(pipeline):
            time_stream(pipeline, 3)
            plain = time_stream(pipeline, arguments.chunks)
        print("plain PyTorch:")
        print_times(plain, floors_ms)
        result |= {"plain": plain, "speedup": plain.chunk_ms / ours.chunk_ms}
        print(f"ours is {result['speedup']:.2f} times as fast as plain PyTorch")
    if arguments.out:
        write_results(arguments.out, result, arguments.folder)
    return result


if __name__ == "__main__":
    main()
