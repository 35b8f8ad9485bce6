"""The engine with the real pipeline, of the tiny preset with random weights."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kernels.rgb_to_i420 import rgb_to_i420
from models.configs import UNDISTILLED, SamplingConfig
from models.pipeline import AvatarPipeline, rung_sampling
from models.presets import PRESETS, preset
from streamer.engine import Engine, EngineConfig, Rung, StreamSpec
from streamer.engine.backend import AvatarBackend
from streamer.mark import Mark

SIZE = (96, 96)
STAGES = {"audio", "lr_a2v", "lr_decode", "pose", "low_pass", "refiner", "decode", "convert"}


@pytest.fixture
def config(tiny_weights: Path) -> EngineConfig:
    return EngineConfig(preset="tiny", weights=tiny_weights, threads=1, mark=None)


def test_frames_are_those_of_the_pipeline(config: EngineConfig, tiny_weights: Path) -> None:
    rng = np.random.default_rng(3)
    reference = rng.random((3, *SIZE), np.float32)
    sound = rng.normal(0, 0.1, 3 * 5120).astype(np.float32)

    async def main() -> list[np.ndarray]:
        async with await Engine.launch(config) as engine:
            assert engine.facts.preset == "tiny" and engine.facts.frame_size == SIZE
            assert 0 < engine.facts.rung_s[Rung.HALF_RATE]
            stream = await engine.open(StreamSpec(reference, "happy", seed=5, chunk_latents=2, motion_energy=0.5))
            made = []
            for k in range(3):
                if k == 2:
                    await stream.update(prompt="sad", motion_energy=1.5)
                chunk = await stream.step(sound[5120 * k : 5120 * (k + 1)], time.monotonic() + 60)
                assert chunk.rung is Rung.FULL and STAGES <= set(chunk.stage_ms)
                made.append(chunk.frames.copy())
                chunk.release()
            held = await stream.step(sound[:5120], time.monotonic() - 60)
            assert held.rung is Rung.HOLD and np.array_equal(held.frames[3], made[-1][-1])
            return made

    made = asyncio.run(main())
    pipeline = AvatarPipeline.load("tiny", tiny_weights)
    state = pipeline.start(torch.from_numpy(reference), "happy", 5, 2, 0.5)
    for k, frames in enumerate(made):
        if k == 2:
            state = pipeline.set_prompt(state, "sad", 1.5)
        pictures, state, _ = pipeline.step(torch.from_numpy(sound[5120 * k : 5120 * (k + 1)]), state)
        assert np.abs(frames.astype(int) - rgb_to_i420(pictures).numpy()).max() <= 2


@pytest.mark.parametrize("rung", [rung for rung in Rung if rung is not Rung.HOLD])
def test_every_rung_gives_frames_and_a_state_to_go_on_from(config: EngineConfig, rung: Rung) -> None:
    backend = AvatarBackend(config)
    state = backend.start(np.full((3, *SIZE), 0.5, np.float32), "", 0, 2, 1.0, 8)
    for step in (Rung.FULL, rung, Rung.FULL):
        planes, state, stage_ms = backend.step_batch([np.zeros(5120, np.float32)], [state], step)[0]
        assert planes.shape == (8, 144, 96) and planes.dtype == np.uint8 and set(stage_ms) >= {"decode", "convert"}
    assert state.frame_index == 8 - 2 + 24


def test_rungs_leave_out_more_and_more() -> None:
    own = SamplingConfig(audio_guidance=2.2)
    assert rung_sampling(own, Rung.FULL) == own
    assert rung_sampling(own, Rung.HALF_RATE) == SamplingConfig(is_half_rate=True)
    assert rung_sampling(own, Rung.NO_REFINER) == SamplingConfig(is_refined=False)
    assert rung_sampling(own, Rung.NO_REFINER_HALF_RATE) == SamplingConfig(is_refined=False, is_half_rate=True)
    assert rung_sampling(UNDISTILLED, Rung.HALF_RATE).lr_steps == 15


def test_every_rung_of_a_shipped_preset_is_another_way_to_make_a_chunk() -> None:
    for name in PRESETS:
        ways = [rung_sampling(preset(name).sampling, rung) for rung in tuple(Rung)[:-1]]
        assert len(set(ways)) == len(ways), name


def test_first_rung_shows_every_second_refined_frame_twice(config: EngineConfig) -> None:
    rng = np.random.default_rng(0)
    sound, reference = rng.normal(0, 0.1, 5120).astype(np.float32), rng.random((3, *SIZE), np.float32)

    def make(rung: Rung) -> np.ndarray:
        backend = AvatarBackend(config)
        state = backend.start(reference, "", 0, 2, 1.0, 0)
        return backend.step_batch([sound], [state], rung)[0][0].astype(int)

    full, half = make(Rung.FULL), make(Rung.HALF_RATE)
    assert np.array_equal(half[1::2], half[::2])
    assert np.abs(half[::2] - full[::2]).max() <= 1
    assert np.abs(full[1::2] - full[::2]).max() > 1


def test_every_frame_bears_the_mark(config: EngineConfig) -> None:
    sound, reference = np.zeros(2560, np.float32), np.ones((3, *SIZE), np.float32)
    plain = AvatarBackend(config)
    marked = AvatarBackend(replace(config, mark=Mark(opacity=1.0, size=0.2)))
    state = plain.start(reference, "", 0, 1, 1.0, 0)
    assert plain.still(state)[:96].min() == 235
    badge = marked.still(state)[:96] < 100
    rows, columns = (np.flatnonzero(badge.any(axis=axis)) for axis in (1, 0))
    assert rows.min() > 70 and columns.min() > 60 and badge.mean() > 0.005
    without, planes = (backend.step_batch([sound], [state], Rung.FULL)[0][0] for backend in (plain, marked))
    for one, other in zip(planes[:, :96], without[:, :96], strict=True):
        assert np.array_equal(one[:70], other[:70]) and (one[badge] < 100).all()
    assert (reference == 1).all()


def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    from streamer.errors import EngineError

    with pytest.raises(EngineError, match="cannot start: .*config.json"):
        asyncio.run(Engine.launch(EngineConfig(preset="tiny", weights=tmp_path)))


def test_what_a_processor_has_no_use_for_is_said_in_one_sentence_each(config: EngineConfig, caplog) -> None:
    AvatarBackend(replace(config, has_graphs=True, has_fp8=True))
    assert [record.getMessage() for record in caplog.records] == [
        "CUDA graphs have no effect on cpu",
        "fp8 has no effect on cpu",
    ]
