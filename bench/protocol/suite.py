"""A suite: the whole protocol for some methods, workload by workload: its tuning, then its final runs.

A final run is a method with a seed. Seed n takes what study n mod studies chose, so that the luck of tuning
is part of how runs differ. A study whose trials all missed has no settings to give: its runs are misses and
are not trained. Trials and final runs are cells of two results directories, OUT/WORKLOAD/tuning and
OUT/WORKLOAD/final. All that is planned here follows from them, so the same command goes on wherever it was
stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from bench.base import registry
from bench.base.errors import BenchError
from bench.base.layers import Tree, shipped
from bench.experiment.combinations import Combination
from bench.experiment.overrides import Override
from bench.experiment.request import Experiment
from bench.experiment.resolve import resolve
from bench.protocol import tune
from bench.protocol.endings import check_failures, failed, has_ended
from bench.protocol.reading import called
from bench.protocol.tune import Tuning
from bench.protocol.workload import Workload, direction, workload
from bench.report.groups import NULL
from bench.report.load import BASE
from bench.run.store import CellDir, ResultsDir, WorkState

RECORD = "record"  # folder of the tables, beside those of workloads


class Effort(NamedTuple):
    """The same for every method: trials of a study, studies, and final seeds, each 1 or more."""

    trials: int
    studies: int
    seeds: int


class RunState(StrEnum):
    """How far a final run is. failed: a miss in training; missed: its study chose nothing."""

    DONE = "done"
    FAILED = "failed"
    MISSED = "missed"
    LEFT = "left"


@dataclass(frozen=True)
class Run:
    """A method with a final seed, or the base model (study and seed: None).

    settings: what the study chose, as `--set METHOD.…` says it; combination and cell: what is to be run. All
    three are None while trials of the study are left, and if they all missed.
    """

    method: str
    study: int | None
    seed: int | None
    missed: bool = False
    settings: Tree | None = None
    combination: Combination | None = None
    cell: str | None = None


@dataclass(frozen=True)
class Part:
    """One workload of a suite: its tuning, and where its final runs are.

    origin: its file. methods: that take part; sits_out: that cannot. everything: the base model and all
    methods as they ship, to check what every final run needs. base: the base model's cell.
    """

    name: str
    origin: str
    workload: Workload
    methods: tuple[str, ...]
    sits_out: tuple[str, ...]
    tuning: Tuning
    everything: Experiment
    base: str

    @property
    def results(self) -> ResultsDir:
        """Of the final runs."""
        return ResultsDir(self.everything.out)


@dataclass(frozen=True)
class Suite:
    """A checked suite. fetch: whether files that are not on this machine are fetched, so that it can run."""

    methods: tuple[str, ...]
    effort: Effort
    out: Path
    parts: tuple[Part, ...]
    fetch: bool


def plan(
    methods: Sequence[str], workloads: Sequence[str] | None, effort: Effort, out: Path, fetch: bool = True
) -> Suite:
    """A suite of methods, and the null row, on workloads (None: all that ship). Raises BenchError."""
    if effort.studies > effort.seeds:
        raise BenchError(
            f"--studies {effort.studies}: with --runs {effort.seeds} no run takes the settings of study "
            f"{effort.seeds}: give a seed for every study"
        )
    chosen = tuple(dict.fromkeys([*methods, NULL]))
    for method in chosen:
        if not registry.load("method", method).trains:
            raise BenchError(f"method '{method}' trains nothing: there is no budget that it could be held to")
    files = list(dict.fromkeys(shipped("workloads") if workloads is None else workloads))
    names = [Path(file).stem for file in files]
    for name in names:
        if name == RECORD or names.count(name) > 1:
            taken = "the folder of the tables has this name" if name == RECORD else "two have this name"
            raise BenchError(f"--workloads: '{name}': {taken}: rename the file")
    parts = [_part(file, chosen, effort, out / name, fetch) for file, name in zip(files, names, strict=True)]
    return Suite(chosen, effort, out, tuple(parts), fetch)


def _part(file: str, methods: Sequence[str], effort: Effort, out: Path, fetch: bool) -> Part:
    origin, load = workload(file)
    taking = tuple(method for method in methods if load.takes(method))
    tuning = tune.plan(file, taking, effort.trials, effort.studies, out / "tuning", fetch)
    combination = load.combination(origin, False, taking, 0, Override(origin, {}))
    base, *_ = resolve(combination, fetch)
    return Part(
        name=out.name,
        origin=origin,
        workload=load,
        methods=taking,
        sits_out=tuple(method for method in methods if method not in taking),
        tuning=tuning,
        everything=Experiment(
            load.request(taking),
            [combination],
            load.overrides(origin, False),
            out / "final",
            target=load.target if direction(load.reward) > 0 else None,  # the report counts from below
        ),
        base=base.id,
    )


def runs(suite: Suite, part: Part) -> list[Run]:
    """All final runs of a workload: the base model, then method by method, seed by seed."""
    choices = tune.choices(part.tuning)
    (everything,) = part.everything.combinations
    found = [Run(BASE, None, None, combination=replace(everything, methods=()), cell=part.base)]
    for method in part.methods:
        for seed in range(suite.effort.seeds):
            study = seed % suite.effort.studies
            if (method, study) not in choices:
                found.append(Run(method, study, seed))
            elif (line := choices[method, study]) is None:
                found.append(Run(method, study, seed, missed=True))
            else:
                found.append(_run(suite, part, Run(method, study, seed, settings=line["settings"])))
    return found


def _run(suite: Suite, part: Part, run: Run) -> Run:
    """The run with what is to be run."""
    assert run.seed is not None  # that of the base model is planned with its workload
    drawn = Override(f"study {run.study}", {run.method: run.settings} if run.settings else {})
    combination = part.workload.combination(part.origin, False, (run.method,), run.seed, drawn)
    return replace(run, combination=combination, cell=resolve(combination, suite.fetch)[-1].id)


def state(part: Part, run: Run) -> RunState:
    """How far a final run is."""
    if run.missed:
        return RunState.MISSED
    status = None if run.cell is None else part.results.cell(run.cell).status()
    if status is None or not has_ended(status):
        return RunState.LEFT
    return RunState.DONE if status.state is WorkState.DONE else RunState.FAILED


def hopeless(part: Part, run: Run) -> bool:
    """Whether a final run failed in a way that has to be mended first."""
    return run.cell is not None and failed(part.results.cell(run.cell).status())


def check(suite: Suite) -> None:
    """Raise BenchError for trials and final runs that failed and are no misses."""
    found = list[tuple[str, CellDir]]()
    for part in suite.parts:
        found += [(f"{part.name}: {name}", cell) for name, cell in tune.named(part.tuning)]
        for run in runs(suite, part):
            if run.cell is not None:
                found.append((f"{part.name}: {called(run.method, run.seed)}", part.results.cell(run.cell)))
    check_failures(found)


def final(part: Part, chosen: Sequence[Run]) -> Experiment:
    """Those of the runs whose settings are known, as an experiment; a seed of all methods before the next."""
    ordered = sorted(chosen, key=lambda run: -1 if run.seed is None else run.seed)
    combinations = [run.combination for run in ordered if run.combination is not None]
    return replace(part.everything, combinations=combinations)
