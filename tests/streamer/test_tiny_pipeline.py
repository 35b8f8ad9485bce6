"""The real pipeline with random weights behind the command line: the contract holds on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from models import checkpoints
from models.pipeline import AvatarPipeline
from models.presets import preset
from streamer import cli


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    pipeline = AvatarPipeline(preset("tiny"))
    checkpoints.write_config(folder, pipeline.preset)
    for component in checkpoints.components(pipeline.preset):
        checkpoints.save_component(folder, component, getattr(pipeline, component))
    return folder


def test_render_with_the_real_pipeline(weights: Path, wav: Path, picture: Path, tmp_path: Path, capsys) -> None:
    line = ["render", "--audio", wav, "--reference", picture, "--preset", "tiny", "--weights", weights]
    line += ["--out", tmp_path / "clip.mp4", "--report", tmp_path / "clip.json"]
    assert cli.main([str(argument) for argument in line]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "clip.json").read_text())
    assert report["frames"] == 33 and report["preset"] == "tiny"
    assert report["gflop_per_frame"] > 0
    assert {"audio", "lr_a2v", "lr_decode", "pose", "low_pass", "refiner", "decode"} <= report[
        "stage_ms_per_frame"
    ].keys()
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 33


def test_same_seed_renders_the_same_file(weights: Path, wav: Path, picture: Path, tmp_path: Path) -> None:
    clips = []
    for name, seed in (("a", 1), ("b", 1)):
        line = ["render", "--audio", wav, "--reference", picture, "--preset", "tiny", "--weights", weights]
        line += ["--out", tmp_path / f"{name}.mp4", "--seed", seed, "--no-mark"]
        assert cli.main([str(argument) for argument in line]) == 0
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            clips.append([frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0)])
    assert clips[0] == clips[1]


@pytest.mark.parametrize("component", ["vae", "refiner"])
def test_damaged_weights_are_one_sentence(
    weights: Path, wav: Path, picture: Path, tmp_path: Path, capsys, component: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in weights.iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[: len(content) // 2] if path.stem == component else content)
    line = ["render", "--audio", wav, "--reference", picture, "--preset", "tiny", "--weights", broken]
    assert cli.main([str(argument) for argument in line]) == 2
    error = capsys.readouterr().err
    assert "cannot load the models" in error and component in error and len(error.splitlines()) == 1
