"""`avatars check`, `avatars make` and `render --reference` of what it made, with the networks that are shipped."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from models.gallery import list_avatars
from models.presenter import Presenter
from streamer import cli
from tests.streamer.test_cli import fails


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    path = tmp_path / "wall.png"
    Image.effect_noise((300, 300), 40).save(path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A presenter 720 wide and 1280 high."""
    path = tmp_path_factory.mktemp("made") / "new" / "her.safetensors"
    assert cli.main(["avatars", "make", str(list_avatars()[0].picture), "--out", str(path), "--size", "720x1280"]) == 0
    return path


def test_check_prints_a_line_a_check(capsys) -> None:
    assert cli.main(["avatars", "check", str(list_avatars()[0].picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and all(line.split()[0] in ("ok", "warning") for line in lines)
    assert lines[0].split(maxsplit=2) == ["ok", "face", "A face was found."]


def test_check_ends_with_2_when_the_picture_is_refused(wall: Path, capsys) -> None:
    assert cli.main(["avatars", "check", str(wall), "--json"]) == 2
    (check,) = json.loads(capsys.readouterr().out)
    assert (check["name"], check["verdict"]) == ("face", "refused") and "front" in check["advice"]


def test_what_is_no_picture_is_told_in_a_sentence(wall: Path, tmp_path: Path, capsys) -> None:
    assert "there is no picture" in fails(capsys, 2, "avatars", "check", tmp_path / "none.png")
    wall.write_bytes(b"no picture")
    assert "is not a picture" in fails(capsys, 2, "avatars", "check", wall)
    assert "is not a picture" in fails(capsys, 2, "avatars", "make", wall, "--out", tmp_path / "it.safetensors")


def test_make_writes_a_presenter_of_the_size(made: Path) -> None:
    assert Presenter.load(made).size == (1280, 720)
    assert [path.name for path in made.parent.iterdir()] == ["her.safetensors"]


def test_make_writes_nothing_of_a_picture_that_is_refused(wall: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "nobody.safetensors"
    assert "No face was found" in fails(capsys, 2, "avatars", "make", wall, "--out", out)
    assert not out.exists()


def test_make_needs_a_place_to_write(wall: Path, capsys) -> None:
    assert "must end in .safetensors" in fails(capsys, 1, "avatars", "make", wall, "--out", "her.png")
    fails(capsys, 1, "avatars", "make", wall, "--out", "/proc/her.safetensors")


def test_a_presenter_is_rendered_in_its_own_size(made: Path, wav: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "clip.mp4"
    assert cli.main(["render", "--audio", str(wav), "--reference", str(made), "--out", str(out), "--no-mark"]) == 0
    with av.open(str(out)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 33 and pictures[0].shape == (1280, 720, 3)
    corner = slice(0, 150), slice(0, 150)  # of the room, where nothing moves
    assert np.abs(pictures[0][corner].astype(float) - Presenter.load(made).picture[corner]).mean() < 4


def test_a_presenter_fits_its_own_size_and_portraits_only(made: Path, wav: Path, tmp_path: Path, capsys) -> None:
    line = ["render", "--audio", wav, "--out", tmp_path / "clip.mp4", "--reference", made]
    assert "(1280, 720)" in fails(capsys, 2, *line, "--size", "512")
    assert "needs a picture" in fails(capsys, 2, *line, "--preset", "presenter-256")
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("content", ["nothing", "text", "another", "part"])
def test_files_that_hold_no_presenter_are_told_in_a_sentence(
    made: Path, wav: Path, tmp_path: Path, capsys, content: str
) -> None:
    path = tmp_path / "it.safetensors"
    if content == "text":
        path.write_text("no presenter")
    elif content == "another":
        save_file({"picture": np.zeros(1)}, path)
    elif content == "part":
        arrays = load_file(made)
        del arrays["layout.head"]
        save_file(arrays, path, {"format": "presenter 1"})
    sentence = fails(capsys, 2, "render", "--audio", wav, "--reference", path, "--out", tmp_path / "clip.mp4")
    assert "it.safetensors" in sentence
