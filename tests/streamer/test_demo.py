from __future__ import annotations

import stat
from pathlib import Path

import pytest

from streamer import demo


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """What the demo hands to the command line; nothing is rendered and no sound package is installed."""
    seen: list[list[str]] = []
    monkeypatch.setattr(demo.cli, "main", lambda argv: seen.append(list(argv)) or 0)
    monkeypatch.setattr(demo, "SOUNDS", Path("sounds"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return seen


def install_command(folder: Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_without_apt_the_built_in_voice_speaks(commands: list[list[str]], tmp_path: Path, capsys) -> None:
    assert demo.main(["--folder", str(tmp_path / "out")]) == 0
    assert commands[0][:2] == ["say", demo.TEXT]
    assert str(tmp_path / "out" / "demo.mp4") in capsys.readouterr().out


def test_sentence_is_fetched_once_with_apt(commands: list[list[str]], tmp_path: Path, capsys) -> None:
    archive = f"{demo.PACKAGE}_1_all.deb"
    install_command(tmp_path, "apt-get", f'[ "$1" = download ] && : > {archive} && echo called >> {tmp_path}/calls')
    unpacked = f"sounds/en_US/{demo.SENTENCE}"
    install_command(tmp_path, "dpkg", f"/bin/mkdir -p sounds/en_US && : > {unpacked}")
    for _ in range(2):
        assert demo.main(["--folder", str(tmp_path / "out")]) == 0
    expected = tmp_path / "out" / "sound" / unpacked
    assert [command[:3] for command in commands] == [["render", "--audio", str(expected)]] * 2
    assert (tmp_path / "calls").read_text().count("called") == 1
    assert "CC BY-SA" in capsys.readouterr().out


def test_a_package_without_the_sentence_is_no_obstacle(commands: list[list[str]], tmp_path: Path) -> None:
    install_command(tmp_path, "apt-get", f": > {demo.PACKAGE}_1_all.deb")
    install_command(tmp_path, "dpkg", "exit 2")
    assert demo.main(["--folder", str(tmp_path / "out")]) == 0
    assert commands[0][0] == "say"
