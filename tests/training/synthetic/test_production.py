import json

import numpy as np
import pytest

from tests.training.synthetic.corpus import write_corpus
from training.synthetic import shards
from training.synthetic.__main__ import parse_arguments
from training.synthetic.production import plan, share_out, write_sheet
from training.synthetic.takes import TakeSpec, make_take


def drawn(take):
    """Stands in for a presenter: a grey picture whose lower half shows the jaw."""
    for index, pose in enumerate(take.poses()):
        picture = np.full((64, 64, 3), 90, np.uint8)
        picture[32:] = (200, 60 + index, 40)
        yield picture, np.full((143, 3), pose.face[24], np.float32)


@pytest.fixture
def take(tmp_path):
    return make_take(TakeSpec("maya", 0, n_frames=30), write_corpus(tmp_path))


def test_a_take_is_read_back_as_it_was_written(take, tmp_path):
    shards.write(tmp_path / "out", take, drawn(take))
    shard = shards.read(tmp_path / "out", take.spec.name)
    for name in ("face", "shown_face", "closure", "motion"):
        np.testing.assert_array_equal(getattr(shard, name), getattr(take, name))
    np.testing.assert_array_equal(shard.keypoints[:, 0, 0], take.shown_face[:, 24])
    np.testing.assert_allclose(shard.samples, take.samples, atol=1e-4)
    frames = np.stack([picture for picture, _ in drawn(take)]).astype(float)
    assert shard.frames.shape == frames.shape and np.abs(shard.frames - frames).mean() < 2
    assert shard.description["prompt"] == take.prompt
    assert shards.list_shards(tmp_path / "out", split="train", presenter="maya") == [shard.name]
    assert shards.list_shards(tmp_path / "out", split="heldout") == []
    assert shards.read(tmp_path / "out", shard.name, with_frames=False).frames is None


def test_a_take_of_keypoints_alone_is_read_back_without_pictures(take, tmp_path):
    keypoints = [points for _, points in drawn(take)]
    shards.write(tmp_path / "out", take, keypoints=keypoints)
    shard = shards.read(tmp_path / "out", take.spec.name, with_frames=False)
    np.testing.assert_array_equal(shard.keypoints, np.stack(keypoints))
    with pytest.raises(ValueError, match="no pictures of take"):
        shards.read(tmp_path / "out", take.spec.name)
    with pytest.raises(ValueError, match="30 frames, 29 were rendered"):
        shards.write(tmp_path / "less", take, keypoints=keypoints[1:])


def test_an_unfinished_take_does_not_count(take, tmp_path):
    with pytest.raises(ValueError, match="30 frames, 10 were rendered"):
        shards.write(tmp_path / "out", take, (pair for _, pair in zip(range(10), drawn(take), strict=False)))
    assert not shards.is_finished(tmp_path / "out", take.spec.name)
    assert shards.list_shards(tmp_path / "out") == []
    with pytest.raises(ValueError, match="no finished take"):
        shards.read(tmp_path / "out", take.spec.name)


def test_a_sheet_shows_a_row_a_take(take, tmp_path):
    from PIL import Image

    shards.write(tmp_path, take, drawn(take))
    write_sheet(tmp_path, [take.spec.name], tmp_path / "sheet.png", columns=5)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (5 * 64, 64)


def test_parts_that_disagree_are_refused(take, tmp_path):
    shards.write(tmp_path, take, drawn(take))
    other = make_take(TakeSpec("maya", 1, n_frames=20), write_corpus(tmp_path))
    shards.write(tmp_path, other, drawn(other))
    (tmp_path / f"{other.spec.name}.mp4").replace(tmp_path / f"{take.spec.name}.mp4")
    with pytest.raises(ValueError, match="20 frames of video, 30 of arrays"):
        shards.read(tmp_path, take.spec.name)
    assert json.loads((tmp_path / f"{take.spec.name}.json").read_text())["n_frames"] == 30


def test_presenters_take_turns_and_voices_too():
    specs = plan(["maya", "tom"], 3000, 500, "heldout", "head", 1, ["allison", "awb"])
    assert [spec.presenter for spec in specs] == ["maya", "tom"] * 3
    assert [spec.voice for spec in specs[::2]] == ["allison", "awb", "allison"]
    assert len({spec.name for spec in specs}) == 6
    with pytest.raises(ValueError, match="0 presenters"):
        plan([], 3000, 500, "train", "head", 0)


def test_a_presenter_stays_with_one_worker():
    specs = plan(["maya", "tom", "lin"], 6000, 500, "train", "head", 0)
    shares = share_out(specs, 2)
    assert sum(len(share) for share in shares) == len(specs)
    assert {spec.presenter for spec in shares[0]}.isdisjoint(spec.presenter for spec in shares[1])
    assert len(share_out(specs[::3], 2)) == 2  # one presenter, two workers


def test_command_line_is_checked(capsys):
    parsed = parse_arguments(["--out", "a", "--speech", "b", "--minutes", "2"])
    assert parsed.minutes == 2 and parsed.framing == "head" and not parsed.heldout
    with pytest.raises(SystemExit):
        parse_arguments(["--out", "a", "--speech", "b", "--minutes", "0"])
    assert "--minutes" in capsys.readouterr().err
