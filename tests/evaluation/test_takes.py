from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.takes import Take, choose_takes, read_take, read_takes, runs, silent_frames
from tests.evaluation import toy
from training.synthetic.phones import Phone


def test_take_holds_video_sound_and_keypoints_of_one_length(takes: list[Take]) -> None:
    take = takes[0]
    assert take.presenter == "ana"
    assert take.frames().shape == (150, 128, 128, 3)
    assert len(take.samples) == 150 * 640
    assert take.keypoints.shape == (150, 143, 3)


def test_chosen_takes_are_spread_over_presenters(takes: list[Take]) -> None:
    assert [take.presenter for take in choose_takes(takes, 2)] == ["ana", "ben"]
    assert len(choose_takes(takes, None)) == 4


def test_pauses_leave_out_the_edges_of_speech() -> None:
    phones = [Phone("SIL", 0.0, 1.21), Phone("AA", 1.21, 0.2), Phone("M", 1.6, 0.79)]
    assert runs(silent_frames(phones, 100)) == [(0, 24), (66, 100)]
    assert runs(silent_frames(phones, 70)) == [(0, 24)]


def test_takes_of_another_split_are_left_out(takes_folder: Path) -> None:
    assert len(read_takes(takes_folder, "heldout")) == 4
    assert read_takes(takes_folder, "train") == []


def test_take_without_a_reference_is_refused(tmp_path: Path) -> None:
    toy.write_take(tmp_path, "ana", 0, 2.0, seed=0)
    (tmp_path / "reference_ana_head.png").unlink()
    with pytest.raises(ValueError, match="no reference picture"):
        read_take(tmp_path, "ana_head_heldout_0000")


def test_runs_are_half_open() -> None:
    assert runs(np.array([1, 0, 1, 1], bool)) == [(0, 1), (2, 4)]
