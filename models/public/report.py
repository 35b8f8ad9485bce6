"""What `infinity-avatar models` says about parts: in words, or as plain JSON values."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from models.public.catalog import FAMILIES, Family, Work
from models.public.inspection import Part

GIB = 1 << 30
FPS = 25
EFFICIENCY = 0.5  # of a device's peak that such models reach; a guess, and said to be one

# Dense bf16 products with fp32 sums, TFLOP/s by the makers' data sheets; the first name that fits.
PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 5090": 210.0,
    "RTX 4090": 165.0,
    "RTX 4080": 97.0,
    "RTX 4070": 58.0,
    "RTX 3090": 71.0,
    "A10": 125.0,
    "T4": 65.0,
}
CPU_CORE_TFLOPS = 0.13  # fp32, measured on one core of an AMD EPYC


@dataclass(frozen=True)
class Device:
    """Where models are to run. `peak_tflops` is None where it is not known."""

    name: str
    memory_bytes: int
    peak_tflops: float | None


def this_device(name: str) -> Device:
    """The device of a torch name.

    Raises:
        ValueError: if there is none of that name.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}; try cpu or cuda") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("there is no CUDA device here; leave --device at cpu")
        properties = torch.cuda.get_device_properties(device)
        peak = next((tflops for part, tflops in PEAKS.items() if part in properties.name), None)
        return Device(properties.name, properties.total_memory, peak)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return Device(f"{cores} processor cores", memory, CPU_CORE_TFLOPS * cores)


def memory_bytes(part: Part) -> dict[str, int]:
    """What a part's weights take in bf16, and with the large linear layers in fp8."""
    whole = 2 * part.parameters
    return {"bf16": whole, "fp8": whole - part.block_parameters}


def expected_fps(work: Work, device: Device) -> float | None:
    """Frames a second, derived from operations and the device's peak; None where that is not known."""
    if device.peak_tflops is None:
        return None
    return FPS * work.chunk_s / (work.flops / (EFFICIENCY * device.peak_tflops * 1e12))


def describe(part: Part, device: Device) -> dict[str, Any]:
    """All that is known of a part, as plain values."""
    said: dict[str, Any] = {"path": str(part.path), "is_usable": part.problem is None, "problem": part.problem}
    if part.family is not None:
        said |= {
            "family": part.family.name,
            "title": part.family.title,
            "made_by": part.family.made_by,
            "code_licence": part.family.code_licence,
            "weights_licence": part.family.weights_licence,
        }
        if part.family.work is not None:
            said["chunk_tflop"] = round(part.family.work.flops / 1e12, 1)
            fps = expected_fps(part.family.work, device)
            said["expected_fps"] = None if fps is None else float(f"{fps:.2g}")
    if part.parameters:
        said |= {"parameters": part.parameters, "dtypes": list(part.dtypes), "file_bytes": part.file_bytes}
        said["memory_bytes"] = memory_bytes(part)
    return said


def lines(part: Part, device: Device) -> list[str]:
    """A part in words."""
    title = "not known" if part.family is None else f"{part.family.title} ({part.family.name})"
    said = [f"{'ok  ' if part.problem is None else 'FAIL'}  {part.path}: {title}"]
    if part.problem is not None:
        return [*said, f"      {part.problem}"]
    memory = memory_bytes(part)
    sizes = f"{part.parameters:,} parameters in {', '.join(part.dtypes)}; {memory['bf16'] / GIB:.1f} GiB in bf16"
    said.append(f"      {sizes}" + (f", {memory['fp8'] / GIB:.1f} in fp8" if part.block_parameters else ""))
    assert part.family is not None
    said.append(f"      code {part.family.code_licence}; weights {part.family.weights_licence}")
    if part.family.work is not None:
        said.append(f"      {_speed(part.family.work, device)}")
    return said


def _speed(work: Work, device: Device) -> str:
    cost = f"{work.flops / 1e12:.0f} TFLOP for {work.chunk_s:g} s of video"
    fps = expected_fps(work, device)
    if fps is None:
        return f"{cost}; how fast {device.name} is, is not known here"
    reached = f"{EFFICIENCY:.0%} of {device.peak_tflops:.3g} TFLOP/s"
    return f"{cost}: {fps:.2g} frames a second on {device.name}, derived ({reached}), not measured; {FPS} are real time"


def missing_lines(wanting: dict[str, list[Family]]) -> list[str]:
    """What has to be put beside, in words."""
    said = []
    for name, families in wanting.items():
        for family in families:
            said.append(f"missing for {name}: {family.title} ({family.name}), {family.files}, by {family.made_by}")
    return said


def catalog_lines() -> list[str]:
    """All families, in words."""
    said = []
    for family in FAMILIES:
        said += [
            f"{family.name}: {family.title}",
            f"    {family.files}; by {family.made_by}",
            f"    code {family.code_licence}; weights {family.weights_licence}",
        ]
        if family.needs:
            said.append(f"    needs {', '.join(family.needs)}")
    return said
