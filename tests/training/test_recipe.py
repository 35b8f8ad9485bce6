"""Recipes: which stages run, for how long, with what; and the whole GPU recipe at toy size on the CPU."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
import yaml

from models.pipeline import AvatarPipeline
from tests.training.synthetic.corpus import write_corpus
from tests.training.toy_data import write_toy_data
from training import recipe
from training.recipe import Stage, choose_stages, override, read_recipe, run_stage, scale_minutes

CONFIGS = Path("training/configs")


@pytest.mark.parametrize("name", ["recipe_cpu.yaml", "recipe_gpu.yaml"])
def test_recipes_name_modules_and_run_configurations_that_are_there(name):
    for stage in read_recipe(CONFIGS / name).stages:
        assert Path(*stage.module.split(".")).with_suffix(".py").is_file() or Path(stage.module).is_dir()
        assert all(Path(argument).is_file() for argument in stage.arguments if argument.endswith(".yaml"))


def test_stages_keep_the_order_of_the_recipe():
    stages = [Stage(name, "m") for name in ("a", "b", "c")]
    assert [stage.name for stage in choose_stages(stages, "c,a")] == ["a", "c"]
    assert choose_stages(stages, "") == stages
    with pytest.raises(ValueError, match="no stage d; there are a, b, c"):
        choose_stages(stages, "a,d")


def test_overrides_go_to_their_stage():
    a, b = override([Stage("a", "m", ["x.yaml"]), Stage("b", "m")], ["a:batch=4", "a:loop.minutes=2"])
    assert a.arguments == ["x.yaml", "batch=4", "loop.minutes=2"] and b.arguments == []
    for wrong in ("c:batch=4", "batch=4", "a:batch"):
        with pytest.raises(ValueError, match="stage:key=value with a stage of a, b"):
            override([a, b], [wrong])


def test_minutes_are_scaled_from_the_recipe_or_the_run_configuration():
    config = str(CONFIGS / "lr_a2v.yaml")
    assert scale_minutes(Stage("a", "m", [config, "loop.minutes=8"]), 0.25).arguments[-1] == "loop.minutes=2"
    minutes = yaml.safe_load((CONFIGS / "lr_a2v.yaml").read_text())["loop"]["minutes"]
    assert scale_minutes(Stage("a", "m", [config]), 0.1).arguments[-1] == f"loop.minutes={0.1 * minutes:g}"
    other = Stage("latents", "m", ["--data=x"])
    assert scale_minutes(other, 0.25) is other


def test_a_finished_stage_is_not_run_again(tmp_path, capsys):
    stage = Stage("year", "calendar", ["2026", "1"])
    run_stage(stage, {}, tmp_path)
    assert (tmp_path / "year" / "done").is_file()
    run_stage(Stage("year", "no_such_module"), {}, tmp_path)
    assert "done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--stages", "paint"], "no stage paint"), (["vae=3"], "stage:key=value")]
)
def test_bad_arguments_are_refused_in_words(arguments, said, tmp_path, capsys):
    places = [part for place in ("data", "speech", "out") for part in (f"--{place}", str(tmp_path))]
    with pytest.raises(SystemExit):
        recipe.main([str(CONFIGS / "recipe_gpu.yaml"), *places, *arguments])
    assert said in capsys.readouterr().err


def test_the_gpu_recipe_runs_at_toy_size_in_two_commands(tmp_path, monkeypatch, capsys):
    def in_this_process(command, check):
        threads = torch.get_num_threads()
        monkeypatch.setattr(sys, "argv", command[2:])
        importlib.import_module(command[2]).main()
        torch.set_num_threads(threads)

    monkeypatch.setattr(recipe.subprocess, "run", in_this_process)
    write_toy_data(tmp_path / "data")
    (tmp_path / "speech").mkdir()
    write_corpus(tmp_path / "speech")
    common = [str(CONFIGS / "recipe_gpu.yaml"), "--device", "cpu", "--preset", "tiny", "--minutes-scale", "0.001"]
    common += [part for place in ("data", "speech", "out") for part in (f"--{place}", str(tmp_path / place))]
    small = ["vae:crop=48", "vae_decoder:crop=48", "refiner:crop=4", "refiner_one_step:crop=12", "pose:batch=16"]
    small += [f"{stage}:batch=4" for stage in ("audio", "vae", "vae_decoder", "lr_a2v", "refiner")]
    small += ["animator:windows=4", "animator:pictures=2"]
    recipe.main([*common, "--stages", "audio,vae,pose,latents,animator,animated", *small])
    second = "lr_a2v,lr_few_step,refiner,generated,refiner_one_step,vae_decoder"
    recipe.main([*common, "--stages", second, *small])
    weights = tmp_path / "out" / "weights"
    pipeline = AvatarPipeline.load("tiny", weights)
    frames, _, _ = pipeline.step(torch.zeros(2560), pipeline.start(torch.rand(3, 96, 96)))
    assert torch.isfinite(frames).all()

    part = [*common[:-1], str(tmp_path / "again"), "--stages", "latents", "--start", str(weights)]
    recipe.main(part)  # with the components of another run, on a machine that has nothing else
    assert list((tmp_path / "again" / "latents").glob("*.safetensors"))
