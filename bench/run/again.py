"""`bench run --only-failed`: the cells of a results directory that failed, and no others."""

from __future__ import annotations

from bench.experiment.request import Experiment
from bench.experiment.resolve import Cell
from bench.run import experiment
from bench.run.experiment import PlannedRun
from bench.run.slurm.control import FAILED, to_retry
from bench.run.store import ResultsDir
from bench.run.titles import titles
from bench.run.work import CellWork, kind_of


def plan(what: Experiment, whole: bool, force: bool, fetch: bool, processes: int) -> PlannedRun:
    """Plan those cells of a request that failed or were killed. Arguments and errors as for a run.

    whole: all that failed in the request's results directory instead, each with the settings that it has
    there. Raises BenchError where the directory has no cells.
    """
    results = ResultsDir(what.out)
    failed = [cell for cell in to_retry(results, FAILED) if kind_of(cell) is CellWork]
    if not whole:
        planned = experiment.plan(what, force, fetch, processes, only={cell.id for cell in failed})
        cells, todo, asked = planned.cells, planned.todo, what
    else:
        configs = [cell.config() for cell in failed]
        cells = [Cell(cell.id, config) for cell, config in zip(failed, configs, strict=True)]
        todo = [CellWork(*row) for row in zip(failed, configs, titles(configs), strict=True)]
        experiment.check(results, cells, todo, processes, here=True)
        asked = None
    others = len(failed) - len(todo)
    nothing = f"no cell in {results.path} failed: nothing to run"
    if others:
        words = "other" if others == 1 else "others"
        nothing = f"no cell of this request failed in {results.path}: nothing to run; {others} {words} did"
    return PlannedRun(asked, results, cells, todo, force, nothing)
