"""Portraits on disk."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic.portraits.toy import toy_portraits
from training.synthetic.portraits.shards import PortraitSet, write_shard


def test_rows_come_back_from_any_shard(tmp_path: Path):
    portraits = toy_portraits(5)
    write_shard(tmp_path / "0000000", portraits[:2], [3, 3])
    write_shard(tmp_path / "0000020", portraits[2:], [21, 22, 22])
    stored = PortraitSet(tmp_path)
    assert len(stored) == 5 and stored.seeds.tolist() == [3, 3, 21, 22, 22]
    for row, (picture, landmarks, shares) in zip(
        (4, 1, 2), stored.rows(np.array([4, 1, 2]), "pictures", "landmarks", "shares"), strict=True
    ):
        assert np.array_equal(picture, portraits[row].picture)
        assert np.array_equal(landmarks, portraits[row].landmarks)
        assert np.allclose(shares[..., 2] / 255, portraits[row].layout.matte, atol=1 / 255)
    assert np.array_equal(stored.all("front"), np.stack([p.layout.front for p in portraits]).astype(np.float16))


def test_a_half_written_shard_is_not_read(tmp_path: Path):
    write_shard(tmp_path / "0000000", toy_portraits(1), [0])
    (tmp_path / "0000020.partial").mkdir()
    np.save(tmp_path / "0000020.partial" / "seeds.npy", np.zeros(3))
    assert len(PortraitSet(tmp_path)) == 1


def test_an_empty_folder_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no shards"):
        PortraitSet(tmp_path)
