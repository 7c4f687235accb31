"""A whole request: plan its cells, show them, run what is left, report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.base.console import note, plain
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.layers import dump_yaml
from bench.base.lazy import psutil
from bench.experiment import missing
from bench.experiment.checks import cautions
from bench.experiment.model_files import model_file
from bench.experiment.request import Experiment
from bench.experiment.resolve import Cell, resolve_all
from bench.experiment.settings import SCHEMA_VERSION, CellConfig
from bench.run import launch, preflight
from bench.run.forecast import Earlier
from bench.run.gpu_hours import GpuHours
from bench.run.gpus import Gpus, on_this_machine
from bench.run.process import COMMAND_VARIABLE, HowToRun, Outcome, sender_of
from bench.run.progress import tell_settings, watcher
from bench.run.spent import Limit
from bench.run.store import ResultsDir, WorkState
from bench.run.titles import titles
from bench.run.tracking import asked, beside
from bench.run.work import CellWork


@dataclass(frozen=True)
class Ended:
    """How a run ended. code: 0, 1 if something is not done, 130 after Ctrl-C, 143 after SIGTERM.

    reportable: whether there is something new to report. messages: what to say after that.
    """

    code: int
    reportable: bool = False
    messages: tuple[str, ...] = ()

    def tell(self, console: Console) -> int:
        """Print the messages, and return the exit code."""
        for message in self.messages:
            plain(console, message, None if self.code > 128 else "red")
        return self.code


@dataclass(frozen=True)
class PlannedRun:
    """A checked request: all its cells, and those that have to run.

    experiment: None for cells of a directory that run again with the settings that they have there. nothing:
    what to say where nothing has to run.
    """

    experiment: Experiment | None
    results: ResultsDir
    cells: list[Cell]
    todo: list[CellWork]
    force: bool
    nothing: str


def plan(
    experiment: Experiment,
    force: bool,
    fetch: bool = True,
    processes: int = 1,
    here: bool = True,
    only: Collection[str] | None = None,
) -> PlannedRun:
    """Check everything that can be checked before a run. Raises BenchError.

    fetch: get the weights and prompts that are not on this machine; without it their cells are planned all
    the same, and cannot run. processes: that share a cell. here: whether the cells run on this machine.
    only: ids of cells; others do not run. None: all.
    """
    asked.asked()  # refuses trackers that are not installed
    try:
        cells = resolve_all(experiment.combinations, fetch)
    except BenchError as error:
        raise missing.with_everything(experiment, error) if fetch else error from error
    results = ResultsDir(experiment.out)
    every = [
        CellWork(results.cell(cell.id), cell.config, title)
        for cell, title in zip(cells, titles([cell.config for cell in cells]), strict=True)
    ]
    wanted = [cell for cell in every if only is None or cell.id in only]
    todo = [cell for cell in wanted if force or not cell.finished()]
    check(results, cells, todo, processes, here)
    nothing = f"all {len(cells)} cells in {results.path} are done: nothing to run"
    return PlannedRun(experiment, results, cells, todo, force, nothing)


def check(
    results: ResultsDir, cells: Sequence[Cell], todo: Sequence[CellWork], processes: int, here: bool
) -> None:
    """Raise BenchError for what those of the cells that have to run would stop at; see `plan`."""
    if todo:
        preflight.check_processes((work.config for work in todo), processes)
        launch.check_disk(results, len(todo))
        left = {work.id for work in todo}
        preflight.check([cell for cell in cells if cell.id in left], call_rewards=here)


def show(console: Console, planned: PlannedRun) -> None:
    """The cells, what state they are in, and how long they will take as far as that was ever measured."""
    table = Table(title=f"{len(planned.cells)} cells in {planned.results.path}", title_justify="left")
    waiting, earlier = {work.id for work in planned.todo}, Earlier(planned.results.path.parent)
    gpu = GpuHours(earlier.seen, [cell for cell in planned.cells if cell.id in waiting])
    for header in ("cell", "state", "length", "batch", "time", *(f"{card} h" for card in gpu.cards)):
        table.add_column(header, overflow="fold", no_wrap=header != "cell")
    names = titles([cell.config for cell in planned.cells])
    for cell, title in zip(planned.cells, names, strict=True):
        directory, training = planned.results.cell(cell.id), cell.config.training
        status = directory.status()
        state = f"{status.state} at {status.step}" if status.step else str(status.state)
        shown = f"({title})" if cell.absent else cell.id
        if training is None:
            table.add_row(shown, state, "-", "-", "-", *gpu.of(cell))
            continue
        train = training.train
        batch = f"{train.prompts_per_step} × {train.samples_per_prompt}" if cell.config.trains else "-"
        table.add_row(
            shown,
            state,
            str(Limit(train)) if cell.config.trains else "-",
            batch,
            _time(earlier, cell, directory.metrics) if cell.id in waiting else "-",
            *gpu.of(cell),
        )
    if gpu.cards and len(planned.cells) > 1:
        table.add_section()
        table.add_row("together", "", "", "", "", *gpu.together())
    console.print(table)
    console.print(
        "Times are estimates of training alone, from the newest cell with the same method, model and batch "
        f"below {planned.results.path.parent}/; unknown where there is none." + gpu.words(),
        style="dim",
    )
    _show_stand_ins(console, planned)
    _show_cautions(console, (cell.config for cell in planned.cells))
    if planned.experiment is not None:
        missing.show(console, planned.experiment, planned.cells)


def _show_cautions(console: Console, configs: Iterable[CellConfig]) -> None:
    trained = ((c.training.method, c.model) for c in configs if c.training is not None)
    for text in cautions(trained):
        plain(console, text, "yellow")


def _show_stand_ins(console: Console, planned: PlannedRun) -> None:
    parts = [] if planned.experiment is None else planned.experiment.combinations
    for model in dict.fromkeys(part.model for part in parts):
        stood = {k: v for p in parts if p.model == model for k, v in p.stood_in.items()}
        if stood:
            names = {own: [n for n, o in stood.items() if o == own] for own in stood.values()}
            pairs = "; ".join(f"{own} for {', '.join(replaced)}" for own, replaced in names.items())
            console.print(f"On {model} its own stand in: {pairs}.", highlight=False)


def _time(earlier: Earlier, cell: Cell, so_far: Path) -> str:
    left = earlier.seconds_left(cell.config, so_far)
    return "unknown" if left is None else f"{left:.0f} s"


def run(
    console: Console, planned: PlannedRun, jobs: int | None, how: HowToRun, in_process: bool = False
) -> Ended:
    """Run what is left. in_process: one after the other in this process, instead of `jobs` at a time."""
    if not planned.todo:
        plain(console, planned.nothing)
        for text in _further(planned):
            plain(console, text, "yellow")
        if names := asked.asked():
            plain(
                console,
                f"what trackers do not have yet is sent by  {asked.later(planned.results.path, names)}",
            )
        return Ended(0)
    gpus = on_this_machine()
    models = [work.config.model.name for work in planned.todo]
    threads = max(work.threads for work in planned.todo)
    jobs = places(console, jobs, gpus, how.processes, threads, models)
    if planned.experiment is not None:
        record(planned.experiment, planned)
    ready, others = launch.prepare(planned.todo, planned.force)
    busy = [outcome for outcome in others if not outcome.ok]
    for outcome in busy:
        plain(console, f"{outcome.work.id} is left alone: {outcome.status.message}", "yellow")
    if not ready:
        return Ended(int(bool(busy)))
    at_once = 1 if in_process else min(jobs, len(ready))
    started = {work.id for work in planned.todo}
    others = [planned.results.cell(cell.id) for cell in planned.cells if cell.id not in started]
    done = sum(cell.status().state is WorkState.DONE for cell in others)
    kept = f", {done} done before" if done else ""
    note(console, f"{len(ready)} cells, {at_once} at a time{kept}; results in {planned.results.path}")
    tell_settings(ready)
    _show_stand_ins(console, planned)
    _show_cautions(console, (work.config for work in planned.todo))
    with watcher(console, len(ready)) as progress:
        if in_process:
            outcomes, interrupted = launch.run_here(ready, _in_this_process(how.timeout), progress)
        else:
            outcomes, interrupted = launch.run(ready, jobs, lambda *_: how, progress, command_line(), gpus)
    if interrupted:
        return Ended(interrupted, False, (f"stopped. Continue where it stopped with:\n  {command_line()}",))
    bad = [outcome for outcome in outcomes if not outcome.ok]
    return Ended(
        code=int(bool(bad or busy)),
        reportable=any(planned.results.cell(c.id).status().state is WorkState.DONE for c in planned.cells),
        messages=tuple(
            f"{one.work.id}: {one.status.state} at step {one.status.step}: {one.status.message}\n"
            f"  see {one.work.directory.path}; the same command tries it again from its last checkpoint"
            for one in bad
        ),
    )


def _further(planned: PlannedRun) -> list[str]:
    """Cells that were trained for more steps than are asked for now: their results are of those steps."""
    found: list[str] = []
    for cell in planned.cells:
        step, training = planned.results.cell(cell.id).status().step, cell.config.training
        if training is not None and training.train.steps is not None and step > training.train.steps:
            found.append(f"{cell.id} is done at step {step}, beyond the {training.train.steps} asked for")
    return found


def _in_this_process(timeout: float | None) -> Callable[[CellWork], Outcome]:
    """Trains a cell here. Imports torch, which the command line does without."""
    from bench.run.cell import run_cell

    def run_one(work: CellWork) -> Outcome:
        sender = sender_of(work, HowToRun(), os.environ, warm=False)
        try:
            run_cell(work.directory, timeout)
        finally:
            beside.wait([] if sender is None else [sender])
        return Outcome(work, work.directory.status())

    return run_one


def record(experiment: Experiment, planned: PlannedRun) -> None:
    """experiment.yaml: what was asked for."""
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "command": command_line(),
        "request": experiment.request.model_dump(mode="json", exclude={"settings"}),
        "settings": [{"from": origin, "set": tree} for origin, tree, _ in experiment.overrides],
        "cells": [cell.id for cell in planned.cells],
    }
    if experiment.target is not None:
        content["target"] = experiment.target
    write_atomically(planned.results.path / "experiment.yaml", dump_yaml(content))


def places(
    console: Console, jobs: int | None, gpus: Gpus | None, processes: int, threads: int, models: Iterable[str]
) -> int:
    """How many cells run at a time: as many as were asked for, but no two on one GPU.

    jobs: asked for; None: as many as the GPUs carry, or cores and main memory. processes: of one cell;
    threads: of each. models: names of those that run. Raises BenchError if one cell wants more GPUs than
    there are.
    """
    if gpus is None:
        return default_jobs(threads * processes, models) if jobs is None else jobs
    most = gpus.most(processes)
    if jobs is not None and jobs > most:
        each = f"{processes} for each cell: " if processes > 1 else ""
        told = f"{jobs} cells at a time were asked for, and there are {gpus.count} GPUs, {each}{most} run"
        plain(console, f"{told} and the others wait", "yellow")
    return most if jobs is None else min(jobs, most)


def default_jobs(threads: int, models: Iterable[str]) -> int:
    """As many cells at a time as cores and main memory carry.

    threads: of one cell, all its processes together. models: names of those that run.
    """
    memory = [model_file(name)[1].memory for name in set(models)]
    room = psutil.virtual_memory().available / 2**30
    fitting = [int(room / gib) for gib in memory if gib is not None]
    return max(1, min([cores() // threads, *fitting]))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command_line() -> str:
    """What the user typed, as one can type it again; of a call from Python (`bench.api`), the call."""
    if COMMAND_VARIABLE in os.environ:
        return os.environ[COMMAND_VARIABLE]
    program = Path(sys.argv[0])
    start = ["python", "-m", "bench"] if program.name == "__main__.py" else [program.name]
    return shlex.join([*start, *sys.argv[1:]])
