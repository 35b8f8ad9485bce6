import numpy as np
import pytest

from models.portrait.face_mesh import FACE_INDEX
from tests.training.synthetic.corpus import write_corpus
from training.synthetic.emotions import EMOTIONS, add_emotion, draw_emotion
from training.synthetic.script import (
    change_speed,
    loudness_track,
    noise,
    write_listening_script,
    write_script,
)
from training.synthetic.takes import TakeSpec, make_take


@pytest.fixture
def clips(tmp_path):
    return write_corpus(tmp_path)


def test_sound_and_phones_of_a_script_agree(clips):
    script = write_script(clips[:2], 250, np.random.default_rng(0), is_augmented=False)
    assert script.samples.shape == (250 * 640,) and script.samples.dtype == np.float32
    assert script.texts and script.voice == "allison"
    for phone in script.phones:
        piece = script.samples[round(phone.start_s * 16000) + 160 : round(phone.end_s * 16000) - 160]
        level = np.sqrt(np.mean(piece**2)) if len(piece) else 0.1
        assert level > 0.05 if phone.name in ("AA", "IY", "OW") else level < 0.01


def test_speed_scales_phones_with_the_sound(clips):
    for seed in range(4):
        script = write_script(clips[1:2], 250, np.random.default_rng(seed))
        vowels = [p for p in script.phones if p.name == "AA"]
        levels = [
            np.abs(script.samples[round((p.start_s + at * p.duration_s) * 16000)] - 0)
            for p in vowels
            for at in np.linspace(0.1, 0.9, 40)
        ]
        silent = [p for p in script.phones if p.name == "P"]
        quiet = [np.abs(script.samples[round((p.start_s + p.duration_s / 2) * 16000)]) for p in silent]
        assert np.mean(levels) > 4 * np.mean(quiet)


def test_clips_are_not_cut_off(clips):
    script = write_script(clips[:2], 500, np.random.default_rng(3))
    assert max(phone.end_s for phone in script.phones) <= 20.0
    with pytest.raises(ValueError, match="at least one clip"):
        write_script([], 500, np.random.default_rng(3))


def test_listening_is_silent_to_the_mouth():
    for seed in range(6):
        script = write_listening_script(100, np.random.default_rng(seed))
        assert [p.name for p in script.phones] == ["SIL"]
        assert np.sqrt(np.mean(script.samples**2)) < 0.02


def test_noise_has_the_level_it_is_asked_for():
    assert np.sqrt(np.mean(noise(16000, 0.01, 0.5, np.random.default_rng(0)) ** 2)) == pytest.approx(0.01)


def test_changed_speed_changes_length_and_pitch():
    tone = np.sin(2 * np.pi * 500 * np.arange(8000) / 16000)
    fast = change_speed(tone, 1.25)
    assert len(fast) == 6400
    assert np.abs(np.fft.rfft(fast)).argmax() == pytest.approx(625 * 6400 / 16000, abs=1)


def test_louder_frames_open_wider():
    samples = np.concatenate([np.full(6400, 0.05), np.full(6400, 0.2)])
    track = loudness_track(samples, 20)
    assert track.shape == (20,) and track[15] > 1 > track[4]


def test_shut_lips_win_over_every_emotion():
    face, closure = np.zeros((2, 52), np.float32), np.array([0.0, 1.0], np.float32)
    for name in EMOTIONS:
        shown = add_emotion(face, closure, name, 1.0)
        assert shown.dtype == np.float32 and 0 <= shown.min() and shown.max() <= 1
        assert not shown[:, FACE_INDEX["jawOpen"]].any()  # nor does one open the mouth in silence
    happy = add_emotion(face, closure, "happy", 1.0)
    assert happy[0, FACE_INDEX["mouthSmileLeft"]] > 3 * happy[1, FACE_INDEX["mouthSmileLeft"]] > 0
    with pytest.raises(ValueError, match="unknown emotion 'bored'"):
        add_emotion(face, closure, "bored", 1.0)


def test_more_than_half_of_the_emotions_are_neutral():
    rng = np.random.default_rng(0)
    drawn = [draw_emotion(rng) for _ in range(400)]
    assert 0.48 < np.mean([name == "neutral" for name, _, _ in drawn]) < 0.62
    assert {name for name, _, _ in drawn} == set(EMOTIONS)
    assert all(prompt in EMOTIONS[name].prompts for name, _, prompt in drawn)


def test_the_same_spec_gives_the_same_take(clips):
    spec = TakeSpec("maya", 3, n_frames=120)
    first, again = make_take(spec, clips), make_take(spec, clips)
    for name in ("samples", "face", "shown_face", "closure", "motion"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    other = make_take(TakeSpec("maya", 4, n_frames=120), clips)
    assert np.abs(other.motion - first.motion).max() > 0.01


def test_held_out_speech_stays_out_of_training(clips):
    voices = {make_take(TakeSpec("maya", index, n_frames=100), clips).voice for index in range(20)}
    assert voices <= {"", "allison", "slt"} and {"allison", "slt"} <= voices
    assert make_take(TakeSpec("maya", 0, "heldout", n_frames=100), clips).voice == "awb"
    with pytest.raises(ValueError, match="no clip of split 'heldout' and voice 'slt'"):
        make_take(TakeSpec("maya", 0, "heldout", voice="slt"), clips)


def test_a_pose_for_every_frame(clips):
    take = make_take(TakeSpec("maya", 1, framing="upper", n_frames=60), clips)
    poses = list(take.poses())
    assert len(poses) == take.n_frames == 60 and poses[0].arms is not None
    np.testing.assert_array_equal(poses[7].face, take.shown_face[7])


def test_specs_are_checked():
    with pytest.raises(ValueError, match="'test'"):
        TakeSpec("maya", 0, split="test")
    with pytest.raises(ValueError, match="framing"):
        TakeSpec("maya", 0, framing="full")
