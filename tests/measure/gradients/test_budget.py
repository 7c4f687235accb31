"""How `python -m bench gradients` shares its time among methods, and that it keeps to it."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench.base.files import append_rows
from bench.measure.gradients import run, worker
from bench.measure.gradients.plan import Limits, unfinished
from bench.measure.gradients.probe import Probe
from bench.measure.gradients.profiles import rows
from bench.measure.gradients.store import ProbeDir
from bench.run import launch
from bench.run.process import HowToRun
from bench.run.store import WorkDir, WorkState
from bench.run.work import Work
from tests.measure.gradients.running import planned


class Worked:
    """A profile as far as the budget is concerned. drew: seconds; None while it runs."""

    def __init__(self, folder: Path, share: float) -> None:
        self.config = SimpleNamespace(deployed=share > 1)
        self.directory, self.log = WorkDir(folder), folder / "draws.jsonl"
        folder.mkdir()

    def ended(self, drew: float) -> None:
        append_rows(self.log, [{"step": 1, "drawing": drew}])
        self.directory.write_status(WorkState.DONE, 1)


def slots(
    folder: Path, budget: float | None, jobs: int, *shares: float
) -> tuple[Callable[[int], float], list[Worked]]:
    """The seconds granted to the next of so many, and the profiles. A share of 2 is the reference's."""
    works = [Worked(folder / str(n), share) for n, share in enumerate(shares)]
    found = run.Slots(Limits(budget, 50, 0.1), jobs, works)  # type: ignore[arg-type]

    def granted(waiting: int) -> float:
        words = found(waiting, []).extra
        return float(words[words.index("--timeout") + 1])

    return granted, works


def test_budget_is_shared_equally_and_the_reference_gets_twice_as_much(tmp_path: Path) -> None:
    granted, works = slots(tmp_path, 400, 1, 2, 1, 1)
    for waiting, seconds in ((3, 200), (2, 100), (1, 100)):
        assert granted(waiting) == pytest.approx(seconds)
        works[3 - waiting].ended(seconds)


def test_time_left_over_by_early_finishers_goes_to_the_others(tmp_path: Path) -> None:
    granted, works = slots(tmp_path, 400, 1, 2, 1, 1)
    assert granted(3) == pytest.approx(200)
    works[0].ended(20)
    assert granted(2) == pytest.approx(190)
    works[1].ended(10)
    assert granted(1) == pytest.approx(370)


def test_methods_at_a_time_share_the_seconds_of_all_places(tmp_path: Path) -> None:
    granted, works = slots(tmp_path, 400, 2, 1, 1, 1, 1)
    assert (granted(4), granted(3)) == (pytest.approx(200), pytest.approx(200))
    works[0].ended(200)
    works[1].ended(200)
    assert (granted(2), granted(1)) == (pytest.approx(200), pytest.approx(200))


@pytest.mark.silent
def test_budget_counts_drawing_and_not_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    granted, works = slots(tmp_path, 400, 1, 1, 1)
    assert granted(2) == pytest.approx(200)
    works[0].ended(200)
    later = time.monotonic() + 5000  # of which 4800 went into loading
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert granted(1) == pytest.approx(200)


@pytest.mark.silent
def test_budget_of_a_profile_that_failed_before_its_first_draw_is_left_to_the_others(tmp_path: Path) -> None:
    granted, works = slots(tmp_path, 400, 1, 1, 1)
    assert granted(2) == pytest.approx(200)
    works[0].directory.write_status(WorkState.FAILED)
    assert granted(1) == pytest.approx(400)


def test_draws_and_precision_are_passed_on_and_no_budget_is_no_limit() -> None:
    way = run.Slots(Limits(None, 50, 0.1), 1, ())(0, [])
    assert way.timeout is None
    assert way.extra == ("--draws", "50", "--precision", "0.1")


def test_process_is_told_its_share(tmp_path: Path, plugin: None) -> None:
    todo = unfinished(planned(tmp_path), force=False)
    words = run.Slots(Limits(300, None, None), 1, todo)(2, []).command(todo[0])
    assert float(words[words.index("--timeout") + 1]) == pytest.approx(200)


@pytest.mark.slow
@pytest.mark.silent
@pytest.mark.parametrize("loading", [0, 600])
def test_budget_is_kept_to_the_second_by_a_clock_on_which_a_draw_takes_one(
    loading: int, tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """loading: seconds until a process draws, which are not of the budget."""
    now, drawn, draw, load = 1000.0, 0, Probe.draw, worker.load_chain
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def one_second(self: Probe) -> None:
        nonlocal now, drawn
        draw(self)
        now, drawn = now + 1, drawn + 1

    def slow_loading(*arguments: Any) -> Any:
        nonlocal now
        now += loading
        return load(*arguments)

    def one_after_the_other(
        todo: list[Work], jobs: int, way: Callable[..., HowToRun], *_: object
    ) -> tuple[list[launch.Outcome], bool]:
        for n, work in enumerate(todo):
            words = way(len(todo) - n, []).extra
            worker.run_probe(
                ProbeDir(work.directory.path), float(words[words.index("--timeout") + 1]), None, None
            )
        return [launch.Outcome(work, work.directory.status()) for work in todo], False

    monkeypatch.setattr(Probe, "draw", one_second)
    monkeypatch.setattr(worker, "load_chain", slow_loading)
    monkeypatch.setattr(launch, "run", one_after_the_other)
    found = replace(planned(tmp_path), limits=Limits(60, None, None), jobs=1)
    assert run.run(Console(quiet=True), found, force=False).code == 0
    assert 58 <= drawn <= 60
    exact, other = rows(tmp_path)
    assert all(row.state is WorkState.DONE for row in (exact, other))
    assert exact.moments.draws > other.moments.draws > 0
