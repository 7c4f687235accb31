"""Tuning with equal effort: the same number of trials for every method, drawn from its own search space.

A trial is an ordinary cell with the workload's budget, on seeds and held-out prompts that no comparison
reports. So tuning is resumed, parallel and sent to SLURM like any run. A study is so many trials of one seed;
its choice is the trial with the best held-out reward. A trial that diverges is a miss (`endings`). A method
without a search space has a seed of its own in every trial instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.base.errors import BenchError
from bench.base.files import read_rows, write_atomically
from bench.base.layers import Tree, dump_yaml, read_yaml
from bench.experiment.combinations import Combination
from bench.experiment.overrides import Override
from bench.experiment.request import Experiment
from bench.experiment.resolve import resolve
from bench.experiment.search import FIRST_SEED, draws, space
from bench.experiment.settings import CellConfig
from bench.protocol.endings import check_failures, failed, has_ended
from bench.protocol.workload import Workload, direction, workload
from bench.run.store import CellDir, ResultsDir, WorkState

RECORD, CHOSEN = "trials.csv", "tuned.yaml"
IN_RECORD = "chosen.yaml"  # what CHOSEN is called in the record of a suite
LEFT = "left"  # state of a trial that failed, and has to run again
TUNED_ON = ("model", "reward", "prompts", "budget")  # of the workload, in CHOSEN


@dataclass(frozen=True)
class Trial:
    """One draw of a method's settings. settings: as `--set METHOD.…` says them."""

    method: str
    study: int
    number: int
    seed: int
    settings: Tree
    combination: Combination
    cell: str


@dataclass(frozen=True)
class Tuning:
    """All trials of a tuning, in the order of methods, studies and numbers, and the runs that they are.

    base: the base model's cell.
    """

    name: str
    workload: Workload
    trials: tuple[Trial, ...]
    base: str
    experiment: Experiment

    @property
    def results(self) -> ResultsDir:
        """Of the trials."""
        return ResultsDir(self.experiment.out)


def plan(
    name: str, methods: Sequence[str], trials: int, studies: int, out: Path | None, fetch: bool = True
) -> Tuning:
    """The trials of methods on a workload. Raises BenchError for what cannot take part.

    fetch: get what is not on this machine; without it, the cells of trials that need it have no final name.
    """
    origin, load = workload(name)
    for method in methods:
        if not load.takes(method):
            raise BenchError(
                f"method '{method}' needs the gradient of the reward, and {load.reward} has none"
            )
    found = [
        _trial(load, origin, method, study, number, settings, fetch)
        for method in methods
        for study in range(studies)
        for number, settings in enumerate(draws(method, trials, study))
    ]
    place = out or Path("results") / f"tune-{Path(name).stem}"
    runs = list({trial.cell: trial.combination for trial in found}.values())
    experiment = Experiment(load.request(methods), runs, load.overrides(origin, True), place)
    (base,) = resolve(load.combination(origin, True, (), FIRST_SEED, Override(origin, {})), fetch)
    return Tuning(name, load, tuple(found), base.id, experiment)


def _trial(
    load: Workload, origin: str, method: str, study: int, number: int, settings: Tree, fetch: bool
) -> Trial:
    seed = FIRST_SEED + study if space(method) else FIRST_SEED + 100 * (number + 1) + study
    drawn = Override(f"trial {number} of study {study}", {method: settings} if settings else {})
    combination = load.combination(origin, True, (method,), seed, drawn)
    cell = resolve(combination, fetch)[-1].id
    return Trial(method, study, number, seed, settings, combination, cell)


def record(tuning: Tuning) -> list[Tree]:
    """A line per trial: its settings, how it ended, and its held-out reward (None: none, or a miss)."""
    return [
        {
            "method": trial.method,
            "study": trial.study,
            "trial": trial.number,
            "seed": trial.seed,
            "settings": trial.settings,
            "cell": trial.cell,
            **_ended(tuning.results.cell(trial.cell), tuning.workload.reward),
        }
        for trial in tuning.trials
    ]


def _ended(cell: CellDir, reward: str) -> Tree:
    """State and held-out reward of a trial, or of the base model; no reward before it is done.

    Only misses are `failed`.
    """
    status = cell.status()
    left = status.state is WorkState.FAILED and not has_ended(status)
    state = LEFT if left else status.state
    rows = read_rows(cell.evaluations) if state is WorkState.DONE else []
    last = max((row["step"] for row in rows), default=None)
    scores = [row["score"] for row in rows if row["step"] == last and row["reward"] == reward]
    return {"state": str(state), "score": sum(scores) / len(scores) if scores else None}


def waiting(tuning: Tuning) -> tuple[Trial, ...]:
    """The trials that have not ended yet."""
    return tuple(trial for trial in tuning.trials if not has_ended(tuning.results.cell(trial.cell).status()))


def named(tuning: Tuning) -> list[tuple[str, CellDir]]:
    """What messages call the trials, and where they are."""
    return [
        (f"{one.method}, study {one.study}, trial {one.number}", tuning.results.cell(one.cell))
        for one in tuning.trials
    ]


def unfinished(tuning: Tuning) -> Experiment:
    """The trials that have not ended, as an experiment of their own. What failed is not tried again in it,
    whether it is a miss or something that is to be mended first."""
    left = [one for one in waiting(tuning) if not failed(tuning.results.cell(one.cell).status())]
    runs = {trial.cell: trial.combination for trial in left}
    return replace(tuning.experiment, combinations=list(runs.values()))


def choices(tuning: Tuning) -> dict[tuple[str, int], Tree | None]:
    """(Method, study) → the line of its best trial, None if all missed; studies with trials left are not in
    it."""
    open_studies = {(trial.method, trial.study) for trial in waiting(tuning)}
    lines: dict[tuple[str, int], list[Tree]] = {}
    for line in record(tuning):
        lines.setdefault((line["method"], line["study"]), []).append(line)
    return {
        study: next(iter(_best(trials, tuning.workload.reward)), None)
        for study, trials in lines.items()
        if study not in open_studies
    }


def trials_table(tuning: Tuning) -> str:
    """trials.csv: all trials, as far as they are."""
    return pd.DataFrame(record(tuning)).to_csv(index=False, lineterminator="\n")


def chosen_tree(tuning: Tuning) -> Tree:
    """tuned.yaml: what the studies that have ended chose; a study of misses alone has no line.

    base: the base model's score on the same prompts; None before it was evaluated.
    """
    methods: dict[str, list[Tree]] = {trial.method: [] for trial in tuning.trials}
    for (method, _), line in choices(tuning).items():
        methods[method] += [] if line is None else [line]
    load = tuning.workload.model_dump(mode="json", include=set(TUNED_ON))
    base = _ended(tuning.results.cell(tuning.base), tuning.workload.reward)["score"]
    facts = {"workload": tuning.name, **{key: load[key] for key in TUNED_ON}, "base": base}
    return {**facts, "methods": methods}


def _best(lines: Sequence[Tree], reward: str) -> list[Tree]:
    """The line with the best score, the first of equals; none if there are misses alone."""
    hits = [line for line in lines if line["score"] is not None]
    return [max(hits, key=lambda line: direction(reward) * line["score"])] if hits else []


def write(tuning: Tuning) -> dict[str, list[Tree]]:
    """Write trials.csv, all trials, and tuned.yaml, the choices; returns these, by method.

    Raises BenchError while trials are left, or if one failed and is no miss.
    """
    check_failures(named(tuning))
    if left := len(waiting(tuning)):
        raise BenchError(f"{left} of {len(tuning.trials)} trials are left: the same command goes on")
    out, chosen = tuning.experiment.out, chosen_tree(tuning)
    write_atomically(out / RECORD, trials_table(tuning))
    write_atomically(out / CHOSEN, dump_yaml(chosen))
    return chosen["methods"]


def tuned(directory: Path, methods: Sequence[str]) -> Override:
    """What `--tuned DIRECTORY` says: each method's settings from its best trial. Raises BenchError.

    directory: of a tuning, or of a workload in a record.
    """
    path = _chosen_in(directory)
    content = read_yaml(path)
    choices = {method: content["methods"].get(method, ()) for method in methods}
    absent = [method for method in methods if not choices[method]]
    if absent:
        raise BenchError(f"--tuned {directory}: no settings of {absent[0]} were chosen there")
    best = {method: _best(lines, content["reward"])[0] for method, lines in choices.items()}
    return Override(str(path), {m: line["settings"] for m, line in best.items() if line["settings"]})


def tuned_otherwise(directory: Path, cells: Sequence[CellConfig]) -> str | None:
    """What differs between the workload of a tuning and the cells that take its settings, in one line.

    None if nothing does. Files from before there was more in them tell of the reward alone.
    """
    content = read_yaml(_chosen_in(directory))
    trained = [(cell, cell.training) for cell in cells if cell.training is not None]
    here: dict[str, list[Any]] = {
        "model": [cell.model.name for cell, _ in trained],
        "reward": [training.reward.name for _, training in trained],
        "prompts": [cell.prompts for cell, _ in trained],
        "budget": [training.train.budget for _, training in trained],
    }
    differ = [key for key in TUNED_ON if key in content and set(here[key]) - {content[key]}]
    if not differ:
        return None
    there = ", ".join(f"{key} {content[key]}" for key in differ)
    own = ", ".join(f"{key} {_listed(here[key])}" for key in differ)
    return (
        f"--tuned {directory}: tuned with {there}, and this run has {own}: other settings may suit it better"
    )


def _chosen_in(directory: Path) -> Path:
    files = [path for name in (CHOSEN, IN_RECORD) if (path := directory / name).exists()]
    if not files:
        raise BenchError(
            f"--tuned {directory}: there is no {CHOSEN}, which python -m bench tune writes, and no "
            f"{IN_RECORD} of a record"
        )
    return files[0]


def _listed(values: Sequence[Any]) -> str:
    return " and ".join(dict.fromkeys("none" if value is None else str(value) for value in values))
