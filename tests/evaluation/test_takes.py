from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.takes import Take, choose_takes, read_takes


def test_take_holds_video_sound_and_keypoints_of_one_length(takes: list[Take]) -> None:
    take = takes[0]
    assert take.presenter == "ana"
    assert take.frames().shape == (150, 128, 128, 3)
    assert len(take.samples) == 150 * 640
    assert take.keypoints.shape == (150, 143, 3)


def test_chosen_takes_are_spread_over_presenters(takes: list[Take]) -> None:
    assert [take.presenter for take in choose_takes(takes[::2] + takes[1::2], 2)] == ["ana", "ben"]
    assert len(choose_takes(takes, None)) == 4


def test_folder_without_takes_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "heldout-0000.npz", keypoints=np.zeros(1))
    with pytest.raises(ValueError, match="no take"):
        read_takes(tmp_path)
