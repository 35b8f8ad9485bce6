"""Compile the kernels for GPUs that are not here and print what they need; run by test_compile.py.

    PYTHONPATH=. python tests/kernels/compile_kernels.py [--all]

Compiles what Hopper runs in half precision and the odd cases; with `--all` every row of the tables of tiles.
Prints one JSON object a kernel: name, compute capability, shared memory in bytes, registers a thread, bytes of
stack (spilled registers), and whether Hopper's warp-group products are used.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.attention import triton_kernel as attention
from kernels.low_pass import triton_kernel as low_pass

CUOBJDUMP = Path(triton.__path__[0], "backends", "nvidia", "bin", "cuobjdump")


def compile_kernel(kernel: Any, types: dict[str, str], constants: dict[str, Any], capability: int, **options) -> Any:
    """`types` of the arguments that are not `constants`; pointers and strides count as 16-aligned."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = [name for name in names if signature[name][0] == "*" or ("stride" in name and name not in constants)]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"enable_fp_fusion": True, **options})


def compile_attention(
    dtype: str, head_dim: int, tile: attention.Tile, capability: int, precision: str = "ieee", **constants: Any
) -> Any:
    kernel = attention._attention_kernel
    types = {name: f"*{dtype}" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    types |= {"lengths_ptr": "*i32", "windows_ptr": "*i64", "scale_log2": "fp32"}
    fixed: dict[str, Any] = {name: 1 for name in kernel.arg_names if name.endswith("stride_d")}
    fixed |= {
        "HEAD_DIM": head_dim,
        "BLOCK_D": attention._padded(head_dim),
        "BLOCK_M": tile.queries,
        "BLOCK_N": tile.keys,
        "HAS_LENGTHS": False,
        "HAS_WINDOWS": False,
        "PRECISION": precision,
        "UPCAST": False,
    } | constants
    if not fixed["HAS_LENGTHS"]:
        fixed["lengths_ptr"] = None
    if not fixed["HAS_WINDOWS"]:
        fixed["windows_ptr"] = None
    return compile_kernel(kernel, types, fixed, capability, num_warps=tile.warps, num_stages=tile.stages)


def compile_low_pass(capability: int, is_per_row: bool, seed_type: str, **constants: Any) -> Any:
    kernel = low_pass._low_pass_kernel
    types = dict.fromkeys(kernel.arg_names, "i32")
    types |= dict.fromkeys(("exponent_scale", "centre_weight", "noise_scale"), "fp32")
    types |= {"latents_ptr": "*bf16", "output_ptr": "*bf16", "seed": seed_type, "offset": seed_type}
    fixed = {"RADIUS": 3, "HAS_NOISE": True, "IS_PER_ROW": is_per_row, "BLOCK": low_pass.MAX_BLOCK} | constants
    return compile_kernel(kernel, types, fixed, capability, num_warps=low_pass.WARPS)


def report(name: str, capability: int, compiled: Any) -> None:
    needs: dict[str, Any] = {"name": name, "capability": capability, "shared": compiled.metadata.shared}
    needs["uses_wgmma"] = "wgmma" in compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout)
    assert found, usage.stdout
    needs["registers"], needs["stack"] = (int(number) for number in found.groups())
    print(json.dumps(needs), flush=True)


def main() -> None:
    is_whole = "--all" in sys.argv[1:]
    for capability, tiles in ((90, attention.LARGE_SMEM_TILES), (80, attention.SMALL_SMEM_TILES)):
        for (element_bytes, head_dim), tile in tiles.items():
            if not is_whole and (capability != 90 or element_bytes != 2 or head_dim > 128):
                continue
            dtype = "fp32" if element_bytes == 4 else "bf16"
            for precision in ("ieee", "tf32") if element_bytes == 4 else ("ieee",):
                name = f"attention {dtype} {head_dim} {precision}"
                report(name, capability, compile_attention(dtype, head_dim, tile, capability, precision))

    # Triton turns integer arguments that equal 1 into constants, which can change types inside a kernel.
    small = attention.Tile(16, 16, 4, 2)
    sizes = ("heads", "tiles", "key_count", "group_length", "tiles_per_group", "prefix_length", "query_offset")
    ones = {name: 1 for name in attention._attention_kernel.arg_names if "stride" in name or name in sizes}
    report("attention ones", 90, compile_attention("fp16", 48, small, 90, **ones))
    options = {"HAS_LENGTHS": True, "HAS_WINDOWS": True, "lengths_stride": 1}
    report("attention options", 90, compile_attention("fp32", 48, small, 90, **options))

    for is_per_row, seed_type in ((False, "i64"), (True, "*i64")):
        report(f"low_pass {seed_type}", 90, compile_low_pass(90, is_per_row, seed_type))
    ones = dict.fromkeys(("channels", "frames", "height", "width", "stride_w", "stride_h"), 1)
    report("low_pass ones", 90, compile_low_pass(90, False, "i32", RADIUS=0, **ones))
    report("low_pass alone", 90, compile_low_pass(90, False, "i32", HAS_NOISE=False))


if __name__ == "__main__":
    main()
