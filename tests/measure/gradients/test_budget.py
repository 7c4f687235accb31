"""How `python -m bench gradients` shares its time among methods, and that it keeps to it."""

import subprocess
import time
from pathlib import Path

import pytest

from bench.measure.gradients import run
from bench.measure.gradients.plan import Limits
from bench.measure.gradients.profiles import rows
from bench.run.store import WorkState
from tests.measure.gradients.running import gradients
from tests.support.running import environment


class Clock:
    """Time that stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(run.time, "monotonic", lambda: self.now)


def slots(budget: float | None, jobs: int, *shares: float) -> run.Slots:
    """With the seconds for tables added to the budget. The first is the reference, hence its double share."""
    limits = Limits(None if budget is None else budget + run.RESERVE, 50, 0.1)
    return run.Slots(limits, jobs, shares, started=1000.0)


def test_budget_is_shared_equally_and_the_reference_gets_twice_as_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, share = Clock(monkeypatch), slots(400, 1, 2, 1, 1)
    for elapsed, waiting, seconds in ((0, 3, 200), (200, 2, 100), (300, 1, 100)):
        clock.now = 1000 + elapsed
        assert share(waiting, []).timeout == pytest.approx(seconds)


def test_time_left_over_by_early_finishers_goes_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, share = Clock(monkeypatch), slots(400, 1, 2, 1, 1)
    assert share(3, []).timeout == pytest.approx(200)
    clock.now += 20
    assert share(2, []).timeout == pytest.approx(190)
    clock.now += 10
    assert share(1, []).timeout == pytest.approx(370)


def test_methods_at_a_time_share_the_seconds_of_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, share = Clock(monkeypatch), slots(400, 2, 1, 1, 1, 1)
    first = share(4, []).timeout
    assert (first, share(3, [200.0]).timeout) == (pytest.approx(200), pytest.approx(200))
    clock.now += 200
    assert share(2, [0.0]).timeout == pytest.approx(200)
    assert share(1, [200.0]).timeout == pytest.approx(200)


def test_no_method_gets_more_than_is_left_nor_less_than_it_needs_to_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, share = Clock(monkeypatch), slots(60, 4, 2, 1)
    assert share(2, []).timeout == pytest.approx(60)
    clock.now += 500
    assert share(1, []).timeout == run.LEAST


def test_time_spent_on_planning_is_part_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch).now += 100
    assert slots(400, 1, 1)(1, []).timeout == pytest.approx(300)


def test_draws_and_precision_are_passed_on_and_no_budget_is_no_limit() -> None:
    way = slots(None, 1, 1)(1, [])
    assert way.timeout is None
    assert way.extra == ("--draws", "50", "--precision", "0.1")


@pytest.mark.slow
def test_budget_is_kept(tmp_path: Path) -> None:
    started = time.monotonic()
    more = ("--methods", "truncated_bp", "--budget", "32s", "--jobs", "2")
    done = subprocess.run(
        gradients(tmp_path, *more), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert time.monotonic() - started < 32 + 15  # the machine may be busy with other things
    assert all(row.moments.draws > 0 and row.state is WorkState.DONE for row in rows(tmp_path))
