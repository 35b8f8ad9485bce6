"""Time the portrait path from sound to I420 planes, by stage, beside the bytes that each stage must move.

    python -m benchmarks.bench_portrait [--size 512|720x1280|1280x720] [--picture FILE] [--threads T] [--seconds S]
        [--out NAME]

Reported are milliseconds a frame by stage (median and best of the chunks), the real-time factor (compute for a second
of video), and for the stages that only move bytes their floor: what they read and write at the rate of one large copy
in the same run. Without a picture it is the canonical face on grey. Figures count from a machine that does nothing
else; on others the best chunk says more than the median.

`--out NAME` writes NAME.json to `--folder`, by default benchmarks/results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks.bench_chunk import LATENT_SAMPLES
from benchmarks.timing import RESULTS, describe_machine, print_machine, write_results
from models.families import PORTRAIT, PORTRAIT_SIZES, load_model
from models.timing import FPS, FRAMES_PER_LATENT

CHUNK_LATENTS = 3
WARM_UP_CHUNKS = 2


def floor_bytes(height: int, width: int) -> dict[str, int]:
    """Bytes a frame that stages read and write at least: maps of two floats a pixel, pictures of three bytes."""
    pixels = height * width
    return {
        "warp": pixels * (8 + 3 + 3),  # the enlarged map, the picture, the frame
        "i420": pixels * 3 + pixels * 3 // 2,
    }


def copy_rate() -> float:
    """Bytes a second, read and written, of one large copy."""
    source, target = np.ones(64 << 20, np.uint8), np.empty(64 << 20, np.uint8)
    best_s = float("inf")
    for _ in range(5):
        began_s = time.perf_counter()
        np.copyto(target, source)
        best_s = min(best_s, time.perf_counter() - began_s)
    return 2 * source.nbytes / best_s


def time_chunks(size: str, picture: Path | None, seconds: float) -> tuple[float, dict[str, list[float]]]:
    """Seconds from the picture to a state, and milliseconds a frame of every stage, a value a chunk."""
    model = load_model(PORTRAIT + size)
    began_s = time.perf_counter()
    if picture is None:
        state = model.rehearsal()
    else:
        state = model.start(torch.from_numpy(np.array(Image.open(picture).convert("RGB"))))
    setup_s = time.perf_counter() - began_s
    frames, chunks = CHUNK_LATENTS * FRAMES_PER_LATENT, 0
    generator = torch.Generator().manual_seed(0)
    spent: dict[str, list[float]] = defaultdict(list)
    ends_s = time.perf_counter() + seconds
    while chunks < WARM_UP_CHUNKS + 3 or time.perf_counter() < ends_s:
        samples = 0.1 * torch.randn(CHUNK_LATENTS * LATENT_SAMPLES, generator=generator)
        made, state, stage_ms = model.step(samples, state)
        began_s = time.perf_counter()
        model.to_i420(made)
        stage_ms = stage_ms | {"i420": (time.perf_counter() - began_s) * 1e3}
        chunks += 1
        if chunks > WARM_UP_CHUNKS:
            for stage, ms in stage_ms.items():
                spent[stage].append(ms / frames)
            spent["frame"].append(sum(stage_ms.values()) / frames)
    return setup_s, dict(spent)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the benchmark and print its table; returns what is written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(PORTRAIT_SIZES), default="512")
    parser.add_argument("--picture", type=Path, help="of a person (default: the canonical face on grey)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch and OpenCV (default: 1)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring (default: 20)")
    parser.add_argument("--out", metavar="NAME", help="name of the JSON file")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where it goes")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    machine = describe_machine(torch.device("cpu")) | {"load": os.getloadavg()[0], "threads": arguments.threads}
    print_machine(machine, f"portrait {arguments.size}")
    rate = copy_rate()
    setup_s, spent = time_chunks(arguments.size, arguments.picture, arguments.seconds)
    floors = {stage: count / rate * 1e3 for stage, count in floor_bytes(*PORTRAIT_SIZES[arguments.size]).items()}
    print(f"{'ms a frame':<12}{'median':>10}{'best':>10}{'floor':>10}")
    for stage, values in spent.items():
        floor = f"{floors[stage]:>10.2f}" if stage in floors else ""
        print(f"{stage:<12}{statistics.median(values):>10.2f}{min(values):>10.2f}{floor}")
    result = {
        "machine": machine,
        "size": arguments.size,
        "setup_s": setup_s,
        "chunks": len(spent["frame"]),
        "ms_a_frame": {stage: statistics.median(values) for stage, values in spent.items()},
        "best_ms_a_frame": {stage: min(values) for stage, values in spent.items()},
        "floor_ms": floors,
        "rtf": statistics.median(spent["frame"]) * FPS / 1e3,
        "best_rtf": min(spent["frame"]) * FPS / 1e3,
    }
    print(f"RTF {result['rtf']:.3f}, of the best chunk {result['best_rtf']:.3f}; set-up {setup_s:.2f} s")
    if arguments.out:
        write_results(arguments.out, result, arguments.folder)
    return result


if __name__ == "__main__":
    main()
