"""How `python -m bench gradients` shares its time among methods, and that it keeps to it."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from bench.measure.gradients import run, worker
from bench.measure.gradients.plan import Limits, unfinished
from bench.measure.gradients.probe import Probe
from bench.measure.gradients.profiles import rows
from bench.measure.gradients.store import ProbeDir
from bench.run import launch
from bench.run.process import HowToRun
from bench.run.store import WorkState
from bench.run.work import Work
from tests.measure.gradients.running import planned


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


def test_process_is_told_its_share(tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    way, (task, _) = slots(400, 1, 2, 1, 1)(3, []), unfinished(planned(tmp_path), force=False)
    words = way.command(task)
    assert float(words[words.index("--timeout") + 1]) == pytest.approx(200)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0, 6])
def test_budget_is_kept_to_the_second_by_a_clock_on_which_a_draw_takes_one(
    start: int, tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """start: seconds until a process draws; they are its own."""
    clock, draw = Clock(monkeypatch), Probe.draw

    def one_second(self: Probe) -> None:
        draw(self)
        clock.now += 1

    def one_after_the_other(
        todo: list[Work], jobs: int, way: Callable[..., HowToRun], *_: object
    ) -> tuple[list[launch.Outcome], bool]:
        for n, work in enumerate(todo):
            timeout = way(len(todo) - n, []).timeout
            clock.now += start
            assert timeout is not None
            worker.run_probe(ProbeDir(work.directory.path), timeout, None, None)
        return [launch.Outcome(work, work.directory.status()) for work in todo], False

    born = SimpleNamespace(create_time=lambda: time.time() - start)
    monkeypatch.setattr(worker, "psutil", SimpleNamespace(Process=lambda: born))
    monkeypatch.setattr(Probe, "draw", one_second)
    monkeypatch.setattr(launch, "run", one_after_the_other)
    limits = Limits(run.RESERVE + 60, None, None)
    found = replace(planned(tmp_path), limits=limits, jobs=1)
    assert run.run(Console(quiet=True), found, force=False, started=1000.0).code == 0
    assert 1000 + 58 <= clock.now <= 1000 + 60
    exact, other = rows(tmp_path)
    assert all(row.state is WorkState.DONE for row in (exact, other))
    assert exact.moments.draws > other.moments.draws > 0
