"""The portrait path's benchmark runs and writes what it prints."""

import json

import cv2
import torch

from benchmarks import bench_portrait


def test_stages_are_timed_beside_their_floor(tmp_path, capsys):
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        bench_portrait.main(["--seconds", "0", "--out", "portrait", "--folder", str(tmp_path)])
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
    (file,) = tmp_path.iterdir()
    written = json.loads(file.read_text())
    stages = {"audio", "pose", "raster", "warp", "eyes", "i420"}
    assert stages <= written["ms_a_frame"].keys() and set(written["floor_ms"]) <= stages
    assert all(0 < written["floor_ms"][stage] < written["ms_a_frame"][stage] for stage in written["floor_ms"])
    assert written["chunks"] == 3 and 0 < written["best_rtf"] <= written["rtf"]
    assert "RTF" in capsys.readouterr().out


def test_bytes_grow_with_the_pixels():
    small, large = bench_portrait.floor_bytes(512, 512), bench_portrait.floor_bytes(1024, 512)
    assert small["warp"] == 512 * 512 * 14 and large == {stage: 2 * count for stage, count in small.items()}
