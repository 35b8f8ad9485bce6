"""Time the kernels beside their references and PyTorch's own, with bytes and FLOP counted first.

    python -m benchmarks.bench_kernels [--sizes toy|256|720p] [--dtype bf16|fp16|fp32] [--op attention|low_pass]
                                       [--compile] [--tiles] [--out NAME]

On a CUDA device the default is the shapes of `paper-720p`, on a CPU toy shapes. Every implementation is compared
with the first one ("ours") before it is timed. `--compile` adds the references under torch.compile, `--tiles` the
attention kernel with other tiles (CUDA). `--out NAME` writes benchmarks/results/NAME.json with the machine.

Times are medians of single calls, on CUDA between two events on the stream, with a 256 MiB write before each call
so that inputs come from memory. Bytes are each input and the output once; FLOP are the two matrix products over
the keys each query may see.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.attention import attention
from kernels.dispatch import is_triton_installed
from kernels.low_pass import filter_radius, low_pass_noise

RESULTS = Path(__file__).with_name("results")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
MAX_SCORE_BYTES = 24 * 2**30  # a reference that would hold more scores than this is left out
OTHER_TILES = [
    (128, 64, 4, 3),
    (128, 64, 8, 3),
    (128, 128, 8, 2),
    (128, 128, 8, 3),
    (64, 64, 4, 3),
    (64, 128, 4, 3),
]


@dataclass(frozen=True)
class AttentionCase:
    """Shapes and masks of one attention call; `audio_frames` > 0 gives each latent frame a window of keys."""

    name: str
    heads: int
    head_dim: int
    query_count: int
    key_count: int
    prefix_length: int = 0
    query_offset: int = 0
    audio_frames: int = 0
    batch: int = 1

    def windows(self, device: torch.device) -> Tensor | None:
        """int32 [G, 2]: run g sees its share of the keys and half a share to each side."""
        if not self.audio_frames:
            return None
        share = self.key_count // self.audio_frames
        starts = torch.arange(self.audio_frames, device=device) * share
        windows = torch.stack([starts - share // 2, starts + share + share // 2], dim=1)
        return windows.clamp(0, self.key_count).int()

    def visible_pairs(self) -> int:
        """Query-key pairs of one head that are not masked."""
        if self.audio_frames:
            windows = self.windows(torch.device("cpu"))
            assert windows is not None
            per_frame = self.query_count // self.audio_frames
            return int((windows[:, 1] - windows[:, 0]).sum()) * per_frame
        inside = min(max(self.prefix_length - self.query_offset, 0), self.query_count)
        return inside * self.prefix_length + (self.query_count - inside) * self.key_count

    def flop(self) -> int:
        return 4 * self.batch * self.heads * self.head_dim * self.visible_pairs()

    def bytes(self, element_size: int) -> int:
        tokens = 2 * self.query_count + 2 * self.key_count
        return self.batch * self.heads * self.head_dim * tokens * element_size

    def score_bytes(self) -> int:
        """What the reference holds at once: scores, masked scores and weights in fp32."""
        return 12 * self.batch * self.heads * self.query_count * self.key_count


@dataclass(frozen=True)
class LowPassCase:
    """Shape and filter of one low-pass and noise call."""

    name: str
    shape: tuple[int, int, int, int, int]
    sigma: float = 1.0

    def flop(self) -> int:
        """Two passes of the separable filter; the noise is integer work and not counted."""
        return 2 * 2 * (2 * filter_radius(self.sigma) + 1) * torch.Size(self.shape).numel()

    def bytes(self, element_size: int) -> int:
        return 2 * torch.Size(self.shape).numel() * element_size


def window_cases(size: str, heads: int, head_dim: int, latent: int, latents: int) -> list[AttentionCase]:
    """Self-attention over a window of `latents`, the first two of which are the prefix, whole and cached."""
    tokens, prefix, name = latents * latent, 2 * latent, f"{size} {heads}x{head_dim}"
    return [
        AttentionCase(f"{name} bidirectional", heads, head_dim, tokens, tokens),
        AttentionCase(f"{name} prefix-causal", heads, head_dim, tokens, tokens, prefix),
        AttentionCase(f"{name} prefix cached", heads, head_dim, tokens - prefix, tokens, prefix, prefix),
    ]


CASES: dict[str, list[AttentionCase | LowPassCase]] = {
    "toy": [
        *window_cases("toy", heads=2, head_dim=32, latent=16, latents=4),
        AttentionCase("toy audio windows", 2, 32, 64, 16, audio_frames=4),
        LowPassCase("toy low-pass", (1, 4, 2, 8, 8)),
    ],
    "256": [
        *window_cases("HR 256", heads=6, head_dim=64, latent=256, latents=5),
        AttentionCase("LR 128 audio windows", 4, 64, 5 * 64, 20, audio_frames=5),
        LowPassCase("LR 128 low-pass", (1, 16, 3, 16, 16)),
    ],
    "720p": [
        *window_cases("HR 720p", heads=28, head_dim=64, latent=3600, latents=5),
        *window_cases("HR 720p", heads=12, head_dim=128, latent=3600, latents=5),
        *window_cases("LR 360p", heads=12, head_dim=128, latent=880, latents=6),
        AttentionCase("LR 360p audio windows", 12, 128, 6 * 880, 6 * 32, audio_frames=6),
        LowPassCase("LR 360p low-pass", (1, 16, 3, 44, 80)),
        LowPassCase("LR 360p low-pass, 8 sessions", (8, 16, 3, 44, 80)),
    ],
}


def attention_runs(
    case: AttentionCase, dtype: torch.dtype, device: torch.device, is_compiled: bool, has_tiles: bool
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The implementations of one attention call, ours first."""
    generator = torch.Generator(device).manual_seed(0)

    def tokens(count: int) -> Tensor:
        """[B, N, count, d] in the memory order of a projection, [B, count, N, d]."""
        shape = (case.batch, count, case.heads, case.head_dim)
        return torch.randn(shape, generator=generator, device=device).to(dtype).transpose(1, 2)

    q, k, v = tokens(case.query_count), tokens(case.key_count), tokens(case.key_count)
    options: dict[str, Any] = {
        "prefix_length": case.prefix_length,
        "query_offset": case.query_offset,
        "key_windows": case.windows(device),
    }
    yield "ours", lambda: attention(q, k, v, **options)
    if device.type == "cuda":
        yield "torch", lambda: attention(q, k, v, backend="torch", **options)
        if not case.audio_frames:
            for name, backend in (("cudnn", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
                yield f"sdpa {name}", _with_sdpa_backend(backend, q, k, v, options)
    elif not case.audio_frames and case.prefix_length <= case.query_offset:
        yield "sdpa", lambda: F.scaled_dot_product_attention(q, k, v)
    if case.score_bytes() <= MAX_SCORE_BYTES:
        yield "reference", lambda: attention(q, k, v, backend="reference", **options)
        if is_compiled:
            compiled = torch.compile(attention, dynamic=False)
            yield "compiled reference", lambda: compiled(q, k, v, backend="reference", **options)
    if has_tiles and device.type == "cuda":
        from kernels.attention.triton_kernel import Tile, attention_triton

        scale = case.head_dim**-0.5
        for numbers in OTHER_TILES:
            run = partial(attention_triton, q, k, v, scale=scale, tile=Tile(*numbers), **options)
            yield f"tile {numbers}", run


def _with_sdpa_backend(
    backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]
) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with sdpa_kernel(backend):
            return attention(q, k, v, backend="torch", **options)

    return run


def low_pass_runs(
    case: LowPassCase, dtype: torch.dtype, device: torch.device, is_compiled: bool
) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The implementations of one low-pass and noise call, ours first."""
    latents = torch.randn(case.shape, generator=torch.Generator(device).manual_seed(0), device=device).to(dtype)
    yield "ours", lambda: low_pass_noise(latents, case.sigma, 0.7, 1)
    if device.type == "cuda":
        yield "torch", lambda: low_pass_noise(latents, case.sigma, 0.7, 1, backend="torch")
    yield "reference", lambda: low_pass_noise(latents, case.sigma, 0.7, 1, backend="reference")
    if is_compiled:
        compiled = torch.compile(low_pass_noise, dynamic=False)
        yield "compiled reference", lambda: compiled(latents, case.sigma, 0.7, 1, backend="reference")


def time_call(run: Callable[[], Tensor], device: torch.device, budget_s: float) -> float:
    """Median milliseconds of a call, over as many calls as fit in about `budget_s` (3 to 200)."""
    run()
    first = _one_call_ms(run, device, None)
    count = min(200, max(3, int(budget_s * 1e3 / max(first, 1e-3))))
    flush = torch.empty(2**26, dtype=torch.int32, device=device) if device.type == "cuda" else None
    return statistics.median(_one_call_ms(run, device, flush) for _ in range(count))


def _one_call_ms(run: Callable[[], Tensor], device: torch.device, flush: Tensor | None) -> float:
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


def bench_case(
    case: AttentionCase | LowPassCase, dtype: torch.dtype, device: torch.device, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row an implementation; one that cannot run here gives its reason instead of times."""
    flop, size = case.flop(), case.bytes(dtype.itemsize)
    if isinstance(case, AttentionCase):
        runs = attention_runs(case, dtype, device, arguments.compile, arguments.tiles)
    else:
        runs = low_pass_runs(case, dtype, device, arguments.compile)
    ours: Tensor | None = None
    for name, run in runs:
        row: dict[str, Any] = {"case": case.name, "implementation": name, "flop": flop, "bytes": size}
        try:
            result = run()
            ours = result if ours is None else ours
            row["difference_from_ours"] = float((result.float() - ours.float()).abs().max())
            del result
            ms = time_call(run, device, arguments.seconds)
        except (RuntimeError, ImportError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            yield row | {"error": reason[0]}
            continue
        yield row | {"ms": ms, "gflop_per_s": flop / ms / 1e6, "gbyte_per_s": size / ms / 1e6}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    machine: dict[str, Any] = {
        "system": platform.system(),
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _triton_version(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine["gpu"] = properties.name
        machine["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
        machine["cuda"] = torch.version.cuda
        machine["cudnn"] = torch.backends.cudnn.version()
    return machine


def _processor_name() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _triton_version() -> str | None:
    if not is_triton_installed():
        return None
    from importlib.metadata import version

    return version("triton")


def format_row(row: dict[str, Any]) -> str:
    head = f"{row['case']:<28} {row['implementation']:<22}"
    if "error" in row:
        return f"{head} - {row['error'][:80]}"
    return (
        f"{head} {row['ms']:>10.4f} {row['gflop_per_s']:>10.1f} {row['gbyte_per_s']:>9.1f} "
        f"{row['difference_from_ours']:>9.1e}"
    )


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Run the benchmark and print its table; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", choices=list(CASES), help="default: 720p on CUDA, toy on a CPU")
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: bf16 on CUDA, fp32 on a CPU")
    parser.add_argument("--op", choices=["attention", "low_pass"], help="default: both")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=0.5, help="time spent on each implementation")
    parser.add_argument("--compile", action="store_true", help="add the references under torch.compile")
    parser.add_argument("--tiles", action="store_true", help="add other tiles of the attention kernel (CUDA)")
    parser.add_argument("--out", help="name of the file in benchmarks/results/")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    dtype_name = arguments.dtype or ("bf16" if device.type == "cuda" else "fp32")
    kind = {"attention": AttentionCase, "low_pass": LowPassCase, None: object}[arguments.op]
    cases = CASES[arguments.sizes or ("720p" if device.type == "cuda" else "toy")]

    machine = describe_machine(device)
    print(", ".join(f"{key} {value}" for key, value in machine.items()), f"- {dtype_name}")
    print(f"{'case':<28} {'implementation':<22} {'ms':>10} {'GFLOP/s':>10} {'GB/s':>9} {'max diff':>9}")
    rows = []
    with torch.no_grad():
        for case in cases:
            if not isinstance(case, kind):
                continue
            print(f"{case.name}: {case.flop() / 1e9:.4g} GFLOP, {case.bytes(DTYPES[dtype_name].itemsize) / 1e6:.4g} MB")
            for row in bench_case(case, DTYPES[dtype_name], device, arguments):
                rows.append(row | {"dtype": dtype_name, "settings": asdict(case)})
                print(format_row(row), flush=True)
    if arguments.out:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{Path(arguments.out).stem}.json"
        path.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
        print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return rows


if __name__ == "__main__":
    main()
