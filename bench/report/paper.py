"""The RLR paper's published numbers beside those of one's own cells (`bench.report.paper_tables` says which).

Scores of a model that stands in for the paper's are on another scale: gains over the base model are compared,
and no difference is taken.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from bench.base.errors import BenchError
from bench.base.labels import told_apart
from bench.base.layers import shipped_dir
from bench.base.units import GB
from bench.report.load import CellResults, Results
from bench.report.paper_cells import Candidate, Models, candidates, made_for, matching, models, value_of
from bench.report.paper_tables import (
    EXPERIMENTS,
    SCALES,
    TABLES,
    TARGET,
    Measure,
    PaperLine,
    PaperTable,
    Quantity,
)
from bench.report.stats import NOTHING, Estimate, estimate, over_seeds, side_by_side
from bench.report.summary import at_step
from bench.report.target import first_crossing


@dataclass(frozen=True, eq=False)
class Entry:
    """Our side of a published number: ours, its gain over the base model, and ours minus theirs; NOTHING
    where there is none. cells: of which it is. reached: how many reached the target, where there is one.
    """

    ours: Estimate = NOTHING
    gain: Estimate = NOTHING
    difference: Estimate = NOTHING
    cells: tuple[CellResults, ...] = ()
    reached: int = 0

    @property
    def seeds(self) -> int:
        """How many trainings it is of."""
        return sum(cell.seed is not None for cell in self.cells)


EMPTY = Entry()


@dataclass(frozen=True, eq=False)
class ViewLine:
    """A line of a table by one setting of its method: the entries that there are, by column of the file.

    differing: settings that are not the paper's, `guidance = 5.0 (7.5)`.
    """

    label: str
    line: PaperLine
    entries: Mapping[str, Entry]
    differing: tuple[str, ...]

    def entry(self, quantity: Quantity) -> Entry:
        """The one of a column; EMPTY if there is none."""
        return self.entries.get(quantity.column, EMPTY)


class Missing(NamedTuple):
    """A number without a finished run. state: of runs that were begun, else empty."""

    line: PaperLine
    quantity: Quantity
    state: str


@dataclass(frozen=True, eq=False)
class View:
    """One table beside the cells of the paper's models, or beside those of one stand-in."""

    table: PaperTable
    beside: Models
    lines: tuple[ViewLine, ...]
    missing: tuple[Missing, ...]

    @property
    def title(self) -> str:
        """`Table 5: RLR without its terms (tiny stands in)`."""
        note = f" ({self.beside.stand_in} stands in)" if self.beside.stand_in else ""
        return f"{self.table.name}: {self.table.title}{note}"


def file_of(name: str) -> Path:
    """A file of published numbers, in a checkout or an installed package."""
    return shipped_dir("results") / "paper" / f"{name}.csv"


@cache
def published(file: str) -> list[dict[str, str]]:
    """The lines of a file of results/paper. Raises BenchError if it is not there."""
    path = file_of(file)
    if not path.is_file():
        raise BenchError(
            f"{path}: the published numbers are not here. Install the package again, or get the file"
        )
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def number(table: PaperTable, line: PaperLine, quantity: Quantity) -> float:
    """One published number; nan if its table has none there."""
    return _number(table.file, line.where, quantity.column)


def _number(file: str, where: tuple[str, ...], column: str) -> float:
    found = [line for line in published(file) if tuple(line.values())[: len(where)] == where]
    if len(found) != 1:
        raise BenchError(f"results/paper/{file}.csv: {len(found)} lines begin with {where}; expected one")
    return float(found[0][column] or "nan")


def their_gain(table: PaperTable, line: PaperLine, quantity: Quantity) -> float:
    """A published score minus that of the base model; nan of what is no score, and of the base model."""
    if quantity.measure != "score" or not line.methods:
        return math.nan
    if line.base:
        base = _number(table.file, line.base, quantity.column)
    else:
        base = _number("table02_text2image", (line.model, "base"), f"{quantity.prompts}_{quantity.reward}")
    return number(table, line, quantity) - base


def views(results: Results) -> tuple[list[View], list[PaperTable]]:
    """The tables that the cells were made for, and further ones that some of the cells belong to.

    Where no cell says what it was made for, all that one belongs to.
    """
    found = candidates(results)
    wanted = made_for(results.cells) & EXPERIMENTS
    made = [
        view
        for table in TABLES
        for beside in models(table, found)
        if (view := _view(table, beside, found)) is not None
    ]
    shown = [view for view in made if not wanted or view.table.experiment in wanted]
    others = dict.fromkeys(view.table for view in made if view not in shown)
    return shown, list(others)


def _view(table: PaperTable, beside: Models, found: Sequence[Candidate]) -> View | None:
    """A table beside one model's cells; None if no trained one belongs to it."""
    lines, missing, trained = list[ViewLine](), list[Missing](), False
    for line in table.lines:
        agreeing = {q: matching(table, line, q, beside, found) for q in table.quantities}
        for quantity, some in agreeing.items():
            if not any(candidate.finished for candidate in some):
                states = sorted({candidate.group.status for candidate in some})
                missing.append(Missing(line, quantity, ", ".join(states)))
        trained = trained or (bool(line.methods) and any(agreeing.values()))
        lines += _lines(table, line, beside, agreeing)
    return View(table, beside, tuple(lines), tuple(missing)) if trained else None


def _lines(
    table: PaperTable, line: PaperLine, beside: Models, agreeing: Mapping[Quantity, Sequence[Candidate]]
) -> list[ViewLine]:
    """A line for each setting that was measured, told apart by what differs; without any a bare one."""
    found: list[tuple[Candidate, dict[str, Entry]]] = []
    for quantity, some in agreeing.items():
        for one in (candidate for candidate in some if candidate.finished):
            same = [entries for other, entries in found if other.setting == one.setting]
            own = next((entries for entries in same if quantity.column not in entries), None)
            if own is None:  # a new setting, or one that differs in digests alone
                found.append((one, own := {}))
            own[quantity.column] = _entry(table, line, quantity, one, beside)
    if not found:
        return [ViewLine(line.label, line, {}, ())]
    labels = told_apart(line.label, [one.setting for one, _ in found])
    if len(set(labels)) < len(labels):
        labels = [f"{label}, number {n}" for n, label in enumerate(labels, start=1)]
    return [
        ViewLine(label, line, entries, () if beside.stand_in else _differing(line, one.config))
        for label, (one, entries) in zip(labels, found, strict=True)
    ]


def _differing(line: PaperLine, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that are not the paper's: `guidance = 5.0 (7.5)`."""
    pairs = [(key, value_of(config, key), value) for key, value in line.as_published.items()]
    if line.methods:
        train = config["training"]["train"]
        pairs.append(("samples per step", train["prompts_per_step"] * train["samples_per_prompt"], 8))
    return tuple(
        f"{key.rsplit('.', 1)[-1]} = {own} ({theirs})" for key, own, theirs in pairs if own != theirs
    )


def _entry(
    table: PaperTable, line: PaperLine, quantity: Quantity, candidate: Candidate, beside: Models
) -> Entry:
    group, reward = candidate.group, beside.of(quantity.reward)
    ours, gain, difference, reached = NOTHING, NOTHING, NOTHING, 0
    if quantity.measure == "score":
        ours = estimate(side_by_side(group.scores(reward)))
        gain = candidate.contest.gain(group, reward) if line.methods else NOTHING
    elif not (beside.stand_in and quantity.measure.endswith("to_target")):
        values = [_measured(cell, quantity.measure, reward) for cell in group.cells]
        reached = sum(map(math.isfinite, values))
        ours = over_seeds(values) if reached == len(values) else NOTHING
    if ours.units and not beside.stand_in and not why_no_difference(quantity, candidate.config):
        theirs = number(table, line, quantity)
        moved = {name: getattr(ours, name) - theirs for name in ("mean", "low", "high")}
        difference = replace(ours, **moved, p=math.nan)
    return Entry(ours, gain, difference, group.cells, reached)


def _measured(cell: CellResults, measure: Measure, reward: str) -> float:
    """What one run took; nan if it did not reach the target."""
    if measure.endswith("to_target"):
        seconds, steps = first_crossing(cell, reward, TARGET) or (math.nan, math.nan)
        return float(steps) if measure == "steps_to_target" else seconds / 60
    last = at_step(cell, cell.eval_steps[-1])
    return last["memory"] / GB if measure == "memory" else last["seconds"] / 60 / last["step"]


def why_no_difference(quantity: Quantity, config: Mapping[str, Any]) -> str:
    """Why ours minus theirs would mean nothing; empty if it means something."""
    if quantity.measure != "score":
        return "" if quantity.measure == "steps_to_target" else "measured on another machine"
    scale = SCALES[quantity.reward]
    if scale.needs is None:
        return scale.remark
    own = next(choice["config"] for choice in config["eval_rewards"] if choice["name"] == quantity.reward)
    other = [f"{key} = {own.get(key)}" for key, value in scale.needs.items() if own.get(key) != value]
    return f"{quantity.reward}: ours are scored with {', '.join(other)}, theirs were not." if other else ""
