"""How the benchmarks time calls, what a machine can do at best, and how results are written."""

from __future__ import annotations

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kernels.dispatch import is_triton_installed

RESULTS = Path(__file__).with_name("results")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FLUSH_BYTES = 2**28  # written before each timed call, so that inputs come from memory and not from a cache


@dataclass(frozen=True)
class Ceilings:
    """What this machine reaches on what each op is made of, measured in the same run."""

    matmul_gflop_per_s: float
    copy_gbyte_per_s: float
    matmul_size: int
    copy_bytes: int


def measure_ceilings(device: torch.device, dtype: torch.dtype, seconds: float, is_toy: bool = False) -> Ceilings:
    """Best rates of one large square product and of one large copy; `is_toy` takes sizes that cost nothing."""
    size = 256 if is_toy else 8192 if device.type == "cuda" else 1536
    count = (2**20 if is_toy else 2**30 if device.type == "cuda" else 2**26) // dtype.itemsize
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(count, device=device, dtype=dtype)
    target = torch.empty_like(source)
    product_ms = time_call(lambda: left @ right, device, seconds)
    copy_ms = time_call(lambda: target.copy_(source), device, seconds)
    copied = 2 * count * dtype.itemsize
    return Ceilings(2 * size**3 / product_ms / 1e6, copied / copy_ms / 1e6, size, copied)


def time_call(run: Callable[[], Any], device: torch.device, budget_s: float) -> float:
    """Median milliseconds of a call, over as many calls as fit in about `budget_s` (3 to 200)."""
    run()
    first = _one_call_ms(run, device, None)
    count = min(200, max(3, int(budget_s * 1e3 / max(first, 1e-3))))
    flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if device.type == "cuda" else None
    return statistics.median(_one_call_ms(run, device, flush) for _ in range(count))


def _one_call_ms(run: Callable[[], Any], device: torch.device, flush: Tensor | None) -> float:
    if device.type != "cuda":
        start_s = time.perf_counter()
        run()
        return (time.perf_counter() - start_s) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if flush is not None:
        flush.zero_()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def synchronize(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory since `reset_peak_memory`, of tensors on CUDA; elsewhere the most the process ever held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    machine: dict[str, Any] = {
        "system": platform.system(),
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version("triton") if is_triton_installed() else None,
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
        machine["cuda"] = torch.version.cuda
        machine["cudnn"] = torch.backends.cudnn.version()
    return machine


def print_machine(machine: dict[str, Any], *remarks: str) -> None:
    print(", ".join(f"{key} {value}" for key, value in machine.items()), "-", *remarks)


def _processor_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_results(name: str, content: dict[str, Any], folder: Path) -> Path:
    """Write `folder`/`name`.json; dataclasses become objects. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(name).name.removesuffix('.json')}.json"
    path.write_text(json.dumps(content, indent=1, default=asdict) + "\n")
    print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path
