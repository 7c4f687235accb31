"""`bench.run`, and what it and the command have in common."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.api import words
from bench.api.words import Names, Seeds, Settings
from bench.base.console import caution, plain
from bench.base.errors import BenchError
from bench.experiment.request import Experiment, Options, build
from bench.run.experiment import Ended, PlannedRun

if TYPE_CHECKING:
    from bench.api.results import Results


def run(
    methods: Names | None = None,
    model: Names | None = None,
    reward: Names | None = None,
    prompts: Names | None = None,
    seeds: Seeds | None = None,
    steps: int | None = None,
    budget: int | str | None = None,
    config: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    out: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    processes: int = 1,
    timeout_per_cell: float | None = None,
    dry_run: bool = False,
    weights: str | None = None,
    dcot: bool | None = None,
    tuned: str | os.PathLike[str] | None = None,
    report: bool = True,
    force: bool = False,
    in_process: bool = False,
    slurm: str | None = None,
    only_failed: bool = False,
    track: Names | None = None,
    *,
    check: bool = True,
) -> Results:
    """Fine-tune a model by several methods and compare them, as `bench run`. Without arguments: the demo.

    methods, model, reward, prompts: names, in a list or a text with commas. seeds: numbers. steps: optimizer
    steps of every method; budget: instead of them, forward equivalents or training time ("10m"). config: an
    experiment file or the name of a shipped one. settings: {"rlr.h": 3}, {"rlr": {"h": 3}} or ["rlr.h=3"].
    out: results directory, by default results/NAME below the working directory. jobs: cells at a time.
    threads: CPU threads of each process. device: "cpu", "cuda" or "auto". processes: data-parallel, of each
    cell. timeout_per_cell: in seconds. weights: "random", "path:DIRECTORY" or "hub:ORG/NAME". dcot: prompts
    by step. tuned: a directory that `bench tune` wrote. report: write tables and figures. force: start again.
    in_process: one cell after the other in this process. dry_run: check everything and show the cells, which
    are the result's. slurm: send the cells to SLURM by this profile, and return at once. only_failed: those
    that failed before, and no others. track: send every cell to "tensorboard", "wandb" or "mlflow" while it
    runs.

    Cells that are done are not run again, and unfinished ones continue. Returns everything that the results
    directory then holds. Raises BenchError for a mistake, before anything runs; CellsFailed after all cells
    have ended if one of them is not done, unless `check` is false; KeyboardInterrupt after an interrupt, when
    every cell has written a checkpoint.
    """
    said = words.call(run, locals())
    from bench.api import results

    asked = Options(
        methods=words.names(methods), model=words.names(model), reward=words.names(reward),
        prompts=words.names(prompts), seeds=words.names(seeds), steps=steps,
        budget=None if budget is None else str(budget), config=None if config is None else str(config),
        settings=words.settings(settings), weights=weights, dcot=dcot, threads=threads,
        out=None if out is None else Path(out),
    )  # fmt: skip
    how = HowToRunAll(
        None if tuned is None else Path(tuned), jobs, processes, timeout_per_cell, dry_run, report, force,
        in_process, slurm, only_failed,
    )  # fmt: skip
    with words.asked_by(said, device, words.names(track)):
        ran = run_all(words.console(), asked, how, Console(quiet=True))
    if ran.planned is not None and dry_run:
        return results.of_plan(ran.planned)
    found = results.load_if_there(ran.out)
    return results.checked(found, ran.ended, check)


@dataclass(frozen=True)
class HowToRunAll:
    """How cells are run: what `bench run` takes besides what the cells are."""

    tuned: Path | None = None
    jobs: int | None = None
    processes: int = 1
    timeout_per_cell: float | None = None
    dry_run: bool = False
    report: bool = True
    force: bool = False
    in_process: bool = False
    slurm: str | None = None
    only_failed: bool = False


@dataclass(frozen=True)
class Ran:
    """What came of it. planned: None if it was sent to SLURM."""

    out: Path
    ended: Ended
    planned: PlannedRun | None = None


def run_all(console: Console, asked: Options, how: HowToRunAll, summary: Console) -> Ran:
    """Run an experiment here or send it to SLURM, and write its report. Raises BenchError.

    console: where progress goes. summary: where the report's tables go.
    """
    from bench.run import again, experiment
    from bench.run.process import HowToRun

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BenchError("start `run` itself only once: `--processes N` makes every cell data-parallel")
    what = _experiment(asked, how.tuned)
    if how.slurm is not None:
        if how.only_failed:
            raise BenchError(
                f"--only-failed: on SLURM, `python -m bench retry {what.out}` sends failed cells"
            )
        from bench.run.slurm import sweep

        request = sweep.SweepRequest(how.slurm, (), how.jobs, False, how.dry_run, how.force, "--slurm")
        return Ran(what.out, Ended(sweep.submit(console, what, request)))
    if how.in_process and (how.processes > 1 or how.jobs is not None):
        raise BenchError("--in-process runs one cell at a time in one process: leave --jobs and --processes")
    if how.only_failed:
        whole = how.tuned is None and asked == Options(out=asked.out)
        planned = again.plan(what, whole, how.force, fetch=not how.dry_run, processes=how.processes)
    else:
        planned = experiment.plan(what, how.force, fetch=not how.dry_run, processes=how.processes)
    if how.dry_run and how.only_failed:  # the others would not run
        left = {work.id for work in planned.todo}
        planned = replace(planned, cells=[cell for cell in planned.cells if cell.id in left])
    if how.dry_run:
        if how.only_failed and not planned.todo:
            plain(console, planned.nothing)
        else:
            experiment.show(console, planned)
        return Ran(what.out, Ended(0), planned)
    each = HowToRun(how.processes, how.timeout_per_cell)
    ended = experiment.run(console, planned, how.jobs, each, how.in_process)
    if how.report and ended.reportable:
        from bench.report.report import write_report

        write_report(planned.results.path, summary)
    return Ran(what.out, ended, planned)


def _experiment(asked: Options, tuned_in: Path | None) -> Experiment:
    """With what `tune` chose below what was typed; and a caution if that was for another one."""
    found = build(asked)
    if tuned_in is None:
        return found
    from bench.base import registry
    from bench.experiment.resolve import resolve_all
    from bench.protocol.tune import tuned, tuned_otherwise

    methods = {m for part in found.combinations for m in part.methods or registry.entries("method")}
    found = found.over(tuned(tuned_in, sorted(methods)))
    cells = resolve_all(found.combinations, fetch=False)
    if text := tuned_otherwise(tuned_in, [cell.config for cell in cells]):
        caution(text)
    return found
