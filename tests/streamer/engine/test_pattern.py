import numpy as np
import pytest

from streamer.engine.ladder import Rung
from streamer.engine.pattern import COUNTER_BITS, PatternBackend, draw_counter, read_counter
from streamer.mark import Mark

SIZE = (64, 96)
FRAME = 640
REFERENCE = np.full((3, *SIZE), 0.8, np.float32)


def beep(frames: int, loud: range) -> np.ndarray:
    sound = np.zeros(frames * FRAME, np.float32)
    time = np.arange(len(sound)) / 16_000
    sound[loud.start * FRAME : loud.stop * FRAME] = 0.5 * np.sin(2 * np.pi * 1000 * time)[: len(loud) * FRAME]
    return sound


def is_white(pictures: np.ndarray) -> list[bool]:
    return [bool(picture[: SIZE[0] // 2].min() == 255) for picture in pictures]


def run(sound: np.ndarray, latents: int, rung: Rung = Rung.FULL):
    pattern = PatternBackend(SIZE)
    state, pictures, chunk = pattern.start(REFERENCE), [], latents * 4 * FRAME
    for first in range(0, len(sound), chunk):
        new, state, _ = pattern.step(sound[first : first + chunk], state, rung)
        pictures.append(new)
    return np.concatenate(pictures), state


@pytest.mark.parametrize("latents", [1, 3, 6])
def test_exactly_the_frames_whose_sound_is_loud_are_white_after_the_delay(latents: int) -> None:
    pictures, state = run(beep(24, range(7, 12)), latents)
    assert [k - 2 for k, white in enumerate(is_white(pictures)) if white] == list(range(7, 12))
    assert state.frame_index == 22


def test_quiet_frames_show_the_darkened_reference() -> None:
    pictures, _ = run(beep(4, range(0)), 1)
    assert np.abs(pictures[:, : SIZE[0] // 2].astype(float) - 0.8 * 255 * 0.25).max() <= 1


def test_every_frame_bears_its_number() -> None:
    pictures, _ = run(beep(12, range(5, 8)), 3)
    assert [read_counter(picture[..., 1]) for picture in pictures] == [(k - 2) % 2**COUNTER_BITS for k in range(12)]
    picture = np.zeros((256, 256, 3), np.uint8)
    draw_counter(picture, 54_321)
    assert read_counter(picture[::2, ::2, 0]) == 54_321


def test_half_rate_shows_every_second_frame_twice() -> None:
    pictures, _ = run(beep(12, range(5, 8)), 3, Rung.HALF_RATE)
    numbers = [read_counter(picture[..., 1]) for picture in pictures]
    assert numbers == [(k // 2 * 2 - 2) % 2**COUNTER_BITS for k in range(12)]


def test_held_sound_does_not_come_late() -> None:
    pattern = PatternBackend(SIZE)
    sound = beep(8, range(1, 3))  # frames 1 and 2: the second belongs to the next chunk's pictures
    state = pattern.hold(sound[: 4 * FRAME], pattern.start(REFERENCE))
    assert state.frame_index == 2
    pictures, _, _ = pattern.step(sound[4 * FRAME :], state)
    assert is_white(pictures) == [True, False, False, False]


def test_chunks_come_as_marked_planes() -> None:
    plain, marked = PatternBackend((64, 64)), PatternBackend((64, 64), mark=Mark(opacity=1.0))
    white, sound = np.ones((3, 64, 64), np.float32), np.full(4 * FRAME, 0.5, np.float32)
    for backend, darkest in ((plain, 235), (marked, 100)):
        chunks = backend.step_batch([sound] * 2, [backend.start(white)] * 2, Rung.FULL)
        planes, state, stage_ms = chunks[1]
        assert planes.shape == (4, 96, 64) and planes.dtype == np.uint8 and "convert" in stage_ms
        assert state.frame_index == 2 and np.array_equal(planes, chunks[0][0])
        still = backend.still(state)
        assert still.shape == (96, 64) and still[40:64, 32:].min() <= darkest and (still[:32, :32] == 235).all()
    assert plain.still(plain.start(white))[:64].min() == 235


def test_new_reference_is_shown_next() -> None:
    pattern = PatternBackend(SIZE)
    state = pattern.set_reference(pattern.start(REFERENCE), REFERENCE / 2)
    pictures, _, _ = pattern.step(np.zeros(4 * FRAME, np.float32), state)
    assert abs(float(pictures[0, 0, 0, 0]) - 0.4 * 255 * 0.25) <= 1
    with pytest.raises(ValueError, match="reference"):
        pattern.set_reference(state, REFERENCE[:, 1:])
