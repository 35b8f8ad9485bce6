"""All stages in order, from speech and rendered takes to a weights folder: one command, resumable.

    python -m training.recipe training/configs/recipe_cpu.yaml --data DATA --speech SPEECH --out OUT
    python -m training.recipe training/configs/recipe_gpu.yaml --data DATA --speech SPEECH --out OUT

A recipe lists stages: the module, its run configuration, overrides. A finished stage leaves a stamp and is not
run again; its weights are collected in OUT/weights.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from models.checkpoints import write_config
from models.presets import preset
from training.config import build


@dataclass(frozen=True)
class Stage:
    """`arguments` may name {data}, {speech}, {out} and {weights} (OUT/weights)."""

    name: str
    module: str
    arguments: list[str] = field(default_factory=list)


def run_stage(stage: Stage, places: dict[str, str], out: Path) -> None:
    """Run one stage in a process of its own and collect its weights.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    stamp = out / stage.name / "done"
    if stamp.is_file():
        print(f"{stage.name}: done before", flush=True)
        return
    started = time.monotonic()
    arguments = [argument.format(**places) for argument in stage.arguments]
    print(f"{stage.name}: {stage.module} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", stage.module, *arguments], check=True)
    (out / "weights").mkdir(parents=True, exist_ok=True)
    for weights in (out / stage.name / "weights").glob("*.safetensors"):
        shutil.copy(weights, out / "weights" / weights.name)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(f"{time.monotonic() - started:.1f} s\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a preset from end to end.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="rendered takes")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = yaml.safe_load(arguments.recipe.read_text())
    stages = [build(Stage, values) for values in recipe["stages"]]
    out = arguments.out
    places = {
        "data": str(arguments.data),
        "speech": str(arguments.speech),
        "out": str(out),
        "weights": str(out / "weights"),
    }
    for stage in stages:
        run_stage(stage, places, out)
    write_config(out / "weights", preset(recipe["preset"]))
    print(f"weights: {out / 'weights'}", flush=True)


if __name__ == "__main__":
    main()
