"""Reading a results directory into frames. Takes what a run leaves behind half way; says what it left out.

docs/results.md documents the files. Nothing is written here, and nothing outside the directory is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bench.base.errors import REPAIR, BenchError, Damaged
from bench.base.files import Record, read_json, read_rows
from bench.base.filmstrip import broken_picture
from bench.base.layers import read_yaml
from bench.run import features, twins
from bench.run.store import CellDir, Status, WorkDir, WorkState

BASE = "base"  # what the cell of the untuned model is called
UNREADABLE = "unreadable"
METRICS = [
    "step",
    "samples",
    "reward_mean",
    "reward_std",
    "grad_norm",
    "seconds",
    "nfe_forward",
    "nfe_backward",
    "nfe_again",
    "memory",
    "terms",
]
INFERENCE = ["step", "prompt", "image", "forward", "backward", "seconds", "memory"]
EVALS = ["step", "prompt", "image", "reward", "score"]


@dataclass(frozen=True)
class Pictures:
    """What was drawn at an evaluation: the files that can be shown, by the number of their prompt."""

    step: int
    files: dict[int, Path]


@dataclass(frozen=True, eq=False)
class CellResults:
    """One run of one method with one seed.

    status: what status.json says, or `unreadable`. step: optimizer steps taken. problem: why it is not done,
    in one line, if known. config, env: empty if not there. metrics, evals, inference: with the columns above
    at least, possibly without rows. pictures: of the last evaluation. features: files of pictures' features
    by the step of their evaluation, those that can be read. updated: when its status was written last (UTC),
    as in status.json.
    """

    id: str
    path: Path
    status: str
    step: int
    problem: str
    config: dict[str, Any]
    env: dict[str, Any]
    metrics: pd.DataFrame
    evals: pd.DataFrame
    inference: pd.DataFrame = field(default_factory=lambda: _frame([], INFERENCE))
    pictures: Pictures = field(default_factory=lambda: Pictures(0, {}))
    features: dict[int, Path] = field(default_factory=dict)
    updated: str = ""

    @property
    def done(self) -> bool:
        """Whether it ran to its end."""
        return self.status == WorkState.DONE

    @property
    def training(self) -> dict[str, Any]:
        """The part of the config that a trained cell has and the base model's has not."""
        return (self.config["training"] or {}) if self.config else {}

    @property
    def method(self) -> str:
        """The registry name of its method, or `base`."""
        return self.training["method"]["name"] if self.training else BASE

    @property
    def seed(self) -> int | None:
        """Of its training; None for the base model."""
        return self.training["seed"] if self.training else None

    @property
    def eval_steps(self) -> list[int]:
        """Steps at which it was evaluated, in order."""
        return sorted({int(step) for step in self.evals["step"]})

    def pictures_at(self, step: int) -> pd.MultiIndex:
        """(prompt, image) of every picture of an evaluation, in the order in which they were drawn."""
        return _pictures_at(self.evals, step)

    def scored(self, reward: str, step: int) -> pd.DataFrame:
        """The lines of one reward at one evaluation."""
        chosen = (self.evals["reward"] == reward) & (self.evals["step"] == step)
        return cast(pd.DataFrame, self.evals[chosen])


@dataclass(frozen=True, eq=False)
class Results:
    """A results directory: its cells in order of their ids, and notes on what could not be read.

    others: further directories that it was read together with.
    """

    path: Path
    request: dict[str, Any]
    cells: tuple[CellResults, ...]
    notes: tuple[str, ...]
    others: tuple[Path, ...] = ()

    @property
    def directories(self) -> tuple[Path, ...]:
        """All of them, in the order in which they were named."""
        return (self.path, *self.others)

    def unfinished(self) -> list[CellResults]:
        """Cells that are not done."""
        return [cell for cell in self.cells if not cell.done]


def load(results_dir: Path, *others: Path) -> Results:
    """Read all cells of one or several results directories. A cell that lies in several is read once.

    Raises BenchError if a directory holds neither cells nor gradient profiles.
    """
    places, notes = (results_dir, *others), list[str]()
    for place in places:
        if not _folders(place / "cells") and not has_profiles(place):
            raise BenchError(
                f"{place}: no results here (neither cells/ nor gradients/ with runs in it). Name the "
                "directory that `bench run --out` or `bench gradients --out` wrote to, or run one of them "
                "first."
            )
    found = twins.by_id(places, "cells").values()
    cells = tuple(_cell(CellDir(one_of(same, notes).path), notes) for same in found)
    for same in twins.by_id(places, "gradients").values():  # the section on gradients reads them itself
        one_of(same, notes)
    return Results(results_dir, _request(places, notes), cells, tuple(notes), others)


def load_with(cell: CellDir) -> Results:
    """The results directory that a cell is in, or the cell alone if it lies elsewhere. Raises BenchError."""
    directory = cell.path.absolute().parent
    if directory.name == "cells":
        return load(directory.parent)
    notes: list[str] = []
    return Results(directory, {}, (_cell(cell, notes),), tuple(notes))


def one_of(places: Sequence[WorkDir], notes: list[str]) -> WorkDir:
    """Which directory of a cell or a gradient profile is read. Notes where it has other numbers."""
    if len(places) == 1:
        return places[0]
    readable = [place for place in places if place.status().state is not WorkState.DAMAGED] or places
    try:
        chosen = twins.choose(readable)
    except BenchError as error:
        notes.append(f"{error} {readable[0].id} of {_results_of(readable[0])} is shown.")
        return readable[0]
    here = _results_of(chosen.directory)
    for other, what in chosen.conflicts:
        notes.append(
            f"{other.id} has other numbers in {_results_of(other)} than in {here} ({what}), and those of "
            f"{here} are shown: name the other directory first to see its own, or hold both against each "
            "other with `bench compare`."
        )
    return chosen.directory


def _results_of(place: WorkDir) -> Path:
    return place.path.parent.parent


def _request(places: Sequence[Path], notes: list[str]) -> dict[str, Any]:
    """What was asked for; the cells know all that is shown of them, so the report does without.

    Of several directories, and of one that was merged, under `merged`.
    """
    found: list[dict[str, Any]] = []
    for path in (place / "experiment.yaml" for place in places):
        try:
            found += [read_yaml(path)] if path.is_file() else []
        except BenchError as error:
            notes.append(f"{path.name} was ignored: {error}")
    return found[0] if len(places) == 1 and found else {"merged": found} if found else {}


def has_profiles(results_dir: Path) -> bool:
    """Whether gradient profiles were ever started here."""
    return bool(_folders(results_dir / "gradients"))


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def _cell(cell: CellDir, notes: list[str]) -> CellResults:
    """One cell; what cannot be read makes it `unreadable` instead of stopping the report."""
    try:
        status = cell.status()
        config = _config(cell)
        env = (read_json(cell.path / "env.json") or {}) if config else {}
        logs = (cell.metrics, cell.evaluations, cell.inference)
        metrics, evals, inference = (_rows(path, notes) for path in logs)
    except BenchError as error:
        metrics, evals = _frame([], METRICS), _frame([], EVALS)
        return CellResults(cell.id, cell.path, UNREADABLE, 0, str(error), {}, {}, metrics, evals)
    scores, done = _frame(evals, EVALS), status.state is WorkState.DONE
    return CellResults(
        id=cell.id,
        path=cell.path,
        status=str(status.state),
        step=status.step,
        problem=_problem(cell, status),
        config=config,
        env=env,
        metrics=_frame(metrics, METRICS),
        evals=scores,
        inference=_frame(inference, INFERENCE),
        pictures=latest_pictures(cell.path / "samples", notes),
        features=_kept_features(cell.features, scores, done, notes),
        updated=status.updated,
    )


def _config(cell: CellDir) -> dict[str, Any]:
    """Its settings; empty if it never got that far."""
    path = cell.path / "config.yaml"
    config = read_yaml(path) if path.is_file() else {}
    if config and "training" not in config:
        raise BenchError(f"{path}: has no `training`; not written by this version of the program")
    return config


def _rows(path: Path, notes: list[str]) -> list[Record]:
    """The complete lines of a log. Notes when the last one is cut short."""
    rows = read_rows(path)
    if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        notes.append(f"{path.parent.name}/{path.name}: the last line is incomplete and was ignored.")
    return rows


def latest_pictures(samples: Path, notes: list[str]) -> Pictures:
    """The last evaluation's step and its pictures; 0 and nothing if none were kept. Notes damaged ones."""
    steps = {int(p.name): p for p in samples.iterdir() if p.name.isdigit()} if samples.is_dir() else {}
    for step in sorted(steps, reverse=True):
        found = {int(p.stem): p for p in sorted(steps[step].glob("*.png")) if p.stem.isdigit()}
        broken = {n: problem for n, path in found.items() if (problem := broken_picture(path))}
        for n, problem in broken.items():
            notes.append(f"{found[n].relative_to(samples.parent.parent)} was left out: {problem}. {REPAIR}")
        if found:
            return Pictures(step, {n: path for n, path in found.items() if n not in broken})
    return Pictures(0, {})


def _kept_features(folder: Path, evals: pd.DataFrame, done: bool, notes: list[str]) -> dict[int, Path]:
    """Files of features that can be read, by evaluation. Notes the others, and where the last one is gone."""
    steps, found = sorted({int(step) for step in evals["step"]}), dict[int, Path]()
    for step, file in features.files_by_step(folder).items():
        if step not in steps:
            continue
        name, pictures = f"{folder.parent.name}/features/{file.name}", len(_pictures_at(evals, step))
        try:
            count = len(features.read(file).values)
        except Damaged as error:
            notes.append(f"{name} was left out: {str(error).removeprefix(f'{file}: ')}")
            continue
        if count != pictures:
            notes.append(f"{name} was left out: features of {count} pictures, not of {pictures}.")
            continue
        found[step] = file
    if done and steps and features.lost(folder, steps[-1]) is not None:
        name = f"{folder.parent.name}/features"
        notes.append(f"{name} lacks the file of the last evaluation: no distance is shown. {REPAIR}")
    return found


def _pictures_at(evals: pd.DataFrame, step: int) -> pd.MultiIndex:
    rows = evals.loc[evals["step"] == step, ["prompt", "image"]].dropna().drop_duplicates()
    return pd.MultiIndex.from_frame(rows.astype({"image": int}))


def _frame(rows: list[Record], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame.from_records(rows)
    return frame.reindex(columns=[*columns, *(c for c in frame.columns if c not in columns)])


def _problem(cell: CellDir, status: Status) -> str:
    """Why a cell is not done: the message it left, or the last line of its traceback."""
    if status.state is WorkState.DONE:
        return ""
    if status.message:
        return status.message
    path = cell.path / "traceback.txt"
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines() if path.is_file() else []
    return lines[-1].strip() if lines else ""
