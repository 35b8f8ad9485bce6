"""The JSON report of a rendering."""

from __future__ import annotations

import json
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from streamer.errors import OutputError
from streamer.render import RenderTimes

PACKAGES = ("torch", "numpy", "av", "triton")


def build_report(times: RenderTimes, *, fps: int, frame_size: tuple[int, int], device: str) -> dict[str, Any]:
    """What a rendering cost, ready for JSON.

    `rtf` is seconds of compute for a second of sound, without the first chunk (which warms up); `is_warm` is
    false if there was only that one. Times are wall times of the pipeline's steps; reading, encoding and
    writing are not in them.
    """
    is_warm = len(times.chunk_s) > 1
    first = 1 if is_warm else 0
    compute_s, frames = sum(times.chunk_s[first:]), sum(times.chunk_frames[first:])
    stage_ms = {
        stage: spent - (times.first_stage_ms.get(stage, 0.0) if is_warm else 0.0)
        for stage, spent in times.stage_ms.items()
    }
    return {
        "rtf": round(compute_s / (frames / fps), 4) if frames else None,
        "is_warm": is_warm,
        "gflop_per_frame": None if times.gflop_per_frame is None else round(times.gflop_per_frame, 4),
        "stage_ms_per_frame": {stage: round(spent / frames, 4) for stage, spent in stage_ms.items()},
        "frames": times.frames,
        "fps": fps,
        "duration_s": times.frames / fps,
        "frame_size": list(frame_size),
        "chunks": len(times.chunk_s),
        "first_chunk_ms": round(1000.0 * times.chunk_s[0], 1),
        "slowest_warm_chunk_ms": round(1000.0 * max(times.chunk_s[first:]), 1),
        "setup_ms": round(1000.0 * times.setup_s, 1),
        "peak_memory_mb": peak_memory_mb(),
        "device": device,
        "machine": describe_machine(),
        "versions": versions(),
    }


def peak_memory_mb() -> float:
    """Most memory this process ever held, megabytes (10⁶ bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def describe_machine() -> dict[str, Any]:
    """Processor, cores this process may use, threads of torch."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.system(),
        "processor": _processor_name(),
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what its speed depends on, as far as installed."""
    found = {"python": platform.python_version(), "infinity-avatar": package_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def package_version() -> str:
    """Version of the installed package; "unknown" when run from a bare checkout."""
    try:
        return metadata.version("infinity-avatar")
    except metadata.PackageNotFoundError:
        return "unknown"


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes a report as indented JSON.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
