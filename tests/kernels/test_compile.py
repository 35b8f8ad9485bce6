"""The kernels compile for Hopper, which the interpreter does not show; needs triton's ptxas but no GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HOPPER_SHARED_BYTES = 227 * 1024


@pytest.fixture(scope="module")
def needs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each kernel needs, by name."""
    triton = pytest.importorskip("triton")
    tools = Path(triton.__path__[0], "backends", "nvidia", "bin")
    if not all((tools / tool).exists() for tool in ("ptxas", "cuobjdump")):
        pytest.skip("this triton comes without ptxas and cuobjdump")
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {
        "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        "PYTHONPATH": str(script.parents[2]),
    }
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_half_precision_attention_fits_hopper(needs):
    for head_dim in (64, 128):
        row = needs[f"attention bf16 {head_dim} ieee"]
        assert row["shared"] <= HOPPER_SHARED_BYTES
        assert row["stack"] == 0, f"registers spill: {row}"
        assert row["uses_wgmma"]


def test_half_precision_attention_has_a_path_by_tensor_descriptors(needs):
    for head_dim in (64, 128):
        row = needs[f"hopper {head_dim}"]
        assert row["uses_wgmma"] and row["uses_tma"] and row["stack"] == 0
        assert row["shared"] * (2 if head_dim == 64 else 1) <= HOPPER_SHARED_BYTES  # programs a multiprocessor
        assert not needs[f"attention bf16 {head_dim} ieee"]["uses_tma"]


def test_every_op_fits_hopper_without_spilling(needs):
    for name in ("attention cached", "attention int8 64", "attention int8 128", "dual bf16 64", "dual bf16 128"):
        assert needs[name]["uses_wgmma"], name
    for name, row in needs.items():
        most = 8 if name.startswith("low_pass") else 0  # two registers of the unrolled rows
        assert row["stack"] <= most and row["shared"] <= HOPPER_SHARED_BYTES, row
    ops = ("modulate", "qk_norm_rope", "pose_tokens", "rgb_to_i420", "norm_act", "low_pass", "int8", "dual", "hopper")
    assert all(any(name.startswith(op) for name in needs) for op in ops)


def test_odd_cases_compile(needs):
    assert {"attention ones", "attention options", "low_pass ones", "low_pass alone", "low_pass *i64"} <= set(needs)
