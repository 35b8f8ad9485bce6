"""Batches drawn ahead, and reports that leave the run's random numbers alone."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from training.loop import LoopConfig, Prefetcher, TrainingRun


@pytest.mark.parametrize("threads", [0, 3])
def test_batches_come_in_one_order_however_many_threads_draw_them(threads):
    def draw(rng):
        value = rng.random()
        time.sleep(0.002 * value)  # later batches may be ready first
        return value

    alone = [draw(Prefetcher(draw, 5)._generator(number)) for number in range(12)]
    batches = Prefetcher(draw, 5, first=2, threads=threads)
    assert [batches.next() for _ in range(8)] == alone[2:10]
    batches.close()


def test_what_drawing_raises_is_raised_where_the_batch_is_taken():
    batches = Prefetcher(lambda rng: 1 // 0, 0, threads=1)
    with pytest.raises(ZeroDivisionError):
        batches.next()
    batches.close()


def test_reports_do_not_change_the_random_numbers_of_the_run(tmp_path):
    def drawn(report_seconds: float) -> list[float]:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        run = TrainingRun(tmp_path / str(report_seconds), model, LoopConfig(0.01, report_seconds=report_seconds))
        numbers: list[float] = []

        def loss_of_step():
            numbers.append(float(torch.rand(())))
            return model(torch.ones(2)).square().sum(), {}

        run.train(loss_of_step, lambda ema: {"one": float(torch.manual_seed(1).initial_seed())})
        return numbers[:2]

    assert drawn(0.0) == drawn(60.0)


def test_a_run_that_goes_on_draws_the_numbers_it_would_have_drawn(tmp_path):
    def part(minutes: float) -> tuple[TrainingRun, list[float]]:
        torch.manual_seed(0)
        model = nn.Linear(2, 1)
        run = TrainingRun(tmp_path, model, LoopConfig(minutes))
        numbers: list[float] = []

        def loss_of_step():
            numbers.append(float(torch.rand(())))
            return model(torch.ones(2)).square().sum(), {}

        run.train(loss_of_step, None)
        return run, numbers

    _, first = part(0.001)
    run, second = part(0.002)
    torch.manual_seed(0)
    nn.Linear(2, 1)
    assert first + second == [float(torch.rand(())) for _ in range(len(first) + len(second))]
    assert run.step == len(first) + len(second)
    assert {path.name for path in tmp_path.iterdir()} == {"state.safetensors", "log.txt"}
