from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

from streamer.errors import AudioError, InputError
from streamer.mark import Mark, MarkStamp
from streamer.render import RenderOptions, SoundFeed, render
from streamer.report import build_report
from streamer.video_out import VideoWriter
from tests.streamer.fakes import FakePipeline, Tone

REFERENCE = np.zeros((3, 64, 64), np.float32)


def render_tone(path: Path, source: Tone, pipeline: FakePipeline | None = None, **options):
    pipeline = pipeline or FakePipeline()
    with VideoWriter(path, 64, 64) as writer:
        return render(pipeline, source, REFERENCE, writer, RenderOptions(**options))


def brightness(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.to_ndarray(format="gray").mean()) for frame in container.decode(video=0)]


def loudness(path: Path) -> np.ndarray:
    """RMS of the sound during each frame."""
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    frames = len(sound) // 1920
    return np.sqrt((sound[: frames * 1920].reshape(frames, 1920) ** 2).mean(axis=1))


@pytest.mark.parametrize("seconds", [0.001, 0.04, 0.4, 0.48, 0.4801, 1.0, 2.41])
@pytest.mark.parametrize("chunk_latents", [1, 3, 6])
def test_every_started_frame_of_sound_is_shown_once(tmp_path: Path, seconds: float, chunk_latents: int) -> None:
    pipeline = FakePipeline()
    times = render_tone(tmp_path / "clip.mp4", Tone(seconds), pipeline, chunk_latents=chunk_latents)
    expected = int(np.ceil(round(seconds * 16_000) / 640))
    assert times.frames == expected == len(brightness(tmp_path / "clip.mp4"))
    assert max(pipeline.steps) <= chunk_latents
    assert sum(pipeline.steps) == int(np.ceil((expected + 2) / 4))  # nothing is computed in vain


@pytest.mark.parametrize("delay_frames", [0, 2, 5])
def test_picture_and_sound_stay_together_whatever_the_delay(tmp_path: Path, delay_frames: int) -> None:
    path = tmp_path / "clip.mp4"
    source = Tone(2.0, is_loud=lambda t: (0.8 <= t) & (t < 1.2))
    render_tone(path, source, FakePipeline(delay_frames=delay_frames))
    shown = np.array(brightness(path))
    heard = loudness(path)[: len(shown)]
    assert np.flatnonzero(shown > 60).tolist() == list(range(20, 30))
    assert set(np.flatnonzero(heard > 0.3)) >= set(range(21, 29))
    assert not (heard[:19] > 0.1).any() and not (heard[31:] > 0.1).any()


def test_options_reach_the_pipeline(tmp_path: Path) -> None:
    pipeline = FakePipeline()
    render_tone(tmp_path / "clip.mp4", Tone(0.1), pipeline, prompt="calm", seed=7, chunk_latents=2)
    assert pipeline.starts == [{"prompt": "calm", "seed": 7, "chunk_latents": 2}]


def test_models_are_not_started_for_sound_that_cannot_be_read(tmp_path: Path) -> None:
    class Broken(Tone):
        def blocks(self, sample_rate):
            raise AudioError("broken")
            yield

    pipeline = FakePipeline()
    with pytest.raises(AudioError):
        render_tone(tmp_path / "clip.mp4", Broken(1.0), pipeline)
    assert not pipeline.starts and not (tmp_path / "clip.mp4").exists()


def test_chunk_sizes_outside_the_range_are_refused() -> None:
    with pytest.raises(InputError, match="1 to 6"):
        RenderOptions(chunk_latents=7)


def test_mark_is_in_the_picture_and_only_in_its_corner(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    seen = []
    with VideoWriter(path, 64, 64) as writer:
        stamp = MarkStamp(Mark(opacity=1.0, size=0.2), 64, 64)
        render(FakePipeline(), Tone(0.4), REFERENCE, writer, RenderOptions(), stamp, seen.append)
    frames = np.concatenate(seen)
    level = frames[:, :8, :8].mean(axis=(1, 2, 3), keepdims=True)
    changed = np.abs(frames - level).max(axis=(0, 3)) > 10
    assert changed[40:, 32:].any() and not changed[:40].any() and not changed[:, :32].any()


def test_three_hours_are_cut_into_chunks_in_bounded_memory() -> None:
    hours = 3
    total = hours * 3600 * 16_000

    def blocks():
        block = np.zeros(16_000, np.float32)
        for _ in range(hours * 3600):
            yield block

    feed = SoundFeed(blocks(), 640, 12, 2)
    tracemalloc.start()
    fed = sum(len(chunk) for chunk in feed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert feed.frames_total == total // 640
    assert 0 <= fed - total - 2 * 640 < 4 * 640
    assert peak < 2_000_000


def test_report_leaves_the_first_chunk_out(tmp_path: Path) -> None:
    times = render_tone(tmp_path / "clip.mp4", Tone(2.0))
    times.chunk_s = [9.0] + [0.24] * (len(times.chunk_s) - 1)
    report = build_report(times, fps=25, frame_size=(64, 64), device="cpu")
    warm_s = sum(times.chunk_frames[1:]) / 25
    assert report["rtf"] == pytest.approx(0.24 * (len(times.chunk_s) - 1) / warm_s, abs=1e-4)
    assert report["is_warm"] and report["first_chunk_ms"] == 9000.0
    assert report["stage_ms_per_frame"] == {"decode": 2.0}
    assert report["frames"] == 50 and report["duration_s"] == 2.0
    assert report["versions"]["torch"] and report["machine"]["cores"] >= 1


def test_report_of_a_single_chunk_says_so(tmp_path: Path) -> None:
    times = render_tone(tmp_path / "clip.mp4", Tone(0.2))
    report = build_report(times, fps=25, frame_size=(64, 64), device="cpu")
    assert not report["is_warm"] and report["rtf"] > 0


def test_operations_are_counted_on_one_more_chunk(tmp_path: Path) -> None:
    import torch

    class Working(FakePipeline):
        @torch.inference_mode()
        def step(self, samples, state):
            torch.nn.functional.linear(torch.ones(10, 100), torch.ones(200, 100))
            return super().step(samples, state)

    pipeline = Working()
    times = render_tone(tmp_path / "clip.mp4", Tone(0.4), pipeline, is_flop_counted=True)
    assert times.gflop_per_frame == pytest.approx(2 * 10 * 100 * 200 / 12 / 1e9)
    assert times.frames == 10 and sum(times.chunk_frames) == 12
