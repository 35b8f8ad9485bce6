from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest

from streamer.errors import OutputError
from streamer.video_out import STATEMENT, VideoWriter, check_writable


def write_clip(path: Path, count: int, batch: int = 5) -> None:
    frames = np.zeros((count, 64, 96, 3), np.uint8)
    frames[..., 0] = 200
    samples = np.sin(np.arange(count * 1920) / 20).astype(np.float32) * 0.3
    with VideoWriter(path, 64, 96, made_by="version 0, preset none") as writer:
        for first in range(0, count, batch):
            writer.write(frames[first : first + batch], samples[first * 1920 : (first + batch) * 1920])


@pytest.mark.parametrize("count", [1, 2, 7, 25, 101])
def test_sound_and_picture_have_the_same_length_to_the_frame(tmp_path: Path, count: int) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, count)
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264" and audio.codec_context.name == "aac"
        assert video.average_rate == 25
        assert float(video.duration * video.time_base) == pytest.approx(count / 25)
        assert float(audio.duration * audio.time_base) == pytest.approx(count / 25)
        assert sum(1 for _ in container.decode(video=0)) == count


def test_metadata_says_that_it_is_generated_and_by_what(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, 3)
    with av.open(str(path)) as container:
        for key in ("comment", "description"):
            assert STATEMENT in container.metadata[key]
            assert "preset none" in container.metadata[key]
    assert "AI-generated" in STATEMENT and "infinity-avatar" in STATEMENT


def test_colours_survive(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 64, 64) as writer:
        frames = np.empty((4, 64, 64, 3), np.uint8)
        frames[:] = (180, 90, 40)
        writer.write(frames, np.zeros(4 * 1920, np.float32))
    with av.open(str(path)) as container:
        shown = next(container.decode(video=0))
        assert shown.colorspace == 6 and shown.color_range == 1
        assert np.abs(shown.to_ndarray(format="rgb24").astype(int) - (180, 90, 40)).max() <= 4


def test_nothing_is_left_when_the_run_breaks_off(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(RuntimeError, match="engine"), VideoWriter(path, 64, 64) as writer:
        writer.write(np.zeros((2, 64, 64, 3), np.uint8), np.zeros(3840, np.float32))
        raise RuntimeError("engine failed")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_file_is_replaced_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, 2)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), VideoWriter(path, 64, 64) as writer:
        writer.write(np.zeros((2, 64, 64, 3), np.uint8), np.zeros(3840, np.float32))
        assert path.read_bytes() == before
        raise RuntimeError
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_clip(tmp_path / "a" / "b" / "clip.mp4", 1)
    assert (tmp_path / "a" / "b" / "clip.mp4").is_file()


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        check_writable(tmp_path / "file" / "clip.mp4", ".mp4")
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path / "folder.mp4", ".mp4")
    with pytest.raises(OutputError, match="must end in .mp4"):
        check_writable(tmp_path / "clip.avi", ".mp4")
    with pytest.raises(OutputError, match="cannot write"):
        check_writable("/proc/clip.mp4", ".mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="[Pp]ermission"):
        check_writable(tmp_path / "clip.mp4", ".mp4")


def test_shapes_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even sides"):
        VideoWriter(tmp_path / "odd.mp4", 63, 64)
    with VideoWriter(tmp_path / "clip.mp4", 64, 64) as writer:
        with pytest.raises(ValueError, match="need 1920 samples"):
            writer.write(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1919, np.float32))
        with pytest.raises(ValueError, match="frames are uint8"):
            writer.write(np.zeros((1, 64, 64, 3), np.float32), np.zeros(1920, np.float32))
        writer.write(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1920, np.float32))
