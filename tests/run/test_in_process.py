import importlib
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from bench.experiment.request import Options, build
from bench.run import claims, experiment, launch
from bench.run.launch import INTERRUPTED
from bench.run.process import HowToRun, Outcome
from bench.run.progress import Lines
from bench.run.store import ResultsDir, Status, WorkState
from bench.run.work import CellWork
from tests.support.running import DOTS, PATIENCE, bench, here, numbers, plan_dots, run_dots

BROKEN = ("--methods", "push,broken", "--set", "broken.at=2", "--seeds", "0,1")


def run_here(out: Path, *settings: str, methods: str = "push", timeout: float | None = None) -> int:
    """`bench run --in-process` without a new process."""
    options = Options(methods=methods, model=str(DOTS), settings=settings, out=out, steps=4)
    planned = experiment.plan(build(options), force=False)
    return experiment.run(Console(), planned, None, HowToRun(timeout=timeout), in_process=True).code


@pytest.mark.slow
def test_cells_in_this_process_give_the_numbers_of_worker_processes(tmp_path: Path, plugin: None) -> None:
    workers = run_dots(tmp_path / "workers", *BROKEN)
    options = ("--no-report", "--model", DOTS, "--out", tmp_path / "here", *BROKEN)
    one = here("run", "--in-process", *options)
    assert (workers.returncode, one.returncode) == (1, 1)
    cells = ResultsDir(tmp_path / "here").cells()
    assert len(cells) == 5
    for ours in cells:
        theirs = ResultsDir(tmp_path / "workers").cell(ours.id)
        assert ours.status().state is theirs.status().state
        assert claims.read(ours) is None
        if ours.status().state is WorkState.DONE and not ours.id.startswith("base"):
            assert numbers(ours) == numbers(theirs)
    assert one.stdout.count("out of luck") >= 2


@pytest.mark.slow
def test_failing_cell_does_not_keep_the_next_ones_from_running(tmp_path: Path, plugin: None) -> None:
    assert run_here(tmp_path, "broken.at=1", methods="broken,push") == 1
    states = {cell.id.partition("-")[0]: cell.status().state for cell in ResultsDir(tmp_path).cells()}
    assert states == {"base": WorkState.DONE, "broken": WorkState.FAILED, "push": WorkState.DONE}


@pytest.mark.slow
def test_cell_out_of_time_leaves_the_others_theirs(tmp_path: Path, plugin: None) -> None:
    assert run_here(tmp_path, "push.pause=0.4", timeout=0.2) == 1
    states = {cell.id.partition("-")[0]: cell.status().state for cell in ResultsDir(tmp_path).cells()}
    assert states["push"] is WorkState.TIMEOUT
    assert run_here(tmp_path, "push.pause=0.4") == 0


def test_interrupt_stops_at_a_batchs_end_and_leaves_the_rest(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    method = importlib.import_module("bench_test_plugin")
    monkeypatch.setattr(method, "time", SimpleNamespace(sleep=interrupted))
    assert run_here(tmp_path) == INTERRUPTED
    cells = ResultsDir(tmp_path).cells()
    (push,) = [cell for cell in cells if cell.id.startswith("push")]
    assert (push.status().state, push.status().step) == (WorkState.PREEMPTED, 1)
    assert [claims.read(cell) for cell in cells] == [None, None]


@pytest.mark.parametrize("option", [("--jobs", 2), ("--processes", 2)])
def test_several_at_a_time_in_one_process_is_refused(tmp_path: Path, option: tuple[str, int]) -> None:
    done = bench("run", "--in-process", *option, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "--in-process runs one cell at a time in one process" in done.stderr


def test_claims_are_renewed_while_this_process_works(
    tmp_path: Path, plugin: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.02)
    todo = plan_dots(tmp_path)
    ready, _ = launch.prepare(todo, force=False)
    files = [work.directory.path / claims.FILE for work in todo]

    def work(work: CellWork) -> Outcome:
        for file in filter(Path.exists, files):
            os.utime(file, (0, 0))
        deadline = time.monotonic() + PATIENCE
        while any(file.stat().st_mtime == 0 for file in files if file.exists()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return Outcome(work, Status(state=WorkState.DONE))

    outcomes, interrupted = launch.run_here(ready, work, Lines(Console(), len(todo)))
    assert (len(outcomes), interrupted) == (len(todo), False)
    assert not any(file.exists() for file in files)
