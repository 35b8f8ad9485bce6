"""The steps of training/gpu.sh, with a stand-in for python that writes down what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="needs bash and coreutils")

STAND_IN = """#!/usr/bin/env bash
echo "${KERNELS_BACKEND:-any} $*" >>"$CALLS"
case "$*" in
*--unpack*) mkdir -p "$WORK/speech" "$WORK/assets"; touch "$WORK/speech/manifest.json" ;;
*export,archives*) mkdir -p "$WORK/runs/archives"; touch "$WORK/runs/archives/weights-1.tar" ;;
esac
if [[ -n ${FAILS:-} && "$*" == *$FAILS* ]]; then echo "it broke"; exit 1; fi
"""


@pytest.fixture
def step(tmp_path):
    """(step, failing words) → (exit status, output, calls)."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(STAND_IN)
    python.chmod(0o755)

    def run(name: str, fails: str = "") -> tuple[int, str, list[str]]:
        calls.write_text("")
        places = {"PYTHON": python, "CALLS": calls, "WORK": tmp_path / "work", "FAILS": fails, "WORKERS": "3"}
        environment = os.environ | {key: str(value) for key, value in places.items()}
        command = ["bash", "training/gpu.sh", "pack.tar", str(tmp_path / "out"), name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines()

    run.folder = tmp_path  # type: ignore[attr-defined]
    return run


def called(calls: list[str], words: str) -> list[int]:
    return [index for index, call in enumerate(calls) if words in call]


def test_the_four_steps_do_everything_in_order(step):
    status, output, calls = step("render")
    assert status == 0, output
    heldout, training, spoken = called(calls, "-m training.synthetic ")
    assert called(calls, "--unpack")[0] < heldout < training < spoken < called(calls, "training.frames")[0]
    assert "--keypoints-only" in calls[spoken]
    assert "--heldout" in calls[heldout] and "--workers 3" in calls[training] and "--assets" in calls[training]
    assert called(calls, "pytest tests/kernels")

    status, output, calls = step("first")
    assert status == 0, output
    vae, audio, pose, latents = (called(calls, f"--stages {name}")[0] for name in ("vae", "audio", "pose", "latents"))
    animator = called(calls, "--stages animator,animated")[0]
    assert max(vae, audio) < min(pose, latents) < max(pose, latents) < animator < called(calls, "weights-first")[0]

    status, output, calls = step("second")
    assert status == 0, output
    for stages in ("lr_a2v,lr_few_step", "refiner", "generated,refiner_one_step", "vae_decoder", "export,archives"):
        assert called(calls, f"--stages {stages}")
    assert (step.folder / "out" / "weights-1.tar").is_file()

    status, output, calls = step("check")
    assert status == 0, output
    assert called(calls, "benchmarks.bench_kernels") and called(calls, "--stages evaluation")
    assert called(calls, "--name logs-check")


def test_a_failed_stage_ends_the_step_with_its_words_and_the_logs(step):
    status, output, calls = step("second", fails="--stages refiner")
    assert status != 0 and "it broke" in output
    assert called(calls, "--name logs-second") and not called(calls, "export,archives")


def test_kernels_that_fail_are_not_used_in_later_steps(step):
    status, output, _ = step("render", fails="tests/kernels")
    assert status == 0, output
    _, _, calls = step("first")
    assert all(call.startswith("torch ") for call in calls)


def test_an_unknown_step_is_refused(step):
    status, output, _ = step("third")
    assert status == 2 and "there are render, first, second and check" in output
