"""A suite's record read back: a folder of small tables that is all a leaderboard needs.

    suite.yaml               what was run, in which search spaces, on which machine and versions
    WORKLOAD/trials.csv      all trials of tuning
    WORKLOAD/chosen.yaml     what each study chose
    WORKLOAD/runs.csv        a line per final run, and the base model
    WORKLOAD/curves.csv      mean over the held-out pictures at every evaluation of every run
    WORKLOAD/scores.csv      a line per prompt and reward, a column per run that is done: mean over the
                             prompt's pictures at the last evaluation

A run is a method with a seed. A suite that has not ended leaves tables that lack lines, or no tables.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
from pydantic import Field, ValidationError

from bench.base.errors import BenchError
from bench.base.layers import load_config, parse_yaml
from bench.base.strict import Strict
from bench.experiment.search import Law
from bench.experiment.settings import Budget
from bench.protocol.workload import Workload
from bench.report.load import BASE

SUITE, TRIALS, CHOSEN = "suite.yaml", "trials.csv", "chosen.yaml"
RUNS, CURVES, SCORES = "runs.csv", "curves.csv", "scores.csv"
DONE, ENDED = "done", ("done", "failed", "missed")  # states of trials and runs


class Suite(Strict):
    """suite.yaml."""

    format: Literal[1]
    methods: tuple[str, ...] = Field(min_length=1)
    trials: int = Field(ge=1, description="of every method in every study")
    studies: int = Field(ge=1)
    seeds: int = Field(ge=1, description="final runs of every method on every workload")
    workloads: dict[str, Workload]
    sits_out: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="workload → methods")
    environment: dict[str, Any]
    search: dict[str, dict[str, Law]] = Field(description="method → its search space")

    def takes_part(self, workload: str) -> tuple[str, ...]:
        """The methods that do not sit the workload out."""
        out = self.sits_out.get(workload, ())
        return tuple(method for method in self.methods if method not in out)


class Choice(Strict):
    """A trial as chosen.yaml has it. settings: as `--set METHOD.…` would say them, as a tree."""

    method: str
    study: int = Field(ge=0)
    trial: int = Field(ge=0)
    seed: int
    settings: dict[str, Any]
    cell: str
    state: str
    score: float | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.method}, study {self.study}, trial {self.trial}"


class Trial(Choice):
    """A line of trials.csv."""

    line: int


class OfRun(Strict):
    """What the lines of runs begin with. Without study and seed: the base model."""

    line: int
    method: str
    study: int | None = None
    seed: int | None = None


class Run(OfRun):
    """A line of runs.csv. forwards: forward equivalents; seconds: of training; memory: bytes."""

    state: str
    cell: str | None = None
    settings: dict[str, Any] | None = None
    steps: float | None = None
    samples: float | None = None
    forwards: float | None = None
    again: float | None = None
    seconds: float | None = None
    memory: float | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return called(self.method, self.seed)


class Point(OfRun):
    """A line of curves.csv: the mean over the held-out pictures of a run's evaluation."""

    step: float
    forwards: float | None = None
    seconds: float | None = None
    reward: str
    score: float


class Scores(Strict, extra="allow"):
    """A line of scores.csv. Its extra columns are those of runs (`column`), without the ones left empty."""

    __pydantic_extra__: dict[str, float] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]
    line: int
    prompt: str = ""  # the empty prompt is one, too
    reward: str

    @property
    def runs(self) -> dict[str, float]:
        """A run's column → its score."""
        return self.__pydantic_extra__


class Chosen(Strict):
    """chosen.yaml: of every method the choice of each study that has one.

    base: the base model's score on the prompts of tuning. Records from before there was more in it tell of
    the reward alone.
    """

    workload: str
    model: str | None = None
    reward: str
    prompts: str | None = None
    budget: Budget | None = None
    base: float | None = None
    methods: dict[str, tuple[Choice, ...]]


Line = TypeVar("Line", Trial, Run, Point, Scores)
Key = tuple[str, int | None, str]  # method, seed and reward; the base model's seed is None


def called(method: str, seed: int | None) -> str:
    """What messages call a run."""
    return "the base model" if method == BASE else f"{method}, seed {seed}"


def column(method: str, seed: int | None) -> str:
    """What a run's column of scores.csv is called."""
    return method if seed is None else f"{method} {seed}"


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of one workload; a file that is not there yet is an empty one, and chosen is None."""

    folder: Path
    trials: list[Trial]
    chosen: Chosen | None
    runs: list[Run]
    curves: list[Point]
    scores: list[Scores]

    @cached_property
    def _points(self) -> dict[Key, list[Point]]:
        found: dict[Key, list[Point]] = {}
        for line in sorted(self.curves, key=lambda point: point.step):
            found.setdefault((line.method, line.seed, line.reward), []).append(line)
        return found

    def by_prompt(self, method: str, seed: int | None, reward: str) -> pd.Series | None:
        """Scores of a run at its last evaluation, indexed by prompt; None if there are none."""
        name = column(method, seed)
        found = {line.prompt: line.runs[name] for line in self.scores_in(reward) if name in line.runs}
        return pd.Series(found, dtype=float).rename_axis("prompt").sort_index() if found else None

    def scores_in(self, reward: str) -> list[Scores]:
        """The lines of scores.csv for one reward."""
        return [line for line in self.scores if line.reward == reward]

    def curve(self, method: str, seed: int | None, reward: str) -> list[Point]:
        """The evaluations of a run, the first first."""
        key = (method, seed, reward)
        return self._points.get(key, [])

    def base(self, reward: str) -> float:
        """The base model's mean held-out score; nan if there is none."""
        found = self.by_prompt(BASE, None, reward)
        return math.nan if found is None else float(found.mean())

    def of(self, method: str) -> list[Run]:
        """The final runs of a method, by seed."""
        runs = [run for run in self.runs if run.method == method and run.seed is not None]
        return sorted(runs, key=lambda run: run.seed or 0)


@dataclass(frozen=True, eq=False)
class Record:
    """One suite's record. tables: by workload; none of a workload that was not begun."""

    folder: Path
    suite: Suite
    tables: dict[str, Tables]

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.name


def read_record(folder: Path) -> Record:
    """The record in a folder. Raises BenchError, a line per mistake, for files that cannot be read."""
    if not (folder / SUITE).exists():
        raise BenchError(f"{folder}: no {SUITE}: a record is the folder `record` that `bench suite` writes")
    suite = load_config(folder / SUITE, Suite)
    found, wrong = dict[str, Tables](), list[str]()
    for name in suite.workloads:
        try:
            if (folder / name).is_dir():
                found[name] = read_tables(folder / name)
        except BenchError as error:
            wrong.append(str(error))
    if wrong:
        raise BenchError("\n".join(wrong))
    return Record(folder, suite, found)


def read_tables(folder: Path) -> Tables:
    """The tables of one workload. Raises BenchError for files that cannot be read."""
    chosen = load_config(folder / CHOSEN, Chosen) if (folder / CHOSEN).exists() else None
    return Tables(
        folder,
        trials=_lines(folder / TRIALS, Trial),
        chosen=chosen,
        runs=_lines(folder / RUNS, Run),
        curves=_lines(folder / CURVES, Point),
        scores=_lines(folder / SCORES, Scores),
    )


def _lines(path: Path, model: type[Line]) -> list[Line]:
    """The lines of a table; none without a file. Columns that the model does not know are passed over."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = [(reader.line_num, row) for row in reader]
    there, wanted = list(reader.fieldnames or ()), [name for name in model.model_fields if name != "line"]
    absent = [f"no column {name}" for name in wanted if name not in there]
    twice = [f"column {name} is there {count} times" for name, count in Counter(there).items() if count > 1]
    if absent or twice:
        raise BenchError(f"{path}:1: {'; '.join(absent + twice)}: `bench suite` writes the record anew")
    if model is Scores:
        wanted = there
    return [_line(path, number, {name: row[name] for name in wanted}, model) for number, row in rows]


def _line(path: Path, number: int, row: Mapping[str, str | None], model: type[Line]) -> Line:
    where = f"{path}:{number}"
    content: dict[str, Any] = {name: text for name, text in row.items() if text}
    if "settings" in content:
        content["settings"] = parse_yaml(content["settings"], f"{where}: settings")
    try:
        return model.model_validate({**content, "line": number})
    except ValidationError as error:
        wrong = [(".".join(map(str, one["loc"])), one["msg"], one["input"]) for one in error.errors()]
        said = "; ".join(
            f"{key}: is missing" if key not in content else f"{key}: {message} (got {got!r})"
            for key, message, got in wrong
        )
        raise BenchError(f"{where}: {said}") from error
