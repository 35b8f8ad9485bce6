"""How many sessions at 25 fps a device can hold, one after the other and in batches.

    python -m benchmarks.bench_sessions [--preset P] [--device D] [--n N] [--precision fp32|bf16] [--graphs]
                                        [--largest B] [--seconds S] [--out NAME]

On a CUDA device the default is `presenter-512`, on a CPU `tiny`. Weights are random: times do not depend on them.

"In turn" runs whole chunks, one session at a time; "batch B" runs `AvatarPipeline.step_batch` on B sessions in the
steady state, with everything that each of them does alone on the way (log-mel, motion plan), to I420 planes. Batches
double until one takes longer than a chunk lasts, or memory ends.

Sessions are batch · ⌊duration of a chunk / time of a batch⌋: every session gets its chunk in time, with no headroom.
`--out NAME` writes NAME.json to `--folder`, by default benchmarks/results.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench_chunk import LATENT_S, LATENT_SAMPLES, chosen_preset, make_pipeline, time_stream
from benchmarks.timing import (
    RESULTS,
    describe_machine,
    peak_memory_mb,
    print_machine,
    reset_peak_memory,
    time_call,
    write_results,
)
from kernels.rgb_to_i420 import rgb_to_i420
from models.pipeline import AvatarPipeline
from models.presets import PRESETS
from models.state import ChunkState


def steady_states(pipeline: AvatarPipeline, batch: int) -> list[ChunkState]:
    """B streams of one presenter, each with a seed of its own, after two chunks: all have their motion latents."""
    generator = torch.Generator().manual_seed(0)
    first = pipeline.start(torch.rand(3, *pipeline.frame_size, generator=generator))
    states = [replace(first, seed=seed) for seed in range(batch)]
    for _ in range(2):
        states = [chunk.state for chunk in pipeline.step_batch(sounds(pipeline, batch), states)]
    return states


def sounds(pipeline: AvatarPipeline, batch: int) -> list[Tensor]:
    """A chunk of noise for each of B streams."""
    generator = torch.Generator().manual_seed(1)
    samples = 0.1 * torch.randn(batch, pipeline.preset.chunk_latents * LATENT_SAMPLES, generator=generator)
    return list(samples.to(pipeline.device))


def batched_chunk(pipeline: AvatarPipeline, samples: list[Tensor], states: list[ChunkState]) -> Tensor:
    """A chunk of B sessions: I420 planes uint8 [B · 4n, H·3/2, W]."""
    return rgb_to_i420(torch.cat([chunk.frames for chunk in pipeline.step_batch(samples, states)]))


def bench_batches(pipeline: AvatarPipeline, largest: int, seconds: float) -> list[dict[str, Any]]:
    """A row a batch size."""
    device, rows = pipeline.device, []
    duration_ms = pipeline.preset.chunk_latents * LATENT_S * 1e3
    batch = 1
    while batch <= largest:
        reset_peak_memory(device)
        try:
            with torch.inference_mode():
                samples, states = sounds(pipeline, batch), steady_states(pipeline, batch)
                ms = time_call(lambda s=samples, b=states: batched_chunk(pipeline, s, b), device, seconds)  # type: ignore[misc]
        except torch.OutOfMemoryError:
            print(f"batch {batch}: not enough memory")
            break
        rows.append(row_of(batch, ms, duration_ms) | {"peak_memory_mb": peak_memory_mb(device)})
        print_row(rows[-1])
        if ms > duration_ms:
            break
        batch *= 2
    return rows


def row_of(batch: int, ms: float, duration_ms: float) -> dict[str, Any]:
    """What a time says about sessions."""
    return {
        "batch": batch,
        "ms": ms,
        "ms_a_session": ms / batch,
        "rtf_a_session": ms / batch / duration_ms,
        "sessions": batch * int(duration_ms // ms),
    }


def print_row(row: dict[str, Any]) -> None:
    print(
        f"  batch {row['batch']:<4} {row['ms']:>10.2f} ms {row['ms_a_session']:>10.2f} ms a session"
        f"  rtf {row['rtf_a_session']:>7.4f}  sessions at 25 fps: {row['sessions']}",
        flush=True,
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    has_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="presenter-512" if has_cuda else "tiny")
    parser.add_argument("--device", default="cuda" if has_cuda else "cpu")
    parser.add_argument("--n", type=int, help="new latents a chunk, 1-6 (default: the preset's)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 on CUDA, fp32 on a CPU")
    parser.add_argument("--graphs", action="store_true", help="replay the models from CUDA graphs")
    parser.add_argument("--largest", type=int, default=128 if has_cuda else 2, help="largest batch that is tried")
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each batch size")
    parser.add_argument("--chunks", type=int, default=6, help="of the stream that runs in turn, at least 3")
    parser.add_argument("--out", metavar="NAME", help="name of the JSON file")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where it goes")
    return parser.parse_args(argv, argparse.Namespace(m=None, steps=None, refiner=None))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark and print its table; returns what is written."""
    arguments = parse(argv)
    device = torch.device(arguments.device)
    precision = arguments.precision or ("bf16" if device.type == "cuda" else "fp32")
    config = chosen_preset(arguments)
    machine = describe_machine(device)
    print_machine(machine, precision)
    pipeline = make_pipeline(config, device, precision, arguments.graphs)
    duration_ms = config.chunk_latents * LATENT_S * 1e3
    print(f"{config.name}, a chunk of {duration_ms:.0f} ms")
    time_stream(pipeline, 3)  # kernels are compiled
    in_turn = row_of(1, time_stream(pipeline, arguments.chunks).chunk_ms, duration_ms)
    print("in turn:")
    print_row(in_turn)
    print("in batches:")
    rows = bench_batches(pipeline, arguments.largest, arguments.seconds)
    most = max((row["sessions"] for row in rows), default=0)
    print(f"sessions at 25 fps on this device: {in_turn['sessions']} in turn, {most} in batches")
    result = {
        "machine": machine,
        "preset": config.name,
        "precision": precision,
        "has_graphs": arguments.graphs,
        "chunk_ms": duration_ms,
        "in_turn": in_turn,
        "batches": rows,
        "sessions": {"in_turn": in_turn["sessions"], "in_batches": most},
    }
    if arguments.out:
        write_results(arguments.out, result, arguments.folder)
    return result


if __name__ == "__main__":
    main()
