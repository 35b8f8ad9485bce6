"""Compile the kernels for GPUs that are not here and print what they need; run by test_compile.py.

    PYTHONPATH=. python tests/kernels/compile_kernels.py [--all]

Compiles what Hopper runs in half precision and the odd cases; with `--all` every row of the tables of tiles.
Prints one JSON object a kernel: name, compute capability, shared memory in bytes, registers a thread, bytes of
stack (spilled registers), and whether Hopper's warp-group products and tensor memory accelerator are used.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.attention import hopper_kernel as hopper
from kernels.attention import int8_kernel as int8
from kernels.attention import triton_kernel as attention
from kernels.dual_cross_attention import triton_kernel as dual
from kernels.low_pass import triton_kernel as low_pass
from kernels.modulate import triton_kernel as modulate
from kernels.norm_act import triton_kernel as norm_act
from kernels.pose_tokens import triton_kernel as pose_tokens
from kernels.qk_norm_rope import triton_kernel as qk_norm_rope
from kernels.rgb_to_i420 import triton_kernel as rgb_to_i420

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
    types |= {"q_scales_ptr": "*fp32", "k_scales_ptr": "*fp32"}
    if constants.get("IS_INT8"):
        types |= {"q_ptr": "*i8", "k_ptr": "*i8", "k_cache_ptr": "*i8"}
    fixed: dict[str, Any] = {name: 1 for name in kernel.arg_names if name.endswith("stride_d")}
    fixed |= {
        "HEAD_DIM": head_dim,
        "BLOCK_D": attention._padded(head_dim),
        "BLOCK_M": tile.queries,
        "BLOCK_N": tile.keys,
        "HAS_LENGTHS": False,
        "HAS_WINDOWS": False,
        "HAS_CACHE": False,
        "IS_INT8": False,
        "PRECISION": precision,
        "UPCAST": False,
    } | constants
    if not fixed["HAS_LENGTHS"]:
        fixed["lengths_ptr"] = None
    if not fixed["HAS_WINDOWS"]:
        fixed["windows_ptr"] = None
    if not fixed["IS_INT8"]:
        fixed |= {"q_scales_ptr": None, "k_scales_ptr": None}
    return compile_kernel(kernel, types, fixed, capability, num_warps=tile.warps, num_stages=tile.stages)


def compile_low_pass(capability: int, is_per_row: bool, seed_type: str, **constants: Any) -> Any:
    kernel = low_pass._low_pass_kernel
    types = dict.fromkeys(kernel.arg_names, "i32")
    types |= dict.fromkeys(("exponent_scale", "centre_weight", "noise_scale"), "fp32")
    types |= {"latents_ptr": "*bf16", "output_ptr": "*bf16", "seed": seed_type, "offset": seed_type}
    fixed: dict[str, Any] = {"RADIUS": 3, "HAS_NOISE": True, "IS_PER_ROW": is_per_row, "IS_ALIGNED": True}
    fixed |= {"ROWS": low_pass.ROWS, "COLUMNS": low_pass.MAX_COLUMNS} | constants
    return compile_kernel(kernel, types, fixed, capability, num_warps=low_pass.WARPS)


def compile_hopper(head_dim: int, **constants: Any) -> Any:
    kernel = hopper._hopper_kernel
    tile = (hopper.CACHED_TILES if constants.get("HAS_CACHE") else hopper.TILES)[head_dim]
    types = {name: "*bf16" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    types |= {"lengths_ptr": "*i32", "scale_log2": "fp32"}
    fixed = dict.fromkeys(("HAS_CACHE", "HAS_PREFIX", "HAS_LENGTHS", "UPCAST"), False)
    fixed |= {"HEAD_DIM": head_dim, "BLOCK_M": tile.queries, "BLOCK_N": tile.keys} | constants
    if not fixed["HAS_LENGTHS"]:
        fixed["lengths_ptr"] = None
    return compile_kernel(kernel, types, fixed, 90, num_warps=tile.warps, num_stages=tile.stages)


def compile_dual(dtype: str, head_dim: int, tile: dual.Tile, capability: int, **constants: Any) -> Any:
    kernel = dual._dual_cross_attention_kernel
    types = {name: f"*{dtype}" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    types |= {"streams_ptr": "*i64", "lengths_ptr": "*i32", "scale_log2": "fp32"}
    fixed: dict[str, Any] = {name: 1 for name in kernel.arg_names if name.endswith("stride_d")}
    fixed |= {"HEAD_DIM": head_dim, "BLOCK_D": attention._padded(head_dim), "BLOCK_M": tile.tokens}
    fixed |= {"BLOCK_N": tile.text_keys, "BLOCK_A": tile.audio_keys, "PRECISION": "ieee", "UPCAST": False}
    fixed |= {"HAS_STREAMS": False, "HAS_LENGTHS": False} | constants
    if not fixed["HAS_STREAMS"]:
        fixed["streams_ptr"] = None
    if not fixed["HAS_LENGTHS"]:
        fixed["lengths_ptr"] = None
    return compile_kernel(kernel, types, fixed, capability, num_warps=tile.warps, num_stages=tile.stages)


def compile_small(kernel: Any, constants: dict[str, Any], capability: int = 90, warps: int = 4, **types: str) -> Any:
    """A kernel of which pointers are bf16 and other arguments integers where `types` does not say otherwise."""
    known = {name: "*bf16" if name.endswith("_ptr") else "i32" for name in kernel.arg_names} | types
    return compile_kernel(kernel, known, constants, capability, num_warps=warps)


def small_kernels(capability: int) -> Iterator[tuple[str, Any]]:
    """The ops that are bound by memory, at the widths of `paper-720p`."""
    present = dict.fromkeys(("HAS_BRANCH", "HAS_GATE", "HAS_SCALE", "HAS_SHIFT", "HAS_WEIGHT", "HAS_BIAS"), True)
    for width in (192, 1792):
        rows, warps = modulate.choose_rows(width)
        sizes = {"WIDTH": width, "BLOCK": triton.next_power_of_2(width), "ROWS": rows, "IS_LAYER": True}
        steps = {name: 1 for name in modulate._modulate_kernel.arg_names if name.endswith("stride_d")}
        constants = present | sizes | steps
        compiled = compile_small(modulate._modulate_kernel, constants, capability, warps, eps="fp32")
        yield f"modulate {width}", compiled
    for heads, head_dim in ((28, 64), (12, 128)):
        kernel = qk_norm_rope._qk_norm_rope_kernel
        constants = {"HEADS": heads, "HALF": head_dim // 2, "BLOCK_N": triton.next_power_of_2(heads)}
        constants |= {"BLOCK_H": head_dim // 2, "IS_ACROSS_HEADS": heads == 12}
        constants |= {name: 1 for name in kernel.arg_names if name.endswith("stride_d")}
        yield f"qk_norm_rope {heads}x{head_dim}", compile_small(
            kernel, constants, capability, eps="fp32", cos_ptr="*fp32", sin_ptr="*fp32"
        )
    blocks = {"BLOCK_Y": pose_tokens.BLOCK_Y, "BLOCK_X": pose_tokens.BLOCK_X, "POINTS": pose_tokens.POINTS}
    yield "pose_tokens", compile_small(
        pose_tokens._pose_tokens_kernel, blocks, capability,
        keypoints_ptr="*fp32", ranges_ptr="*i32", factors_ptr="*fp32", ceiling="fp32",
    )  # fmt: skip
    weights = {name: "fp32" for name in rgb_to_i420._rgb_to_i420_kernel.arg_names if name[:2] in ("y_", "u_", "v_")}
    yield "rgb_to_i420", compile_small(
        rgb_to_i420._rgb_to_i420_kernel, {"BLOCK": 512, "stride_w": 1}, capability, out_ptr="*u8", **weights
    )
    for stride in ("stride_c", "stride_p"):
        block, pixels = norm_act.choose_tile(384, is_last=stride == "stride_c")
        constants = {"CHANNELS": 384, "BLOCK_C": block, "PIXELS": pixels, "HAS_BIAS": False, "bias_ptr": None}
        constants |= {stride: 1, f"output_{stride}": 1, "gain_stride": 1}
        warps = 8 if block * pixels > norm_act.WIDE_TILE else 4
        yield f"norm_act {stride}", compile_small(norm_act._norm_act_kernel, constants, capability, warps, eps="fp32")
    constants = {"HEAD_DIM": 64, "BLOCK_D": 64, "ROWS": int8.ROWS, "HAS_MEAN": True, "stride_d": 1}
    yield "int8 rows", compile_small(
        int8._quantise_kernel, constants, capability,
        mean_ptr="*fp32", rows_ptr="*i8", scales_ptr="*fp32", per_step="fp32", smallest="fp32",
    )  # fmt: skip


def report(name: str, capability: int, compiled: Any) -> None:
    needs: dict[str, Any] = {"name": name, "capability": capability, "shared": compiled.metadata.shared}
    needs["uses_wgmma"] = "wgmma" in compiled.asm["ptx"]
    needs["uses_tma"] = "cp.async.bulk.tensor" in compiled.asm["ptx"]
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
    sizes: tuple[str, ...] = ("heads", "tiles", "query_count", "key_count", "cache_length", "group_length")
    sizes += ("tiles_per_group", "prefix_length", "query_offset")
    ones = {name: 1 for name in attention._attention_kernel.arg_names if "stride" in name or name in sizes}
    report("attention ones", 90, compile_attention("fp16", 48, small, 90, **ones))
    options = {"HAS_LENGTHS": True, "HAS_WINDOWS": True, "lengths_stride": 1}
    report("attention options", 90, compile_attention("fp32", 48, small, 90, **options))
    cached = compile_attention("bf16", 64, attention.LARGE_SMEM_TILES[2, 64], 90, HAS_CACHE=True)
    report("attention cached", 90, cached)
    for head_dim in (64, 128):
        tile = attention.LARGE_SMEM_TILES[2, head_dim]
        report(f"attention int8 {head_dim}", 90, compile_attention("bf16", head_dim, tile, 90, IS_INT8=True))
        report(f"hopper {head_dim}", 90, compile_hopper(head_dim))
        report(f"hopper {head_dim} cached", 90, compile_hopper(head_dim, HAS_CACHE=True))
    report("hopper options", 90, compile_hopper(64, HAS_PREFIX=True, HAS_LENGTHS=True))

    for (element_bytes, head_dim), dual_tile in dual.TILES.items():
        if is_whole or (element_bytes == 2 and head_dim < 256):
            dtype = "fp32" if element_bytes == 4 else "bf16"
            report(f"dual {dtype} {head_dim}", 90, compile_dual(dtype, head_dim, dual_tile, 90))
    options = {"HAS_STREAMS": True, "HAS_LENGTHS": True, "streams": 1, "text_count": 1}
    report("dual options", 90, compile_dual("fp16", 128, dual.TILES[2, 128], 90, **options))
    for capability in (90, 80) if is_whole else (90,):
        for name, compiled in small_kernels(capability):
            report(name, capability, compiled)

    for is_per_row, seed_type in ((False, "i64"), (True, "*i64")):
        report(f"low_pass {seed_type}", 90, compile_low_pass(90, is_per_row, seed_type))
    ones = dict.fromkeys(("channels", "frames", "height", "width", "tiles", "stride_w", "stride_h"), 1)
    report("low_pass ones", 90, compile_low_pass(90, False, "i32", RADIUS=0, IS_ALIGNED=False, **ones))
    report("low_pass alone", 90, compile_low_pass(90, False, "i32", HAS_NOISE=False))


if __name__ == "__main__":
    main()
