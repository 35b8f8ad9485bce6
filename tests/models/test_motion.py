import numpy as np
import pytest

from models.motion import MOTION_CHANNELS, PlanPlace, listening_frames, motion_frames


def test_plan_does_not_depend_on_how_it_is_cut():
    place, parts = PlanPlace(seed=5), []
    for count in (1, 7, 12, 80):
        parts.append(place.frames(count))
        place = place.after(count)
    assert np.array_equal(np.concatenate(parts), motion_frames(5, 0, 100))
    assert np.array_equal(PlanPlace(seed=5).frames(10, offset=20), motion_frames(5, 20, 10))


def test_plan_an_hour_in_is_like_the_plan_at_the_start():
    early, late = motion_frames(3, 0, 4000), motion_frames(3, 90_000, 4000)
    assert np.allclose(early.std(0), late.std(0), atol=0.03)
    assert np.isfinite(late).all()


def test_presenter_blinks_and_moves_its_head():
    plan = dict(zip(MOTION_CHANNELS, motion_frames(11, 0, 25 * 60).T, strict=True))
    closed = plan["blink"] > 0.5
    blinks = int((closed[1:] & ~closed[:-1]).sum())
    assert 8 <= blinks <= 40
    assert 0.02 < plan["yaw"].std() < 0.15
    assert plan["brow"].min() >= 0


def test_motion_is_smooth():
    plan = dict(zip(MOTION_CHANNELS, motion_frames(2, 0, 2000).T, strict=True))
    for name in ("yaw", "pitch", "roll", "breath"):
        assert np.abs(np.diff(plan[name])).max() < 0.12, name


def test_no_energy_is_a_still_head():
    still = motion_frames(2, 0, 100, energy=0)
    assert np.abs(still[:, :3]).max() == 0


@pytest.mark.parametrize("bad", [{"count": 0}, {"count": 1, "energy": 3}])
def test_bad_requests_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        motion_frames(0, 0, **bad)


def test_the_torso_turns_after_the_head():
    plan = dict(zip(MOTION_CHANNELS, motion_frames(4, 0, 6000).T, strict=True))
    correlations = [np.corrcoef(plan["yaw"][:-20], plan["lean_y"][lag : lag - 20])[0, 1] for lag in range(20)]
    assert max(correlations) > 0.5
    assert 4 <= int(np.argmax(correlations)) <= 10


def test_a_listener_nods_and_smiles_now_and_then():
    nod, smile = listening_frames(7, 0, 25 * 120).T
    assert 0.05 < nod.max() < 0.1 and nod.min() >= 0
    assert 5 <= int(((nod[1:] > 0.06) & (nod[:-1] <= 0.06)).sum()) <= 28
    assert 0.9 < smile.max() <= 1 and 0.05 < (smile > 0.5).mean() < 0.5
    assert np.abs(np.diff(nod)).max() < 0.025 and np.abs(np.diff(smile)).max() < 0.08


def test_listening_does_not_depend_on_how_it_is_cut():
    whole = listening_frames(3, 90, 300)
    assert np.array_equal(whole, np.concatenate([listening_frames(3, 90 + i, 20) for i in range(0, 300, 20)]))
