"""All stages in order, from speech and rendered takes to a weights folder: one command, resumable.

    python -m training.recipe training/configs/recipe_cpu.yaml --data DATA --speech SPEECH --out OUT
    python -m training.recipe training/configs/recipe_gpu.yaml … --stages vae,pose --minutes-scale 0.5 vae:batch=16

A recipe lists stages: the module, its run configuration, overrides. A finished stage leaves a stamp and is not
run again; its weights are collected in OUT/weights. Stages that need nothing of each other can be run by several
commands at once, each with its own --stages.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from models.checkpoints import COMPONENTS, write_config
from models.presets import preset
from training.config import build


@dataclass(frozen=True)
class Stage:
    """`arguments` may name {data}, {speech}, {out}, {weights} (OUT/weights), {preset} and {device}."""

    name: str
    module: str
    arguments: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    preset: str
    stages: list[Stage]
    device: str = "cpu"


def read_recipe(path: Path) -> Recipe:
    """A recipe file."""
    values = yaml.safe_load(path.read_text())
    return build(Recipe, values | {"stages": [build(Stage, stage) for stage in values["stages"]]})


def choose_stages(stages: Sequence[Stage], names: str) -> list[Stage]:
    """Stages whose names are in a comma-separated list, in the recipe's order; all of them for "".

    Raises:
        ValueError: for a name that no stage has.
    """
    wanted = [name for name in names.split(",") if name]
    if unknown := sorted(set(wanted) - {stage.name for stage in stages}):
        raise ValueError(f"no stage {', '.join(unknown)}; there are {', '.join(stage.name for stage in stages)}")
    return [stage for stage in stages if not wanted or stage.name in wanted]


def override(stages: Sequence[Stage], overrides: Sequence[str]) -> list[Stage]:
    """Stages with `stage:key=value` added to their arguments.

    Raises:
        ValueError: for what is not of that form, or names no stage.
    """
    more: dict[str, list[str]] = {stage.name: [] for stage in stages}
    for text in overrides:
        name, separator, argument = text.partition(":")
        if not separator or "=" not in argument or name not in more:
            raise ValueError(f"{text!r} is not stage:key=value with a stage of {', '.join(more)}")
        more[name].append(argument)
    return [replace(stage, arguments=stage.arguments + more[stage.name]) for stage in stages]


def scale_minutes(stage: Stage, scale: float) -> Stage:
    """The stage with `loop.minutes` times `scale`; a stage without a run configuration stays as it is."""
    if scale == 1 or not stage.arguments or not stage.arguments[0].endswith(".yaml"):
        return stage
    minutes = (yaml.safe_load(Path(stage.arguments[0]).read_text()) or {}).get("loop", {}).get("minutes")
    for argument in stage.arguments:
        key, _, value = argument.partition("=")
        minutes = float(value) if key == "loop.minutes" else minutes
    if minutes is None:
        raise ValueError(f"stage {stage.name} says nowhere how many minutes it takes")
    return replace(stage, arguments=[*stage.arguments, f"loop.minutes={minutes * scale:.5g}"])


def start_from(weights: Path, out: Path) -> None:
    """Copy the components that OUT/weights lacks from another weights folder."""
    (out / "weights").mkdir(parents=True, exist_ok=True)
    for component in COMPONENTS:
        source, target = weights / f"{component}.safetensors", out / "weights" / f"{component}.safetensors"
        if source.is_file() and not target.is_file():
            shutil.copy(source, target)


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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a preset from end to end.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="stage:key=value", help="added to a stage's arguments")
    parser.add_argument("--data", type=Path, required=True, help="rendered takes")
    parser.add_argument("--speech", type=Path, required=True, help="speech corpus")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stages", default="", help="only these, by comma; default all")
    parser.add_argument("--minutes-scale", type=float, default=1.0, help="factor of every stage's training time")
    parser.add_argument("--start", type=Path, help="weights of components whose stages are not run")
    parser.add_argument("--device", help="default: the recipe's")
    parser.add_argument("--preset", help="default: the recipe's")
    options = parser.parse_intermixed_args(arguments)
    recipe = read_recipe(options.recipe)
    name, out = options.preset or recipe.preset, options.out
    try:
        stages = choose_stages(override(recipe.stages, options.overrides), options.stages)
        stages = [scale_minutes(stage, options.minutes_scale) for stage in stages]
    except ValueError as error:
        parser.error(str(error))
    places = {key: str(getattr(options, key)) for key in ("data", "speech", "out")}
    places |= {"weights": str(out / "weights"), "preset": name, "device": options.device or recipe.device}
    if options.start:
        start_from(options.start, out)
    write_config(out / "weights", preset(name))
    for stage in stages:
        run_stage(stage, places, out)
    print(f"weights: {out / 'weights'}", flush=True)


if __name__ == "__main__":
    main()
