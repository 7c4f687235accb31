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
from typing import Any

from bench.base.errors import BenchError
from bench.base.labels import told_apart
from bench.base.layers import shipped_dir
from bench.base.units import GB
from bench.report.load import BASE, CellResults, Results
from bench.report.paper_cells import Candidate, StandIn, candidates, made_for, matching, models, value_of
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

    ours: Estimate
    gain: Estimate
    difference: Estimate
    cells: tuple[CellResults, ...]
    reached: int


@dataclass(frozen=True, eq=False)
class ViewLine:
    """A line of a table by one setting of its method: the entries that there are, by column of the file."""

    label: str
    line: PaperLine
    entries: Mapping[str, Entry]
    differing: tuple[str, ...]  # settings that are not the paper's


@dataclass(frozen=True)
class Missing:
    """A number without a finished run. state: of runs that were begun, else empty."""

    line: PaperLine
    quantity: Quantity
    state: str


@dataclass(frozen=True, eq=False)
class View:
    """One table beside the cells of the paper's models, or beside those of one stand-in."""

    table: PaperTable
    stand_in: StandIn | None
    lines: tuple[ViewLine, ...]
    missing: tuple[Missing, ...]

    @property
    def title(self) -> str:
        """`Table 5: RLR without its terms (tiny stands in)`."""
        note = f" ({self.stand_in.model} stands in)" if self.stand_in else ""
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


def _number(file: str, where: Mapping[str, str], column: str) -> float:
    found = [line for line in published(file) if all(line[key] == text for key, text in where.items())]
    if len(found) != 1:
        raise BenchError(f"results/paper/{file}.csv: {len(found)} lines where {dict(where)}; expected one")
    return float(found[0][column] or "nan")


def their_gain(table: PaperTable, line: PaperLine, quantity: Quantity) -> float:
    """A published score minus that of the base model; nan of what is no score, and of the base model."""
    if quantity.measure != "score" or not line.methods:
        return math.nan
    score = number(table, line, quantity)
    if line.base is not None:
        return score - _number(table.file, line.base, quantity.column)
    base = {"model": line.model, "method": BASE}
    return score - _number("table02_text2image", base, f"{quantity.prompts}_{quantity.reward}")


def views(results: Results) -> tuple[list[View], list[PaperTable]]:
    """The tables that the cells were made for, and further ones that some of the cells belong to.

    Where no cell says what it was made for, all that one belongs to.
    """
    found = candidates(results)
    wanted = made_for(results.cells) & EXPERIMENTS
    made = [
        view
        for table in TABLES
        for stand_in in models(table, found)
        if (view := _view(table, stand_in, found)) is not None
    ]
    shown = [view for view in made if not wanted or view.table.experiment in wanted]
    others = dict.fromkeys(view.table for view in made if view not in shown)
    return shown, list(others)


def _view(table: PaperTable, stand_in: StandIn | None, found: Sequence[Candidate]) -> View | None:
    """A table beside one model's cells; None if no trained one belongs to it."""
    lines: list[ViewLine] = []
    missing: list[Missing] = []
    trained = False
    for line in table.lines:
        agreeing = {q.column: matching(table, line, q, stand_in, found) for q in table.quantities}
        for quantity in table.quantities:
            some = agreeing[quantity.column]
            if not any(candidate.finished for candidate in some):
                states = sorted({candidate.group.status for candidate in some})
                missing.append(Missing(line, quantity, ", ".join(states)))
        trained = trained or (bool(line.methods) and any(agreeing.values()))
        lines += _lines(table, line, stand_in, agreeing)
    return View(table, stand_in, tuple(lines), tuple(missing)) if trained else None


def _lines(
    table: PaperTable,
    line: PaperLine,
    stand_in: StandIn | None,
    agreeing: Mapping[str, Sequence[Candidate]],
) -> list[ViewLine]:
    """A line for each setting that was measured, told apart by what differs; without any a bare one."""
    settings: dict[str, dict[str, Any]] = {}
    entries: dict[str, dict[str, Entry]] = {}
    differing: dict[str, tuple[str, ...]] = {}
    for quantity in table.quantities:
        for candidate in agreeing[quantity.column]:
            if candidate.finished:
                key = repr(candidate.setting)
                while quantity.column in entries.get(key, {}):  # they differ in digests alone
                    key += " again"
                settings[key] = candidate.setting
                entry = _entry(table, line, quantity, candidate, stand_in)
                entries.setdefault(key, {})[quantity.column] = entry
                differing[key] = () if stand_in else _differing(line, candidate.cell.config)
    if not settings:
        return [ViewLine(line.label, line, {}, ())]
    labels = told_apart(line.label, list(settings.values()))
    if len(set(labels)) < len(labels):
        labels = [f"{label}, number {n}" for n, label in enumerate(labels, start=1)]
    return [
        ViewLine(label, line, entries[key], differing[key])
        for label, key in zip(labels, settings, strict=True)
    ]


def _differing(line: PaperLine, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings that are not the paper's: `guidance = 5.0 (7.5)`."""
    pairs = [(key, value_of(config, key), value) for key, value in line.as_published.items()]
    if line.methods:
        batch = (
            config["training"]["train"]["prompts_per_step"]
            * config["training"]["train"]["samples_per_prompt"]
        )
        pairs.append(("samples per step", batch, 8))
    return tuple(
        f"{key.rsplit('.', 1)[-1]} = {own} ({theirs})" for key, own, theirs in pairs if own != theirs
    )


def _entry(
    table: PaperTable, line: PaperLine, quantity: Quantity, candidate: Candidate, stand_in: StandIn | None
) -> Entry:
    group, contest = candidate.group, candidate.contest
    reward = stand_in.of(quantity.reward) if stand_in else quantity.reward
    ours, gain, reached = NOTHING, NOTHING, 0
    if quantity.measure == "score":
        ours = estimate(side_by_side(group.scores(reward)))
        gain = contest.gain(group, reward) if line.methods else NOTHING
    elif stand_in is None or not quantity.measure.endswith("to_target"):
        values = [_measured(cell, quantity.measure, reward) for cell in group.cells]
        reached = sum(map(math.isfinite, values))
        ours = over_seeds(values) if reached == len(values) else NOTHING
    difference = NOTHING
    if ours.units and stand_in is None and not why_no_difference(quantity, candidate.cell.config):
        difference = _less(ours, number(table, line, quantity))
    return Entry(ours, gain, difference, group.cells, reached)


def _less(ours: Estimate, theirs: float) -> Estimate:
    return replace(ours, mean=ours.mean - theirs, low=ours.low - theirs, high=ours.high - theirs, p=math.nan)


def _measured(cell: CellResults, measure: Measure, reward: str) -> float:
    """What one run took; nan if it did not reach the target."""
    if measure.endswith("to_target"):
        crossing = first_crossing(cell, reward, TARGET)
        seconds, steps = (math.nan, math.nan) if crossing is None else crossing
        return float(steps) if measure == "steps_to_target" else seconds / 60
    last = at_step(cell, cell.eval_steps[-1])
    return last["memory"] / GB if measure == "memory" else last["seconds"] / 60 / last["step"]


def why_no_difference(quantity: Quantity, config: Mapping[str, Any]) -> str:
    """Why ours minus theirs would mean nothing; empty if it means something."""
    if quantity.measure != "score":
        return "" if quantity.measure == "steps_to_target" else "measured on another machine"
    scale = SCALES[quantity.reward]
    if not scale.known:
        return scale.remark
    own = next(choice["config"] for choice in config["eval_rewards"] if choice["name"] == quantity.reward)
    other = [f"{key} = {own.get(key)}" for key, value in scale.needs.items() if own.get(key) != value]
    return f"{quantity.reward}: ours are scored with {', '.join(other)}, theirs were not." if other else ""
