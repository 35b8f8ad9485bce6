"""The whole chain on drawn presenters: takes in, report out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import evaluation.__main__ as main
from models.pipeline import AvatarPipeline
from models.presets import preset
from tests.evaluation import toy


def evaluate(folder: Path, out: Path, *more: str) -> dict[str, dict]:
    """Run and return the checks of all sections by name."""
    main.run(main.parse_arguments(["--data", str(folder), "--out", str(out), "--no-identity", *more]))
    sections = json.loads((out / "report.json").read_text())["sections"]
    return {title: {check["name"]: check for check in checks} for title, checks in sections.items()}


def use_toy(monkeypatch: pytest.MonkeyPatch, pipeline: toy.ToyPipeline) -> None:
    monkeypatch.setattr(main.AvatarPipeline, "load", lambda *arguments: pipeline)


def test_truth_scores_as_the_truth(takes_folder: Path, tmp_path: Path) -> None:
    found = evaluate(takes_folder, tmp_path, "--truth")
    lips = found["Lips"]
    assert lips["aperture r, worst clip"]["value"] > 0.98
    assert lips["amplitude of the truth, mean"]["value"] == pytest.approx(1, abs=0.1)
    assert lips["p/b/m shut"]["value"] > 0.95
    assert lips["lag of the picture, frames, size of the mean"]["value"] < 0.1
    assert found["Picture"]["gradient energy of the truth's"]["value"] == 1


def test_perfect_pipeline_passes_and_leaves_sheets(
    takes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_toy(monkeypatch, toy.ToyPipeline())
    options = ("--long", "15", "--long-count", "1", "--silence", "10", "--stage-clips", "0")
    found = evaluate(takes_folder, tmp_path, *options)
    lips, silence = found["Lips"], found["Silence"]
    assert lips["aperture r, worst clip"]["holds"] and lips["p/b/m shut"]["holds"]
    assert lips["lag of the picture, frames, size of the mean"]["value"] < 0.2
    assert silence["mouth motion of speaking, worst"]["holds"] and silence["share of frames shut, worst"]["holds"]
    assert silence["blinks seen of blinks planned"]["value"] == pytest.approx(1)
    assert found["Long"]["colour change ΔE, worst 5 s"]["holds"]
    names = {path.name for path in (tmp_path / "sheets").iterdir()}
    assert {"ana_head_heldout_0000.jpg", "silence-ana.jpg", "long-ana.jpg"} <= names
    assert "✓" in (tmp_path / "report.md").read_text()


def test_late_and_lazy_mouth_is_found_out(
    takes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_toy(monkeypatch, toy.ToyPipeline(mouth_gain=0.4, late_frames=3))
    options = ("--clips", "2", "--long", "0", "--silence", "0", "--stage-clips", "0")
    found = evaluate(takes_folder, tmp_path, *options)
    lips = found["Lips"]
    assert lips["lag of the picture, frames, size of the mean"]["value"] == pytest.approx(3, abs=0.3)
    assert lips["lag of the picture, frames, size of the mean"]["holds"] is False
    assert lips["amplitude of the truth, mean"]["value"] == pytest.approx(0.4, abs=0.1)
    assert found["Control"]["clips"]["holds"] is False


def test_untrained_pipeline_goes_through_every_stage(
    takes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pipeline = AvatarPipeline(preset("tiny"))
    monkeypatch.setattr(main.AvatarPipeline, "load", lambda *arguments: pipeline)
    options = ("--clips", "1", "--long", "15", "--long-count", "1", "--silence", "4", "--stage-clips", "1")
    found = evaluate(takes_folder, tmp_path, *options)
    assert found["VAE"]["VAE PSNR, dB"]["value"] > 0
    assert found["Refiner from true inputs"]["refiner PSNR, dB"]["holds"] is False
    assert found["Lips after each stage given the truth"]["VAE: aperture r"]["value"] is not None
    assert found["Lips"]["aperture r, mean"]["holds"] is False
    assert found["Silence"]["opening above shut, px of 256, worst"]["value"] is not None
    assert len(json.loads((tmp_path / "report.json").read_text())["long"][0]["delta_e"]) == 3


def test_bad_input_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["evaluation", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--truth"]
    monkeypatch.setattr(main.sys, "argv", arguments)
    assert main.main() == 1
    assert capsys.readouterr().err.startswith("evaluation: no finished take")
