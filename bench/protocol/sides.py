"""What `bench compare` holds against each other, read into one form: a results directory, a suite's record,
or one workload's folder of a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.base.errors import BenchError
from bench.experiment.identity import base_id
from bench.protocol.reading import DONE, ENDED, RUNS, SUITE, Chosen, Tables, read_record, read_tables
from bench.protocol.workload import Workload
from bench.report.groups import Contest, Group, contests, pictures_key, setting_of
from bench.report.load import BASE, UNREADABLE, load
from bench.report.origins import UNKNOWN, dates, machines
from bench.report.stats import Runs, by_picture, by_prompt
from bench.report.summary import cost
from bench.run.store import WorkState


class Costs(NamedTuple):
    """Means over finished runs; nan: not recorded. seconds: of training. memory: peak bytes."""

    seconds: float
    forward_equivalents: float
    memory: float


@dataclass(frozen=True, eq=False)
class Entry:
    """A method with one setting on one side.

    settings: None in a record, whose runs have what their studies chose. runs: scores of the finished ones in
    the trained reward, by seed. failed, unfinished: how many other runs there are.
    """

    label: str
    method: str
    settings: Mapping[str, Any] | None
    runs: Runs
    failed: int
    unfinished: int
    costs: Costs

    @property
    def count(self) -> int:
        """All its runs."""
        return len(self.runs) + self.failed + self.unfinished

    @property
    def mean(self) -> float:
        """Mean score of the finished runs, every prompt counting alike; nan without any."""
        return _mean(float(by_prompt(run).mean()) for run in self.runs.values())

    @property
    def unfinished_text(self) -> str:
        """How many runs did not get to their end: `1 of 4 runs failed`; empty if all did."""
        parts = [(self.failed, "failed"), (self.unfinished, "not finished")]
        return ", ".join(f"{n} of {self.count} runs {what}" for n, what in parts if n)


@dataclass(frozen=True, eq=False)
class Field:
    """The methods that one side has on a model, trained on one reward with one prompt set.

    base_cell: the id that the base model's cell has or would have (`base_id`). pictures: what pictures depend
    on (`pictures_key`), None where a record does not tell. setting: in words for messages. base: the base
    model's mean held-out score; nan if it was not evaluated. by_prompt: whether scores are means of prompts.
    """

    title: str
    model: str
    reward: str
    prompts: str
    base_cell: str | None
    pictures: str | None
    setting: Mapping[str, Any]
    base: float
    by_prompt: bool
    entries: tuple[Entry, ...]

    def draws_as(self, other: Field) -> bool:
        """Whether both sides draw the same pictures before training, and score them in the same way."""
        known = self.pictures is not None and self.pictures == other.pictures
        return known or (self.base_cell is not None and self.base_cell == other.base_cell)


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two that are compared.

    kind: what it is. machine, dates: where and when it was run. notes: on what could not be read.
    """

    path: Path
    kind: str
    machine: str
    dates: str
    fields: tuple[Field, ...]
    notes: tuple[str, ...] = ()


def read_side(path: Path) -> Side:
    """Read whatever lies there. Raises BenchError where nothing can be compared."""
    if (path / SUITE).exists():
        record = read_record(path)
        fields = [_of_tables(name, record.suite.workloads[name], t) for name, t in record.tables.items()]
        return _checked(Side(path, "record", _processor(record.suite.environment), UNKNOWN, tuple(fields)))
    if (path / RUNS).exists():
        return _checked(_one_workload(path))
    results = load(path)
    kept = tuple(_of_contest(contest) for contest in contests(results) if contest.groups)
    cells = [cell for cell in results.cells if cell.config]
    unread = [
        f"{cell.id} cannot be read: {cell.problem}" for cell in results.cells if cell.status == UNREADABLE
    ]
    notes = (*results.notes, *unread)
    return _checked(Side(path, "results directory", machines(cells), dates(cells), kept, notes))


def _checked(side: Side) -> Side:
    if not any(field.entries for field in side.fields):
        raise BenchError(f"{side.path}: no method was ever trained here: there is nothing to compare")
    return side


def _of_contest(contest: Contest) -> Field:
    some = next(cell for group in contest.groups for cell in [*group.cells, *group.left_out])
    scores = contest.base_scores(contest.reward)
    return Field(
        title=contest.title,
        model=contest.model,
        reward=contest.reward,
        prompts=str(some.config["prompts"]),
        base_cell=base_id(some.config),
        pictures=pictures_key(some),
        setting=contest.setting | {"digests": some.config["digests"]},
        base=float("nan") if scores is None else float(by_prompt(scores).mean()),
        by_prompt=False,
        entries=tuple(_of_group(group, contest.reward) for group in contest.groups),
    )


def _of_group(group: Group, reward: str) -> Entry:
    """Only runs that are done count: an evaluation on the way is no result of the budget."""
    everyone = [*group.cells, *group.left_out]
    done = [cell for cell in everyone if cell.done and not cell.evals.empty]
    failed = sum(cell.status == WorkState.FAILED for cell in everyone)
    found, runs = (
        cost(done),
        {cell.seed: by_picture(cell.scored(reward, cell.eval_steps[-1])) for cell in done},
    )
    return Entry(
        label=group.label,
        method=group.method,
        settings=setting_of(everyone[0]),
        runs=runs,
        failed=failed,
        unfinished=len(everyone) - len(done) - failed,
        costs=Costs(found.seconds, found.forward_equivalents, found.memory),
    )


def _one_workload(folder: Path) -> Side:
    """A workload's folder: of a whole record, or by itself."""
    if (folder.parent / SUITE).exists():
        suite = read_record(folder.parent).suite
        if folder.name in suite.workloads:
            field = _of_tables(folder.name, suite.workloads[folder.name], read_tables(folder))
            return Side(folder, "workload of a record", _processor(suite.environment), UNKNOWN, (field,))
    tables = read_tables(folder)
    if tables.chosen is None or tables.chosen.model is None or tables.chosen.prompts is None:
        raise BenchError(
            f"{folder}: a workload's folder without the record's suite.yaml above it, whose chosen.yaml does "
            "not say what was run: name the whole record"
        )
    return Side(
        folder, "workload of a record", UNKNOWN, UNKNOWN, (_of_tables(folder.name, tables.chosen, tables),)
    )


def _processor(environment: Mapping[str, Any]) -> str:
    found = environment.get("processor") or environment.get("device") or UNKNOWN
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def _of_tables(name: str, of: Workload | Chosen, tables: Tables) -> Field:
    methods = dict.fromkeys(run.method for run in tables.runs if run.method != BASE)
    base = next((run for run in tables.runs if run.method == BASE), None)
    return Field(
        title=name,
        model=str(of.model),
        reward=of.reward,
        prompts=str(of.prompts),
        base_cell=None if base is None else base.cell,
        pictures=None,
        setting={},
        base=tables.base(of.reward),
        by_prompt=True,
        entries=tuple(_of_runs(tables, method, of.reward) for method in methods),
    )


def _of_runs(tables: Tables, method: str, reward: str) -> Entry:
    runs = tables.of(method)
    scores = {run.seed: tables.by_prompt(method, run.seed, reward) for run in runs if run.state == DONE}
    found: Runs = {
        seed: by_picture(own.rename("score").reset_index().assign(image=0))
        for seed, own in scores.items()
        if own is not None
    }
    done = [run for run in runs if run.seed in found]
    failed = sum(run.state in ENDED and run.state != DONE for run in runs)
    costs = Costs(*(_mean(getattr(run, name) for run in done) for name in ("seconds", "forwards", "memory")))
    return Entry(method, method, None, found, failed, len(runs) - len(found) - failed, costs)


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def of_prompts(runs: Runs) -> Runs:
    """Runs with the mean of every prompt as its only picture, as records have them."""
    return {seed: by_prompt(scores) for seed, scores in runs.items()}


def labels(fields: Sequence[Field]) -> list[str]:
    """All methods of some fields, as they are called there."""
    return list(dict.fromkeys(entry.label for field in fields for entry in field.entries))
