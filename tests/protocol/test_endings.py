"""What of trials and final runs is a miss, what is still to be done, and what has to be mended."""

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from bench.base.errors import BenchError
from bench.protocol import execution, record, tune
from bench.protocol.endings import check_failures, failed, has_ended
from bench.protocol.suite import final, hopeless, runs, state
from bench.run.store import Cause, CellDir, Status, WorkState
from tests.protocol.cells import end_run, end_trial
from tests.protocol.test_suite import planned, read, table, tuned
from tests.protocol.workloads import written
from tests.support.running import bench


@pytest.mark.parametrize(
    ("state_", "cause", "ended", "to_mend"),
    [
        (WorkState.DONE, None, True, False),
        (WorkState.FAILED, Cause.NOT_FINITE, True, False),
        (WorkState.FAILED, Cause.OUT_OF_MEMORY, True, False),
        (WorkState.FAILED, None, False, True),
        (WorkState.FAILED, Cause.KILLED, False, False),
        (WorkState.FAILED, Cause.NODE_FAILURE, False, False),
        (WorkState.FAILED, Cause.LOST, False, False),
        (WorkState.PREEMPTED, Cause.CANCELLED, False, False),
        (WorkState.RUNNING, None, False, False),
    ],
)
def test_misses_are_of_trainings_that_diverged_or_ran_out_of_memory(
    state_: WorkState, cause: Cause | None, ended: bool, to_mend: bool
) -> None:
    status = Status(state=state_, cause=cause)
    assert (has_ended(status), failed(status)) == (ended, to_mend)


def test_failures_are_told_once_for_each_message_with_what_to_do(tmp_path: Path) -> None:
    cells = [CellDir(tmp_path / "out" / "cells" / name) for name in "abcd"]
    for cell, message in zip(cells, ("no module x", "no module x", "full disk"), strict=False):
        cell.write_status(WorkState.FAILED, message=message)
    cells[3].write_status(WorkState.FAILED, message="diverged", cause=Cause.NOT_FINITE)
    with pytest.raises(BenchError) as error:
        check_failures((cell.id.upper(), cell) for cell in cells)
    assert f"A (and 1 more): no module x\n  see {cells[0].path}\n" in str(error.value)
    assert f"C: full disk\n  see {cells[2].path}\n" in str(error.value) and "D" not in str(error.value)
    assert str(error.value).endswith(f"python -m bench retry {tmp_path / 'out'}")
    check_failures([("D", cells[3])])


def test_a_trial_that_failed_otherwise_is_no_miss_and_stops_a_suite(tmp_path: Path, plugin: None) -> None:
    suite = planned(tmp_path, "full_bp")
    (part,) = suite.parts
    bad = part.tuning.trials[1]
    for trial in part.tuning.trials:
        end_trial(part, trial, 0.5)
    part.tuning.results.cell(bad.cell).write_status(WorkState.FAILED, message="ImportError: no x")
    found = {(run.method, run.seed): run for run in runs(suite, part)}
    assert [found["full_bp", seed].cell is None for seed in range(3)] == [True, False, True]
    assert not tune.unfinished(part.tuning).combinations  # until it is mended
    lines = table(suite, record.TRIALS)
    assert lines["state"].tolist() == ["done", "left", *["done"] * 6] and lines["score"].isna().sum() == 1
    with pytest.raises(BenchError, match=f"{part.name}: full_bp, study 0, trial 1: ImportError: no x"):
        execution.tell(Console(file=io.StringIO()), suite)
    with pytest.raises(BenchError, match=r"full_bp, study 0, trial 1: ImportError"):
        tune.write(part.tuning)
    end_trial(part, bad, None)
    assert execution.tell(Console(file=io.StringIO()), suite) == 1  # final runs are left


def test_a_final_run_that_failed_otherwise_is_left_and_stops_a_suite(tmp_path: Path, plugin: None) -> None:
    suite = tuned(tmp_path, "full_bp")
    (part,) = suite.parts
    run = next(run for run in runs(suite, part) if (run.method, run.seed) == ("full_bp", 2))
    cell = end_run(part, run, {})
    assert (state(part, run), hopeless(part, run)) == ("failed", False)
    cell.write_status(WorkState.FAILED, message="no space left to write")
    assert (state(part, run), hopeless(part, run)) == ("left", True)
    assert run.combination in final(part, [run]).combinations  # the same command tries it again
    with pytest.raises(BenchError, match=f"{part.name}: full_bp, seed 2: no space left to write"):
        execution.tell(Console(file=io.StringIO()), suite)
    record.write(suite)
    assert set(read(suite.out, record.RUNS)["state"]) == {"left"}


@pytest.mark.slow
def test_a_tuning_ends_in_an_error_after_what_can_be_run_and_goes_on_when_it_is_mended(
    tmp_path: Path,
) -> None:
    broken = {"how": "error", "at": 1, "once": str(tmp_path / "mended")}
    path = written(tmp_path, settings={"broken": broken})
    words = ["tune", "--methods", "broken,push", "--trials", 2, "--workload", path, "--jobs", 1]
    done = bench(*words, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "error: what failed is no miss of a method" in done.stderr
    assert "broken, study 0, trial 0: RuntimeError: out of luck" in done.stderr
    assert "give the same command again" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out" / tune.CHOSEN).exists()
    done = bench(*words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "4 done before" in done.stdout
    assert pd.read_csv(tmp_path / "out" / tune.RECORD)["state"].tolist() == ["done"] * 4
