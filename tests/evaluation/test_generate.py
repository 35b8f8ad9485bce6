from __future__ import annotations

import numpy as np
import pytest

from evaluation.generate import generate, long_sound, quiet_sound, sound_chunks
from evaluation.takes import Take, read_picture
from tests.evaluation import toy


@pytest.mark.parametrize("chunk_latents", [1, 3, 5])
def test_generated_frames_are_those_of_the_sound(takes: list[Take], chunk_latents: int) -> None:
    take, pipeline = takes[0], toy.ToyPipeline()
    reference = read_picture(take.reference)
    made = generate(pipeline, reference, take.samples, seed=take.frame_count, chunk_latents=chunk_latents)
    aperture = toy.mouth_of(take.samples)
    expected, _ = toy.render(toy.LOOKS["ana"], aperture, toy.motion_frames(take.frame_count, 0, len(aperture)))
    assert np.array_equal(made.frames, expected)
    assert made.small_frames.shape == (150, 64, 64, 3)
    assert made.joins[0] == 4 * chunk_latents - 2
    assert set(np.diff(made.joins)) == {4 * chunk_latents}


def test_pose_estimator_is_put_back(takes: list[Take]) -> None:
    pipeline = toy.ToyPipeline()
    own = pipeline.pose_estimator
    generate(pipeline, read_picture(takes[0].reference), takes[0].samples[:6400])
    assert pipeline.pose_estimator is own


def test_sound_ends_with_silence_for_the_look_ahead() -> None:
    chunks = sound_chunks(np.ones(12 * 640, np.float32), delay_frames=2, chunk_latents=3)
    assert [len(chunk) for chunk in chunks] == [7680, 7680]
    assert float(np.concatenate(chunks).sum()) == 12 * 640


def test_less_than_a_frame_of_sound_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 640"):
        generate(toy.ToyPipeline(), np.zeros((128, 128, 3), np.uint8), np.zeros(100, np.float32))


def test_quiet_sound_is_quiet_and_long_sound_is_long(takes: list[Take]) -> None:
    quiet = quiet_sound(4.0)
    assert len(quiet) == 64000
    assert 0 < float(np.sqrt((quiet[32000:] ** 2).mean())) < 10 ** (-60 / 20)
    assert len(long_sound(takes, 30.0)) == 30 * 16000
