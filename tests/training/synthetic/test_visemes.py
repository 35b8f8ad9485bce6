import numpy as np
import pytest

from models.portrait.face_mesh import FACE_ACTIONS, FACE_INDEX
from training.synthetic.phones import ARPABET
from training.synthetic.visemes import (
    VISEMES,
    face_vector,
    viseme_track,
)

JAW = FACE_INDEX["jawOpen"]
MAP = [("M", 0.40, 0.08), ("AE", 0.48, 0.18), ("P", 0.66, 0.10)]  # between silences


def test_there_are_52_distinct_actions_and_every_phone_has_a_shape():
    assert len(FACE_ACTIONS) == len(set(FACE_ACTIONS)) == 52
    diphthongs = {"AY", "AW", "OY", "EY", "OW"}
    assert set(VISEMES) == ARPABET - diphthongs


def test_lips_shut_on_bilabials_and_open_between():
    face, closure = viseme_track(MAP, 40)
    times_s = (np.arange(40) + 0.5) / 25
    inside_m = (times_s > 0.41) & (times_s < 0.46)
    assert (closure[inside_m] > 0.99).all()
    assert face[inside_m, JAW].max() < 0.01
    assert face[(times_s > 0.52) & (times_s < 0.62), JAW].max() > 0.4


@pytest.mark.parametrize("start_s", np.arange(0.30, 0.34, 0.005))
@pytest.mark.parametrize("phone", ["P", "B", "M"])
def test_every_closure_is_seen_by_a_frame(phone, start_s):
    phones = [("AA", 0.1, start_s - 0.1), (phone, start_s, 0.035), ("AA", start_s + 0.035, 0.2)]
    face, closure = viseme_track(phones, 20)
    shut = int(closure.argmax())
    assert closure[shut] > 0.9 and face[shut, JAW] < 0.06


def test_silence_is_exactly_shut_and_open_ended():
    face, closure = viseme_track([("AA", 0.5, 0.3)], 50)
    assert not face[:8].any() and not face[25:].any() and not closure.any()


def test_short_silences_do_not_snap_shut():
    face, _ = viseme_track([("AA", 0.2, 0.3), ("SIL", 0.5, 0.06), ("AA", 0.56, 0.3)], 30)
    assert face[13, JAW] > 0.1


def test_lower_lip_meets_the_teeth_on_f():
    face, closure = viseme_track([("AA", 0.1, 0.2), ("F", 0.3, 0.12), ("AA", 0.42, 0.2)], 20)
    assert face[8, FACE_INDEX["mouthRollLower"]] > 0.6 and face[8, JAW] < 0.2 and not closure.any()


def test_diphthongs_move():
    face, _ = viseme_track([("AW", 0.2, 0.4)], 20)
    assert face[6, JAW] > face[13, JAW] + 0.2
    assert face[13, FACE_INDEX["mouthPucker"]] > face[6, FACE_INDEX["mouthPucker"]] + 0.4


def test_track_is_a_function_of_phones_and_time_only():
    whole, _ = viseme_track(MAP, 60)
    again, _ = viseme_track(list(reversed([(name + "1", s, d) for name, s, d in MAP])), 60)
    np.testing.assert_array_equal(whole, again)
    later, _ = viseme_track([(name, s + 0.4, d) for name, s, d in MAP], 60)
    np.testing.assert_allclose(later[10:], whole[:-10], atol=1e-5)


def test_far_phones_do_not_matter():
    near, _ = viseme_track(MAP, 40)
    more, _ = viseme_track([*MAP, ("UW", 1.4, 0.2)], 40)
    np.testing.assert_allclose(more[:24], near[:24], atol=1e-3)


def test_loudness_scales_the_opening_but_never_a_closure():
    plain, closure = viseme_track(MAP, 40)
    loud, _ = viseme_track(MAP, 40, np.full(40, 1.15))
    assert loud[:, JAW].max() > 1.1 * plain[:, JAW].max()
    assert loud[closure > 0.99, JAW].max() < 0.01


def test_values_stay_within_the_unit_interval():
    face, closure = viseme_track([("AA", 0.1 * i, 0.1) for i in range(9)], 30, np.full(30, 1.2))
    assert face.dtype == closure.dtype == np.float32
    assert 0 <= face.min() and face.max() <= 1


def test_wrong_arguments_are_refused_with_numbers():
    with pytest.raises(ValueError, match="got 0"):
        viseme_track(MAP, 0)
    with pytest.raises(ValueError, match=r"shape \(40,\), got \(3,\)"):
        viseme_track(MAP, 40, np.ones(3))
    with pytest.raises(ValueError, match="unknown face action 'jawSwing'"):
        face_vector(jawSwing=1.0)
