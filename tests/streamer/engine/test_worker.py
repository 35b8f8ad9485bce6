"""The worker's loop in this process: what is asked goes in as messages, what is answered comes out as a list."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from streamer.child.arrays import array_file
from streamer.engine import worker as module
from streamer.engine.config import EngineConfig
from streamer.engine.ladder import CLIMB_ROOM, Rung
from streamer.engine.messages import CloseStream, Done, NotDone, Open, Opened, Ready, Rewind, Step
from streamer.engine.shared_frames import Ring, RingShape
from streamer.engine.worker import WARM_LATENTS, Worker, measure_rungs

MADE_RUNGS = tuple(Rung)[:-1]
SIZE = (64, 64)
PLANES = (SIZE[0] * 3 // 2, SIZE[1])
SHAPE = RingShape(3, SIZE)
CONFIG = EngineConfig(pattern_size=SIZE, pipeline="test-pattern", mark=None)
FAR = 1e12


@dataclass(frozen=True)
class FakeState:
    frame_index: int
    prompt: str
    energy: float
    grey: float
    heard: tuple[float, ...] = ()


@dataclass
class FakeBackend:
    """Its pictures are the sum of what it heard; a state remembers all that was done to it."""

    fps: int = 25
    sample_rate: int = 16_000
    frame_size: tuple[int, int] = SIZE
    delay_frames: int = 2
    rungs: tuple[Rung, ...] = MADE_RUNGS
    fixed_latents: int | None = None
    steps: list[tuple[Rung, FakeState]] = field(default_factory=list)
    failing: set[float] = field(default_factory=set)
    largest_batch: int = 1
    batches: list[int] = field(default_factory=list)

    def rehearsal(self):
        return FakeState(-2, "", 1.0, 0.5)

    def start(self, reference, prompt, seed, chunk_latents, motion_energy, first_frame):
        if seed == 13:
            raise ValueError("13 brings no luck")
        return FakeState(first_frame - 2, prompt, motion_energy, float(reference.mean()))

    def step_batch(self, samples, states, rung):
        self.batches.append(len(states))
        return [self._step(sound, state, rung) for sound, state in zip(samples, states, strict=True)]

    def _step(self, samples, state, rung):
        if samples[0] in self.failing:
            raise RuntimeError("no good")
        state = self.hold(samples, state)
        self.steps.append((rung, state))
        value = int(sum(state.heard))
        return np.full((len(samples) // 640, *PLANES), value, np.uint8), state, {"decode": 1.0}

    def still(self, state):
        return np.full(PLANES, round(200 * state.grey), np.uint8)

    def hold(self, samples, state):
        return replace(
            state, frame_index=state.frame_index + len(samples) // 640, heard=(*state.heard, float(samples[0]))
        )

    def set_prompt(self, state, prompt, motion_energy):
        prompt = state.prompt if prompt is None else prompt
        return replace(state, prompt=prompt, energy=state.energy if motion_energy is None else motion_energy)

    def set_reference(self, state, reference):
        return replace(state, grey=float(reference.mean()))


class Script:
    """The worker's channel: a list of things to arrive; when it is at its end, so is the parent."""

    def __init__(self) -> None:
        self.coming: list[Any] = []
        self.answers: list[Any] = []

    def receive(self, is_waiting: bool):
        while self.coming:
            item = self.coming.pop(0)
            if item == "pause":  # nothing more has arrived yet
                if is_waiting:
                    continue
                return None
            return item if isinstance(item, tuple) else (item, [])
        if is_waiting:
            raise EOFError
        return None

    def send(self, message: Any) -> None:
        self.answers.append(message)


class Bench:
    """A worker with a fake backend, and both ends of its rings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.backend = FakeBackend()
        monkeypatch.setattr(module, "make_backend", lambda config: self.backend)
        self.script = Script()
        self.worker = Worker(self.script, CONFIG, None)  # type: ignore[arg-type]
        self.facts = self.script.answers.pop().facts
        self.backend.steps.clear()
        self.backend.batches.clear()
        self.rings: dict[int, Ring] = {}
        self.numbers = iter(range(1, 1000))

    def open(self, stream: int, **changes: Any) -> tuple[Open, list[int]]:
        self.rings[stream] = Ring(SHAPE)
        request = replace(Open(stream, SHAPE, "calm", 0, 1.0, 0), **changes)
        reference = np.full((3, *SIZE), 0.5, np.float32)
        return request, [os.dup(self.rings[stream].descriptor), array_file(reference)]

    def step(self, stream: int, value: float, slot: int = 0, deadline_s: float = FAR, **changes: Any) -> Step:
        self.rings[stream].sound(slot, 3)[:] = value
        return Step(stream, next(self.numbers), slot, 3, deadline_s, **changes)

    def run(self, *coming: Any) -> list[Any]:
        self.script.coming += coming
        with pytest.raises(EOFError):
            self.worker.serve()
        answers, self.script.answers = self.script.answers, []
        return answers

    def heard(self) -> list[tuple[float, ...]]:
        return [state.heard for _, state in self.backend.steps]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_frames_lie_in_the_slot_of_the_step(bench: Bench) -> None:
    answers = bench.run(bench.open(1), bench.step(1, 100, slot=2))
    assert answers[0] == Opened(1)
    done = answers[1]
    assert (done.first_frame, done.frames, done.rung) == (-2, 12, Rung.FULL)
    assert done.stage_ms == {"decode": 1.0} and done.started_s <= done.finished_s
    assert (bench.rings[1].frames(2, 12) == 100).all()
    assert not bench.rings[1].frames(1, 12).any()


def test_facts_tell_what_the_backend_is_and_costs(bench: Bench) -> None:
    assert (bench.facts.fps, bench.facts.frame_size, bench.facts.delay_frames) == (25, SIZE, 2)
    assert bench.facts.warm_rtf > 0 and set(bench.facts.rung_s) == set(MADE_RUNGS)
    assert bench.facts.pid == os.getpid()


def test_earliest_deadline_runs_first_and_a_stream_keeps_its_order(bench: Bench) -> None:
    opened = [bench.open(1), bench.open(2)]
    requests = [bench.step(1, 1, 0, FAR + 500), bench.step(1, 2, 1, FAR), bench.step(2, 3, 0, FAR + 400)]
    bench.run(*opened, *requests)
    assert bench.heard() == [(3.0,), (1.0,), (1.0, 2.0)]


def test_rewind_takes_a_queued_step_out(bench: Bench) -> None:
    opened = bench.open(1)
    first, second = bench.step(1, 1, 0), bench.step(1, 2, 1)
    answers = bench.run(opened, first, second, Rewind(1, second.step), bench.step(1, 3, 2))
    assert NotDone(1, second.step) in answers
    assert bench.heard() == [(1.0,), (1.0, 3.0)]


def test_rewind_after_a_step_takes_its_state_back(bench: Bench) -> None:
    opened = bench.open(1)
    first, second = bench.step(1, 1, 0), bench.step(1, 2, 1)
    answers = bench.run(opened, first, "pause", second, "pause", Rewind(1, second.step), bench.step(1, 3, 2))
    assert bench.heard() == [(1.0,), (1.0, 2.0), (1.0, 3.0)]
    assert [a.first_frame for a in answers if isinstance(a, Done)] == [-2, 10, 10]


def test_rewind_of_a_step_that_is_not_the_newest_changes_nothing(bench: Bench) -> None:
    opened = bench.open(1)
    first, second = bench.step(1, 1, 0), bench.step(1, 2, 1)
    bench.run(opened, first, "pause", second, "pause", Rewind(1, first.step), Rewind(9, 1), bench.step(1, 3, 2))
    assert bench.heard()[-1] == (1.0, 2.0, 3.0)


def test_one_level_of_rewind(bench: Bench) -> None:
    opened = bench.open(1)
    first, second = bench.step(1, 1, 0), bench.step(1, 2, 1)
    rewinds = [Rewind(1, second.step), Rewind(1, first.step)]
    bench.run(opened, first, "pause", second, "pause", *rewinds, bench.step(1, 3, 2))
    assert bench.heard()[-1] == (1.0, 3.0)


def test_conditions_hold_from_their_step_on(bench: Bench) -> None:
    opened = bench.open(1)
    steps = [bench.step(1, 1, 0), bench.step(1, 2, 1, prompt="glad"), bench.step(1, 3, 2, motion_energy=0.5)]
    bench.run(opened, *steps)
    assert [(s.prompt, s.energy) for _, s in bench.backend.steps] == [("calm", 1.0), ("glad", 1.0), ("glad", 0.5)]


def test_conditions_survive_a_rewind(bench: Bench) -> None:
    opened = bench.open(1)
    changed = bench.step(1, 2, 1, prompt="glad")
    queued = bench.step(1, 3, 2, motion_energy=0.5)
    bench.run(opened, bench.step(1, 1, 0), "pause", changed, "pause", Rewind(1, changed.step), bench.step(1, 4, 3))
    assert bench.backend.steps[-1][1].prompt == "glad" and bench.heard()[-1] == (1.0, 4.0)
    bench.run(queued, Rewind(1, queued.step), bench.step(1, 5, 0))
    assert bench.backend.steps[-1][1].energy == 0.5


def test_new_reference_comes_with_its_step(bench: Bench) -> None:
    opened = bench.open(1)
    white = array_file(np.ones((3, *SIZE), np.float32))
    bench.run(opened, bench.step(1, 1, 0), (bench.step(1, 2, 1), [white]), bench.step(1, 3, 2))
    assert [state.grey for _, state in bench.backend.steps] == [0.5, 1.0, 1.0]
    with pytest.raises(OSError):
        os.fstat(white)


def test_late_chunk_is_held_and_the_next_one_goes_on(bench: Bench) -> None:
    opened = bench.open(1)
    steps = [bench.step(1, 100, 0), bench.step(1, 20, 1, deadline_s=0.0), bench.step(1, 30, 2)]
    answers = bench.run(opened, *steps)[1:]
    assert [answer.rung for answer in answers] == [Rung.FULL, Rung.HOLD, Rung.FULL]
    assert [answer.first_frame for answer in answers] == [-2, 10, 22]
    full_s = CLIMB_ROOM * bench.worker._ladder.predicted_s(Rung.FULL, 3)  # of a held chunk, too
    assert answers[2].full_s == pytest.approx(full_s) and 0 < answers[1].full_s < 1
    assert np.array_equal(bench.rings[1].frames(1, 12), bench.rings[1].frames(0, 12))
    assert bench.heard()[-1] == (100.0, 20.0, 30.0)


def test_stream_that_is_held_from_the_start_shows_its_reference(bench: Bench) -> None:
    opened = bench.open(1)
    bench.run(opened, bench.step(1, 1, 0, deadline_s=0.0))
    assert (bench.rings[1].frames(0, 12) == 100).all()


def test_failing_step_is_told_and_leaves_the_state(bench: Bench) -> None:
    opened = bench.open(1)
    bench.backend.failing = {2.0}
    steps = [bench.step(1, 1, 0), bench.step(1, 2, 1), bench.step(1, 3, 2)]
    answers = bench.run(opened, *steps)
    assert [a.failure for a in answers if isinstance(a, NotDone)] == ["the step failed: no good"]
    assert bench.heard() == [(1.0,), (1.0, 3.0)]


def test_stream_that_cannot_be_opened_is_told(bench: Bench) -> None:
    (answer,) = bench.run(bench.open(1, seed=13))
    assert answer == Opened(1, "the stream could not be opened: 13 brings no luck")


def test_chunks_of_streams_that_have_time_are_made_in_one_step(bench: Bench) -> None:
    bench.backend.largest_batch = 2
    opened = [bench.open(stream) for stream in (1, 2, 3)]
    requests = [bench.step(stream, 10 * stream, 0, FAR + stream) for stream in (3, 1, 2)]
    answers = bench.run(*opened, *requests, bench.step(1, 5, 1, FAR + 9))
    assert bench.backend.batches == [2, 2]
    assert bench.heard() == [(10,), (20,), (30,), (10, 5)]
    done = [answer for answer in answers if isinstance(answer, Done)]
    assert [(answer.stream, answer.first_frame) for answer in done] == [(1, -2), (2, -2), (3, -2), (1, 10)]
    for stream in (1, 2, 3):
        assert (bench.rings[stream].frames(0, 12) == 10 * stream).all()


def test_batch_is_no_larger_than_the_first_deadline_allows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.backend.largest_batch = 8
    monkeypatch.setattr(module.Ladder, "predicted_s", lambda self, rung, latents: 0.0 if rung is Rung.HOLD else 10.0)
    opened, now_s = [bench.open(stream) for stream in (1, 2, 3)], time.monotonic()
    bench.run(*opened, *(bench.step(stream, 1, 0, now_s + 15 + 10 * stream) for stream in (1, 2, 3)))
    assert bench.backend.batches == [2, 1]


def test_streams_on_other_rungs_are_made_by_themselves(bench: Bench) -> None:
    bench.backend.largest_batch = 8
    bench.run(*(bench.open(stream) for stream in (1, 2, 3)))
    bench.worker._streams[2].rung.move(Rung.NO_REFINER)
    bench.run(*(bench.step(stream, 1) for stream in (1, 2, 3)))
    assert bench.backend.batches == [2, 1]
    assert [rung for rung, _ in bench.backend.steps] == [Rung.FULL, Rung.FULL, Rung.NO_REFINER]


def test_bad_chunk_of_a_batch_fails_alone(bench: Bench) -> None:
    bench.backend.largest_batch = 8
    bench.backend.failing.add(7)
    opened = [bench.open(stream) for stream in (1, 2, 3)]
    bad = bench.step(2, 7)
    answers = bench.run(*opened, bench.step(1, 1), bad, bench.step(3, 3))
    assert [answer for answer in answers if isinstance(answer, NotDone)] == [
        NotDone(2, bad.step, "the step failed: no good")
    ]
    assert sorted(answer.stream for answer in answers if isinstance(answer, Done)) == [1, 3]
    assert bench.worker._streams[1].now.state.heard == (1,)  # once, although it was made twice


def test_closed_stream_runs_no_more(bench: Bench) -> None:
    opened = bench.open(1)
    bench.run(opened, bench.step(1, 1, 0), CloseStream(1), bench.step(1, 2, 1))
    assert not bench.backend.steps


def test_known_costs_are_not_measured_again(bench: Bench) -> None:
    Worker(bench.script, CONFIG, bench.facts)  # type: ignore[arg-type]
    ready = bench.script.answers.pop()
    assert isinstance(ready, Ready) and ready.facts.rung_s == bench.facts.rung_s
    assert not bench.backend.steps


def test_rungs_are_measured_without_the_cold_chunk_and_within_a_limit() -> None:
    times = {Rung.FULL: 0.3, Rung.HALF_RATE: 0.2, Rung.NO_REFINER: 0.1, Rung.NO_REFINER_HALF_RATE: 0.05}
    now = [0.0]
    made: list[Rung] = []

    def make(rung: Rung) -> None:
        now[0] += times[rung] * (10 if not made else 1)
        made.append(rung)

    found = measure_rungs(make, MADE_RUNGS, WARM_LATENTS, lambda: now[0])
    assert found == {rung: pytest.approx(seconds / 3) for rung, seconds in times.items()}

    made.clear()
    times = dict.fromkeys(times, 100.0)
    found = measure_rungs(make, MADE_RUNGS, WARM_LATENTS, lambda: now[0])
    assert made == [Rung.FULL] and set(found) == set(MADE_RUNGS)
