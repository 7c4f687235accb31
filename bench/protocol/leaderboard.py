"""The leaderboard: all records together, workload by workload, and over workloads.

A method is measured within its own record, against the base model and the null row that ran on the same
machine; across records it is compared by what does not depend on a machine. Claims of one workload's table
are adjusted together, whichever record they come from, and those of all tables for the count over workloads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.protocol.measures import (
    Collapse,
    collapses,
    gain,
    improves,
    integral,
    integral_ranges,
    median_time,
    over,
    over_optimised,
    ratios,
    scored,
    times,
)
from bench.protocol.reading import DONE, Record, Tables
from bench.protocol.workload import Workload, direction
from bench.report.groups import NULL
from bench.report.over_optimised import DISTANCE
from bench.report.stats import NOTHING, Estimate, adjusted, of_both
from bench.run.evaluations import DIVERSITY


@dataclass(frozen=True)
class Standing:
    """One method of one record on one workload: a line of the workload's table.

    runs, finished: how many were to be made, and how many have scores. gain: over the base model. over_null:
    over the null row (NOTHING for that itself). claim: that both lie on the same side of zero (`of_both`). p:
    of the claim, adjusted for all claims of the table (Holm), nan where there is none. times: to target, of
    the runs that have ended; time: their median. untouched: gains in rewards that were not trained on.
    diversity: change to the base model. distance: from it. steps, seconds: means over finished runs.
    """

    label: str
    record: str
    method: str
    runs: int
    finished: int
    gain: Estimate
    over_null: Estimate
    claim: Estimate
    p: float
    times: tuple[float, ...]
    untouched: dict[str, Estimate]
    diversity: Estimate
    distance: Estimate
    collapse: Collapse
    over_optimised: bool
    steps: float
    seconds: float

    @property
    def null(self) -> bool:
        """Whether it is the null row."""
        return self.method == NULL

    @property
    def time(self) -> float:
        """Median time to target in forward equivalents; nan without a target or a run that has ended."""
        return median_time(self.times)


@dataclass(frozen=True)
class Table:
    """One workload: its standings, the best gain first, and the labels of the methods that sit out."""

    name: str
    workload: Workload
    standings: tuple[Standing, ...]
    sits_out: tuple[str, ...]

    def improved(self, standing: Standing) -> bool:
        """Whether a gain over both the base model and the null row is claimed of it."""
        return improves(standing.claim, standing.p, self.workload.reward)


@dataclass(frozen=True)
class Total:
    """One method over all workloads. integral: of its performance profile, nan if no workload was solved.
    held: between which values it lies for most draws of runs (`integral_ranges`).

    solved: on how many its median time is finite. improved: on how many a gain is claimed,
    with p adjusted for the claims of all workloads together.
    """

    label: str
    method: str
    ratios: tuple[float, ...]
    integral: float
    held: tuple[float, float]
    solved: int
    improved: int

    @property
    def null(self) -> bool:
        """Whether it is the null row."""
        return self.method == NULL


@dataclass(frozen=True)
class Leaderboard:
    """Everything that the page shows. unsolved, targetless: workloads that no profile counts, because nobody
    solves them, or because they have no target."""

    records: tuple[Record, ...]
    tables: tuple[Table, ...]
    totals: tuple[Total, ...]
    unsolved: tuple[str, ...]
    targetless: tuple[str, ...]


def leaderboard(records: Sequence[Record], workloads: Mapping[str, Workload]) -> Leaderboard:
    """What the records say of all workloads that any of them has, in the order of `workloads`."""
    ordered = sorted(records, key=lambda record: record.name)
    labels = _labels(ordered)
    names = [name for name in workloads if any(name in record.suite.workloads for record in ordered)]
    tables = tuple(_table(name, workloads[name], ordered, labels) for name in names)
    known = [table for table in tables if table.workload.target is not None]
    runs = {
        label: {table.name: s.times for table in known for s in table.standings if s.label == label}
        for label in labels.values()
    }
    compared = ratios({label: _medians(times) for label, times in runs.items()})
    solved = {name for table in compared.values() for name in table}
    return Leaderboard(
        tuple(ordered),
        tables,
        tuple(_totals(tables, labels, runs, compared)),
        tuple(table.name for table in known if table.name not in solved),
        tuple(table.name for table in tables if table.workload.target is None),
    )


def _labels(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """(record, method) → the method, with the record behind it where several have the method."""
    counts = Counter(method for record in records for method in record.suite.methods)
    return {
        (record.name, method): method if counts[method] == 1 else f"{method} ({record.name})"
        for record in records
        for method in record.suite.methods
    }


def _table(
    name: str, workload: Workload, records: Sequence[Record], labels: Mapping[tuple[str, str], str]
) -> Table:
    found = [
        _standing(labels[record.name, method], record, record.tables[name], workload, method)
        for record in records
        if name in record.tables
        for method in record.suite.takes_part(name)
    ]
    out = [
        labels[record.name, method]
        for record in records
        for method in record.suite.methods
        if name in record.suite.workloads and method not in record.suite.takes_part(name)
    ]
    sign = direction(workload.reward)
    ranked = sorted(
        found, key=lambda s: (math.isnan(s.gain.mean), -sign * s.gain.mean if s.gain.units else 0.0, s.label)
    )
    p = adjusted([standing.claim for standing in ranked])
    standings = tuple(replace(standing, p=own) for standing, own in zip(ranked, p, strict=True))
    return Table(name, workload, standings, tuple(out))


def _standing(label: str, record: Record, tables: Tables, workload: Workload, method: str) -> Standing:
    seeds, reward = record.suite.seeds, workload.reward
    done = [run for run in tables.of(method) if run.state == DONE]
    trained = gain(tables, method, reward, seeds)
    over_null = NOTHING if method == NULL else over(tables, method, NULL, reward, seeds)
    untouched = {name: gain(tables, method, name, seeds) for name in workload.untouched}
    return Standing(
        label=label,
        record=record.name,
        method=method,
        runs=seeds,
        finished=len(done),
        gain=trained,
        over_null=over_null,
        claim=of_both(trained, over_null),
        p=math.nan,
        times=() if workload.target is None else tuple(times(tables, method, reward, workload.target)),
        untouched=untouched,
        diversity=gain(tables, method, DIVERSITY, seeds),
        distance=scored(tables, method, DISTANCE),
        collapse=collapses(tables, method),
        over_optimised=over_optimised(trained, untouched, reward),
        steps=_mean([run.steps for run in done]),
        seconds=_mean([run.seconds for run in done]),
    )


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _medians(runs: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {workload: median_time(times) for workload, times in runs.items()}


def _improved(tables: Sequence[Table]) -> Counter[str]:
    """Label → on how many workloads a gain is claimed, each p being adjusted for the claims of all tables."""
    lines = [(table.workload.reward, standing) for table in tables for standing in table.standings]
    p = adjusted([standing.claim for _, standing in lines])
    return Counter(
        s.label for (reward, s), own in zip(lines, p, strict=True) if improves(s.claim, own, reward)
    )


def _totals(
    tables: Sequence[Table],
    labels: Mapping[tuple[str, str], str],
    runs: Mapping[str, Mapping[str, Sequence[float]]],
    compared: Mapping[str, Mapping[str, float]],
) -> list[Total]:
    totals, improved, held = [], _improved(tables), integral_ranges(runs)
    for (_, method), label in labels.items():
        own = tuple(compared[label].values())
        solved = sum(math.isfinite(time) for time in _medians(runs[label]).values())
        totals.append(Total(label, method, own, integral(own), held[label], solved, improved[label]))
    # nan (nothing solved) is the same for all; then claims decide, then names.
    return sorted(totals, key=lambda t: (-t.integral if t.ratios else 0.0, -t.improved, t.label))
