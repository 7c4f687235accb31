"""A whole request: plan its cells, show them, run what is left, report."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import launch
from bench.cells import Cell, resolve
from bench.config import dump_yaml
from bench.estimate import seconds_per_step
from bench.progress import watcher
from bench.request import Experiment
from bench.settings import SCHEMA_VERSION
from bench.store import ResultsDir, State, write_atomically

INTERRUPTED = 130  # what a shell reports after Ctrl-C


@dataclass(frozen=True)
class Planned:
    """A checked request: all its cells, and those that have to run."""

    experiment: Experiment
    results: ResultsDir
    cells: list[Cell]
    tasks: list[launch.Task]
    force: bool


def plan(experiment: Experiment, force: bool) -> Planned:
    """Check everything that can be checked before a run. Raises BenchError."""
    cells = resolve(experiment.request, experiment.layers)
    results = ResultsDir(experiment.out)
    tasks = launch.unfinished(results, cells, force)
    if tasks:
        launch.check_disk(results, len(tasks))
    return Planned(experiment, results, cells, tasks, force)


def show(console: Console, planned: Planned) -> None:
    """The cells, what state they are in, and how long they will take as far as that was ever measured."""
    table = Table(title=f"{len(planned.cells)} cells in {planned.results.path}", title_justify="left")
    for header in ("cell", "state", "steps", "batch", "estimated time"):
        table.add_column(header, overflow="fold", no_wrap=header == "cell")
    waiting = {task.id for task in planned.tasks}
    for cell in planned.cells:
        status = planned.results.cell(cell.id).status()
        training = cell.config.training
        state = f"{status.state} at {status.step}" if status.step else str(status.state)
        if training is None:
            table.add_row(cell.id, state, "-", "-", "evaluation only" if cell.id in waiting else "-")
            continue
        train = training.train
        batch = f"{train.prompts_per_step} × {train.samples_per_prompt}"
        table.add_row(
            cell.id,
            state,
            str(train.steps),
            batch,
            _time(planned, cell, status.step) if cell.id in waiting else "-",
        )
    console.print(table)
    console.print(
        "Times are training alone, from the newest cell with the same method, model and batch below "
        f"{planned.results.path.parent}/; unknown where there is none.",
        style="dim",
    )


def _time(planned: Planned, cell: Cell, done: int) -> str:
    """Of the steps that are left."""
    per_step = seconds_per_step(cell.config, planned.results.path.parent)
    training = cell.config.training
    if per_step is None or training is None:
        return "unknown"
    return f"{per_step * max(0, training.train.steps - done):.0f} s"


def run(console: Console, planned: Planned, jobs: int | None, way: launch.Way, report: bool) -> int:
    """Run what is left. Returns the exit code: 0, 1 if a cell is not done, 130 if interrupted."""
    done = len(planned.cells) - len(planned.tasks)
    if not planned.tasks:
        console.print(f"all {done} cells in {planned.results.path} are done: nothing to run")
        return 0
    _record(planned)
    ready, busy = launch.prepare(planned.tasks, planned.force)
    if jobs is None:
        jobs = default_jobs(planned.experiment.request.threads * way.processes)
    at_once = min(jobs, len(ready))
    kept = f", {done} done before" if done else ""
    console.print(f"{len(ready)} cells, {at_once} at a time{kept}; results in {planned.results.path}")
    with watcher(console, len(ready)) as progress:
        outcomes, interrupted = launch.run(ready, jobs, lambda *_: way, progress, command_line())
    return _conclude(console, planned, [*busy, *outcomes], interrupted, report)


def _record(planned: Planned) -> None:
    """experiment.yaml: what was asked for."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "command": command_line(),
        "request": planned.experiment.request.model_dump(mode="json", exclude={"settings"}),
        "settings": [{"from": origin, "set": tree} for origin, tree, _ in planned.experiment.layers],
        "cells": [cell.id for cell in planned.cells],
    }
    write_atomically(planned.results.path / "experiment.yaml", dump_yaml(content))


def _conclude(
    console: Console, planned: Planned, outcomes: list[launch.Outcome], interrupted: bool, report: bool
) -> int:
    bad = [outcome for outcome in outcomes if not outcome.ok]
    if interrupted:
        console.print(
            f"stopped. Continue where it stopped with:\n  {command_line()}", soft_wrap=True, highlight=False
        )
        return INTERRUPTED
    if report and any(planned.results.cell(cell.id).status().state is State.DONE for cell in planned.cells):
        from bench.analysis.report import write_report

        write_report(planned.results.path, console)
    for outcome in bad:
        status = outcome.status
        console.print(
            f"{outcome.task.id}: {status.state} at step {status.step}: {status.message}\n"
            f"  see {outcome.task.directory.path}; the same command tries it again from its last checkpoint",
            style="red",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    return 1 if bad else 0


def default_jobs(threads: int) -> int:
    """One cell per GPU machine, else as many as the cores carry."""
    import torch

    if torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // threads)


def command_line() -> str:
    """What the user typed, as one can type it again."""
    program = Path(sys.argv[0])
    start = ["python", "-m", "bench"] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *sys.argv[1:]])
