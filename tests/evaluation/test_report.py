from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.checks import at_least, at_most, told
from evaluation.report import check_table, plain, write_report
from evaluation.sheets import contact_sheet, telling_moments


def test_checks_say_what_holds() -> None:
    table = check_table("Lips", [at_least("r", 0.7, 0.6), at_most("lag", 2.0, 1), told("n", 3, 0)])
    assert "| r | 0.70 | ≥ 0.6 | ✓ |" in table
    assert "| lag | 2.00 | ≤ 1 | ✗ |" in table
    assert "| n | 3 |  |  |" in table


def test_what_was_not_measured_neither_holds_nor_fails() -> None:
    assert at_least("r", float("nan"), 0.6).holds is None


def test_report_is_markdown_and_strict_json(tmp_path: Path) -> None:
    sections = {"Lips": [at_least("r", 0.5, 0.6), told("rest", float("nan"))]}
    target = write_report(tmp_path, "Title", {"command": "x"}, sections, [], [], {"a": np.arange(2)}, [])
    assert "0 thresholds hold, 1 do not: r." in target.read_text()
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["sections"]["Lips"][1]["value"] is None
    assert values["details"]["a"] == [0, 1]


def test_plain_turns_numbers_of_arrays_into_numbers() -> None:
    assert plain({"a": (np.float32(1), float("inf"))}) == {"a": [1.0, None]}


def test_sheet_has_a_row_a_video_and_a_column_a_moment(tmp_path: Path) -> None:
    rows = {"truth": np.zeros((30, 64, 64, 3), np.uint8), "LR": np.zeros((30, 32, 32, 3), np.uint8)}
    contact_sheet(tmp_path / "sheet.png", rows, np.array([1, 20, 29]), side=48)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (64 + 3 * 48, 16 + 2 * 48)


@pytest.mark.parametrize("closures", [0, 2, 9])
def test_telling_moments_show_closures_and_openings(closures: int) -> None:
    closure = np.zeros(100)
    closure[np.arange(closures) * 10 + 5] = 1
    moments = telling_moments(np.sin(np.arange(100.0)), closure, 8)
    assert 6 <= len(moments) <= 8
    assert sum(closure[moments]) == min(closures, 4)
