"""The arithmetic of the probe, without a browser."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from benchmarks.browser.av_probe import FRAME_MS, Readings, latencies, offsets, summary, write_beeps, write_tone


def test_offset_is_positive_where_the_picture_is_late() -> None:
    readings = Readings(beeps=[1000.0, 2000.0], flashes=[1030.0, 1990.0])
    assert offsets(readings) == [(1000.0, 30.0), (2000.0, -10.0)]


def test_a_lost_flash_pairs_with_nothing() -> None:
    readings = Readings(beeps=[1000.0, 1300.0, 1600.0], flashes=[1010.0, 1610.0])
    assert [beep for beep, _ in offsets(readings)] == [1000.0, 1600.0]


def test_flashes_far_from_any_beep_are_left_out() -> None:
    assert offsets(Readings(beeps=[1000.0], flashes=[1500.0])) == []


def test_latency_is_to_the_first_end_before_the_next_start() -> None:
    starts, ends = [0.0, 2000.0, 4000.0], [700.0, 900.0, 4650.0]
    assert latencies(starts, ends, longest_ms=2000) == [700.0, 650.0]


def test_an_end_that_comes_too_late_is_no_latency() -> None:
    assert latencies([0.0], [1500.0], longest_ms=1000) == []


def test_summary_gives_median_and_95th_percentile() -> None:
    found = summary([float(value) for value in range(1, 101)])
    assert (found["count"], found["median"], found["p95"]) == (100, 50.5, 95.0)
    assert summary([])["median"] is None


def test_readings_are_cut_by_time() -> None:
    readings = Readings(beeps=[1.0, 2.0, 3.0], flashes=[2.5], frames=7)
    cut = readings.since(2.0, 3.0)
    assert (cut.beeps, cut.flashes, cut.frames) == ([2.0], [2.5], 7)


@pytest.mark.parametrize("voiced", [False, True])
def test_beeps_are_where_the_times_say(tmp_path: Path, voiced: bool) -> None:
    path = tmp_path / "beeps.wav"
    times = write_beeps(path, seconds=5, voiced=voiced)
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768
    assert len(samples) == 5 * 16000
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    onsets = [loud[0], *loud[1:][np.diff(loud) > 1600]]
    assert np.allclose(np.array(onsets) / 16000, times, atol=0.002)
    assert np.allclose(np.mod(np.array(times) * 1000 + 1e-6, FRAME_MS), 0, atol=1e-3)


def test_quiet_stretches_hold_no_beep(tmp_path: Path) -> None:
    times = write_beeps(tmp_path / "beeps.wav", seconds=30, every_s=1.0, lead_s=0.0, quiet_every_s=10, quiet_s=4)
    assert times and all(at % 10 < 6 for at in times)


def test_tone_is_loud_from_its_first_sample_to_its_last(tmp_path: Path) -> None:
    write_tone(tmp_path / "tone.wav", seconds=2)
    with wave.open(str(tmp_path / "tone.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2") / 32768
    loud = np.abs(samples).reshape(-1, 320).max(axis=1)
    assert len(loud) == 100 and (loud > 0.3).all()
