"""Every stage runs on toy data, learns something, stops, resumes, and leaves weights that the pipeline loads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoints
from models.pipeline import AvatarPipeline
from models.presets import preset
from tests.training.toy_data import write_toy_data
from training import animated, latents, train_animator, train_lr_a2v, train_pose, train_refiner, train_vae

CONFIGS = Path("training/configs")
QUICK = ["preset=tiny", "loop.minutes=0.02", "loop.report_seconds=0.5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    write_toy_data(folder / "data")
    torch.manual_seed(0)
    checkpoints.save_component(folder / "weights", "audio", AvatarPipeline(preset("tiny")).audio)
    return folder


def run(monkeypatch, stage, *arguments: str) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [stage.__name__, *arguments])
    stage.main()
    torch.set_num_threads(threads)


def keep(folder: Path, stage: str) -> None:
    for path in (folder / stage / "weights").glob("*.safetensors"):
        path.replace(folder / "weights" / path.name)


def last_figures(folder: Path, stage: str) -> dict[str, float]:
    words = (folder / stage / "log.txt").read_text().splitlines()[-1].split("|")[1].split()
    return dict(zip(words[::2], map(float, words[1::2]), strict=True))


def test_stages_one_after_the_other_give_a_pipeline(folder, monkeypatch, capsys):
    data, weights, encoded = f"data={folder}/data", f"weights={folder}/weights", f"latents={folder}/latents"
    run(monkeypatch, train_vae, str(CONFIGS / "vae.yaml"), data, f"out={folder}/vae", "crop=48", *QUICK)
    assert last_figures(folder, "vae")["psnr"] > 20
    keep(folder, "vae")
    run(monkeypatch, train_pose, str(CONFIGS / "pose.yaml"), data, weights, f"out={folder}/pose", *QUICK)
    assert last_figures(folder, "pose")["face_px"] < 8
    keep(folder, "pose")
    paths = [f"--data={folder}/data", f"--weights={folder}/weights", f"--out={folder}/latents"]
    run(monkeypatch, latents, *paths, "--preset=tiny")
    assert [len(latents.load_latents(folder / "latents", False, with_pictures=w)) for w in (True, False)] == [2, 3]
    run(monkeypatch, train_animator, str(CONFIGS / "animator.yaml"), data, encoded, f"out={folder}/animator", *QUICK)
    assert last_figures(folder, "animator")["moved_psnr"] > last_figures(folder, "animator")["still_psnr"]
    keep(folder, "animator")
    run(monkeypatch, animated, f"--latents={folder}/latents", *paths[:2], "--preset=tiny")
    text = f"text={folder}/weights"
    run(monkeypatch, train_lr_a2v, str(CONFIGS / "lr_a2v.yaml"), encoded, f"out={folder}/lr", text, *QUICK)
    assert 0 < last_figures(folder, "lr")["error"] < 10
    keep(folder, "lr")
    run(monkeypatch, animated, f"--latents={folder}/latents", *paths[:2], "--preset=tiny", "--generated-share=0.5")
    shown = [take.tensors["shown_lr"].equal(take.tensors["lr"]) for take in animated.all_takes(folder / "latents")]
    assert sorted(shown) == [False, True, True]
    few = [f"out={folder}/few", f"start={folder}/weights", text, *QUICK]
    run(monkeypatch, train_lr_a2v, str(CONFIGS / "lr_few_step.yaml"), encoded, *few)
    small = ["crop=4", *QUICK]
    run(monkeypatch, train_refiner, str(CONFIGS / "refiner.yaml"), encoded, f"out={folder}/refiner", *small)
    keep(folder, "refiner")
    one = [f"out={folder}/one", f"start={folder}/weights", "crop=12", *QUICK]
    run(monkeypatch, train_refiner, str(CONFIGS / "refiner_one_step.yaml"), encoded, *one)
    keep(folder, "one")
    checkpoints.write_config(folder / "weights", preset("tiny"))
    pipeline = AvatarPipeline.load("tiny", folder / "weights")
    frames, _, _ = pipeline.step(torch.zeros(2560), pipeline.start(torch.rand(3, 96, 96)))
    assert torch.isfinite(frames).all()


def test_a_stopped_run_goes_on_where_it_stopped(folder, monkeypatch, capsys):
    arguments = [str(CONFIGS / "pose.yaml"), f"data={folder}/data", f"weights={folder}/weights", f"out={folder}/again"]
    run(monkeypatch, train_pose, *arguments, *QUICK)
    first = (folder / "again" / "log.txt").read_text().splitlines()
    run(monkeypatch, train_pose, *arguments, *QUICK, "loop.minutes=0.04")
    steps = [int(line.split("step")[1].split()[0]) for line in (folder / "again" / "log.txt").read_text().splitlines()]
    assert len(steps) > len(first) and steps == sorted(steps)
    assert steps[len(first)] > steps[len(first) - 1]


@pytest.mark.parametrize(
    ("stage", "config", "more"),
    [
        (train_vae, "vae.yaml", ["crop=48", "loop.prefetch_threads=2"]),
        (train_pose, "pose.yaml", []),
        (train_lr_a2v, "lr_a2v.yaml", []),
        (train_refiner, "refiner.yaml", ["crop=4"]),
    ],
)
def test_stages_run_in_bf16_and_report_as_they_do_in_single_precision(
    folder, monkeypatch, capsys, stage, config, more
):
    places = {"train_vae": ["data"], "train_pose": ["data", "weights"]}.get(stage.__name__.split(".")[-1], ["latents"])
    arguments = [f"{place}={folder}/{place}" for place in places] + [f"out={folder}/bf16_{stage.__name__}", *more]
    run(monkeypatch, stage, str(CONFIGS / config), *arguments, *QUICK, "loop.bf16=true")
    figures = last_figures(folder, f"bf16_{stage.__name__}")
    assert figures and all(np.isfinite(value) for value in figures.values())


@pytest.mark.parametrize("argument", ["colour=red", "loop.minute=3", "batch"])
def test_unknown_configuration_is_refused_in_words(monkeypatch, capsys, argument):
    with pytest.raises(SystemExit):
        run(monkeypatch, train_vae, str(CONFIGS / "vae.yaml"), "data=x", "out=y", argument)
    assert argument.split("=")[0].split(".")[-1] in capsys.readouterr().err
