import pytest

from streamer.engine.ladder import CLIMB_CHUNKS, LATE_ALLOWED_S, TRY_CHUNKS, Due, Ladder, Rung, StreamRung

MADE_RUNGS = tuple(Rung)[:-1]

COSTS = {Rung.FULL: 0.10, Rung.HALF_RATE: 0.08, Rung.NO_REFINER: 0.04, Rung.NO_REFINER_HALF_RATE: 0.02}


def ladder(load: float = 1.0) -> Ladder:
    """A ladder that has seen many chunks on a machine `load` times slower than at its start."""
    made = Ladder(COSTS)
    for _ in range(60):
        made.record(Rung.FULL, 3, COSTS[Rung.FULL] * 3 * load)
    return made


@pytest.mark.parametrize(
    "time_s, expected",
    [
        (0.5, Rung.FULL),
        (0.27, Rung.HALF_RATE),
        (0.2, Rung.NO_REFINER),
        (0.08, Rung.NO_REFINER_HALF_RATE),
        (0.01, Rung.NO_REFINER_HALF_RATE),  # a little late is still shown
        (0.06 - LATE_ALLOWED_S - 0.03, Rung.HOLD),
        (-5.0, Rung.HOLD),
    ],
)
def test_best_rung_that_meets_the_deadline_is_taken(time_s: float, expected: Rung) -> None:
    assert ladder().choose(StreamRung(), [Due(100 + time_s, 3)], 100.0) is expected


def test_more_latents_need_more_time() -> None:
    assert ladder().choose(StreamRung(), [Due(0.35, 3)], 0.0) is Rung.FULL
    assert ladder().choose(StreamRung(), [Due(0.35, 6)], 0.0) is Rung.NO_REFINER


def test_descends_at_once_and_climbs_one_rung_after_enough_chunks_with_room() -> None:
    stream, made = StreamRung(), ladder()
    assert made.choose(stream, [Due(0.2, 3)], 0.0) is Rung.NO_REFINER
    taken = [made.choose(stream, [Due(10.0, 3)], 0.0) for _ in range(2 * CLIMB_CHUNKS)]
    assert taken == [Rung.NO_REFINER] * (CLIMB_CHUNKS - 1) + [Rung.HALF_RATE] * CLIMB_CHUNKS + [Rung.FULL]


def test_a_rung_that_only_just_fits_is_not_climbed_to() -> None:
    stream, made = StreamRung(Rung.NO_REFINER), ladder()
    for _ in range(5 * CLIMB_CHUNKS):
        assert made.choose(stream, [Due(0.27, 3)], 0.0) is Rung.NO_REFINER  # HALF_RATE takes 0.24


def test_one_tight_chunk_restarts_the_count() -> None:
    stream, made = StreamRung(Rung.NO_REFINER), ladder()
    for _ in range(3):
        for _ in range(CLIMB_CHUNKS - 1):
            assert made.choose(stream, [Due(10.0, 3)], 0.0) is Rung.NO_REFINER
        assert made.choose(stream, [Due(0.2, 3)], 0.0) is Rung.NO_REFINER


def test_hold_does_not_change_where_the_stream_stood() -> None:
    stream, made = StreamRung(), ladder()
    assert made.choose(stream, [Due(-2.0, 3)], 0.0) is Rung.HOLD
    assert made.choose(stream, [Due(0.5, 3)], 0.0) is Rung.FULL


def test_slow_chunks_of_one_rung_are_a_warning_for_every_other() -> None:
    made = Ladder(COSTS)
    for _ in range(30):
        made.record(Rung.NO_REFINER, 3, COSTS[Rung.NO_REFINER] * 3 * 2)
    assert made.predicted_s(Rung.FULL, 3) == pytest.approx(0.6, rel=0.2)
    for _ in range(60):
        made.record(Rung.NO_REFINER, 3, COSTS[Rung.NO_REFINER] * 3)
    assert made.predicted_s(Rung.FULL, 3) == pytest.approx(0.3, rel=0.25)


def test_one_stall_does_not_hold_the_ladder_down() -> None:
    made = ladder()
    made.record(Rung.FULL, 3, 60.0)
    assert made.choose(StreamRung(), [Due(0.4, 3)], 0.0) < Rung.HOLD


def test_holds_end_even_if_nothing_is_measured_meanwhile() -> None:
    made = ladder(load=30.0)
    due = [Due(0.2, 3)]
    assert made.choose(StreamRung(), due, 0.0) is Rung.HOLD
    for _ in range(40):
        made.record(Rung.HOLD, 3, 0.001)
    assert made.choose(StreamRung(), due, 0.0) is not Rung.HOLD


def test_no_stream_takes_a_rung_that_the_others_would_pay_for() -> None:
    dues = [Due(0.4, 3), Due(0.41, 3), Due(0.42, 3)]
    assert ladder().choose(StreamRung(), dues[:1], 0.0) is Rung.FULL
    assert ladder().choose(StreamRung(), dues, 0.0) is Rung.NO_REFINER


def test_a_chunk_that_is_lost_anyway_costs_the_others_nothing() -> None:
    dues = [Due(0.4, 3), Due(0.41, 6)]
    assert ladder().choose(StreamRung(), dues, 0.0) is Rung.NO_REFINER
    assert ladder().choose(StreamRung(), [Due(0.4, 3), Due(0.05, 6)], 0.0) is Rung.FULL


def run(made: Ladder, stream: StreamRung, chunks: int, time_s: float, slower: dict[Rung, float]) -> list[Rung]:
    """Rungs taken by one stream whose chunks of 3 latents have `time_s` each, rungs being `slower` than at rest."""
    taken = []
    for _ in range(chunks):
        rung = made.choose(stream, [Due(time_s, 3)], 0.0)
        if rung is not Rung.HOLD:
            made.record(rung, 3, COSTS[rung] * 3 * slower[rung])
        taken.append(rung)
    return taken


def test_a_rung_that_is_only_thought_to_be_slow_is_found_again() -> None:
    made, stream = Ladder(COSTS), StreamRung()
    run(made, stream, 60, 0.33, dict.fromkeys(MADE_RUNGS, 1.6))  # somebody else's work
    assert stream.rung is Rung.NO_REFINER
    cold = {Rung.FULL: 1.0, Rung.HALF_RATE: 1.0, Rung.NO_REFINER: 1.5, Rung.NO_REFINER_HALF_RATE: 1.6}
    assert run(made, stream, 8 * TRY_CHUNKS, 0.33, cold)[-TRY_CHUNKS:] == [Rung.FULL] * TRY_CHUNKS


def test_a_machine_that_stays_slow_is_seldom_tried() -> None:
    made, stream = Ladder(COSTS), StreamRung()
    slow = dict.fromkeys(MADE_RUNGS, 1.6)
    run(made, stream, 60, 0.33, slow)
    taken = run(made, stream, 3000, 0.33, slow)
    late = sum(rung < Rung.NO_REFINER for rung in taken)
    assert 3 < late < 0.02 * len(taken)


def test_costs_must_be_known() -> None:
    with pytest.raises(ValueError, match="FULL"):
        Ladder(dict.fromkeys(MADE_RUNGS[1:], 0.1))
    with pytest.raises(ValueError, match="cost"):
        Ladder(dict.fromkeys(MADE_RUNGS, 0.0))


def test_a_model_with_two_rungs_moves_between_them_and_holds() -> None:
    made, stream = Ladder({Rung.FULL: 0.1, Rung.NO_REFINER: 0.05}), StreamRung()
    assert made.choose(stream, [Due(1.0, 3)], 0.0) is Rung.FULL
    assert made.choose(stream, [Due(0.2, 3)], 0.0) is Rung.NO_REFINER
    assert made.choose(stream, [Due(0.0, 3)], 1.0) is Rung.HOLD
    assert [made.choose(stream, [Due(1.0, 3)], 0.0) for _ in range(CLIMB_CHUNKS)][-1] is Rung.FULL
