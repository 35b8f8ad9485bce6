"""The command line of the benchmark and what it writes, without a browser."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_live import MEASURES, microphone_for, parse, print_table


def read(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768


@pytest.mark.parametrize("command", MEASURES)
def test_every_command_is_known_and_has_a_pipeline(command: str) -> None:
    options = parse([command])
    assert options.pipeline == ("test-pattern" if command in ("av", "mic", "network") else "avatar")
    assert parse([command, "--pipeline", "avatar"]).pipeline == "avatar"


def test_options_after_the_dashes_go_to_the_server() -> None:
    options = parse(["mic", "--beeps", "3", "--", "--threads", "1"])
    assert (options.beeps, options.server_options) == (3, ["--threads", "1"])


def test_microphone_is_silent_where_it_is_not_measured(tmp_path: Path) -> None:
    for command in MEASURES:
        microphone_for(command, tmp_path / f"{command}.wav")
        has_sound = bool(np.abs(read(tmp_path / f"{command}.wav")).max() > 0.1)
        assert has_sound == (command in ("mic", "soak", "network")), command


def test_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", [("a", "1", ""), ("long name", "22", "remark")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["title", "  a          1", "  long name  22  remark"]
