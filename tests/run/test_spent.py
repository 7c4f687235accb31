"""Budgets: what is counted, and where a training ends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bench.base.errors import BenchError
from bench.base.files import read_rows
from bench.experiment.settings import TrainConfig
from bench.run.spent import Counters, Limit
from tests.support.running import cell, run_dots


def after(batches: int, **each: Any) -> Counters:
    """So many batches of one step, 10 forwards, 5 backwards and 2 seconds."""
    cost = {"nfe_forward": 10, "nfe_backward": 5, "nfe_again": 5, "seconds": 2.0, **each}
    return Counters(step=batches, batch=batches, **{key: batches * value for key, value in cost.items()})


def batches(settings: TrainConfig) -> int:
    """How many there are before the limit is reached."""
    limit, n = Limit(settings), 0
    while not limit.reached(after(n)):
        n += 1
    return n


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"steps": 3}, 3), ({"budget": 20}, 1), ({"budget": 79}, 3), ({"budget": 80}, 4), ({"budget": "5s"}, 2)],
)
def test_a_training_ends_before_the_batch_that_would_exceed_its_budget(
    settings: dict[str, Any], expected: int
) -> None:
    """A backward counts as two forwards; what is run again does not count."""
    assert batches(TrainConfig(**settings)) == expected


def test_a_budget_below_one_batch_is_an_error() -> None:
    limit = Limit(TrainConfig(budget=19))
    assert not limit.reached(Counters())
    with pytest.raises(BenchError, match=r"train\.budget is 19 forwards, and one batch takes 20: give more"):
        limit.check(after(1))


def test_a_budget_stands_over_steps_and_says_so_if_there_is_neither() -> None:
    found = TrainConfig(steps=7, eval_every=2, budget="10m")
    assert (found.steps, found.eval_every, found.budget) == (None, None, "10m")
    with pytest.raises(ValidationError, match="neither `steps` nor a `budget`"):
        TrainConfig(steps=None)
    with pytest.raises(ValidationError, match="expected a time such as 90s"):
        TrainConfig(budget="soon")


def test_evaluations_come_at_equal_parts_of_the_budget() -> None:
    limit = Limit(TrainConfig(budget=170, evaluations=4))  # eight batches of 20
    due = [n for n in range(1, 9) if limit.passed(after(n - 1), after(n))]
    assert due == [3, 5, 7]  # 60 of 42.5, 100 of 85, 140 of 127.5; the last is at the end, whatever is left
    steps = Limit(TrainConfig(steps=8, evaluations=2, eval_every=3))
    assert [n for n in range(1, 9) if steps.passed(after(n - 1), after(n))] == [3, 4, 6, 8]


def test_counters_survive_a_line_of_a_log() -> None:
    counters = replace(after(3), samples=24)
    assert Counters.of({**counters.row(), "reward_mean": 1.0}) == counters


@pytest.mark.slow
def test_methods_of_different_cost_spend_the_same_budget(tmp_path: Path) -> None:
    done = run_dots(tmp_path, "--methods", "full_bp,random-direction", "--budget", 400)
    assert done.returncode == 0, done.stderr
    for method in ("full_bp", "random-direction"):
        last = Counters.of(read_rows(cell(tmp_path, method).metrics)[-1])
        spent = last.forward_equivalents
        assert spent <= 400 < spent * (1 + 1 / last.batch)
