"""What a run took until its held-out reward reached a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from bench.base.columns import texts
from bench.report.curves import SPENT, spent_at
from bench.report.load import CellResults, Results
from bench.report.section import TableSection
from bench.report.summary import Line, contest_lines
from bench.report.tables import short_count


def section(results: Results) -> TableSection | None:
    """Time to target of every method; None where no workload has set a target."""
    target = target_of(results)
    found = [line for _, lines in contest_lines(results) for line in lines if line.group.cells]
    lines = [line for line in found if not line.is_base]
    if target is None or not lines:
        return None
    times = [[times_to(line, cell, target) for cell in line.group.cells] for line in lines]
    reached = [sum(math.isfinite(run["steps"]) for run in runs) for runs in times]
    counts = [f"{n} of {len(runs)}" for n, runs in zip(reached, times, strict=True)]
    columns = [texts("runs that reach it", counts)]
    for name, header in zip(SPENT, ("steps", "train s", "forwards"), strict=True):
        columns.append(texts(header, [short_count(median(run[name] for run in runs)) for runs in times]))
    names = texts("method", [line.group.label for line in lines], left=True)
    title = f"Time to target: until held-out {lines[0].contest.reward} is {target:g}, median over runs"
    return TableSection(title, names, tuple(columns), (False,) * len(lines))


def target_of(results: Results) -> float | None:
    """The target of the workload that the cells belong to, as experiment.yaml has it."""
    target = results.request.get("target")
    return None if target is None else float(target)


def times_to(line: Line, cell: CellResults, target: float) -> dict[str, float]:
    """What a run had spent, in each way of counting, when it first reached the target; infinite: never.

    Its curve goes straight from evaluation to evaluation and begins with the base model, if there is one.
    """
    contest = line.contest
    base = contest.score(contest.base, contest.reward).mean if contest.base else -math.inf
    scores = [mean_score(cell, contest.reward, step) for step in cell.eval_steps]
    spent = [spent_at(cell, step) for step in cell.eval_steps]
    return {
        name: crossing(
            [(0.0, base), *((s[name], score) for s, score in zip(spent, scores, strict=True))], target
        )
        for name in SPENT
    }


def crossing(points: Sequence[tuple[float, float]], target: float) -> float:
    """Where the straight line through (spent, score) points first reaches a target; infinite: never."""
    for (before, low), (after, high) in zip([points[0], *points], points, strict=False):
        if high >= target:
            share = (target - low) / (high - low) if low < target and math.isfinite(low) else 1.0
            return before + (after - before) * share
    return math.inf


def mean_score(cell: CellResults, reward: str, step: int) -> float:
    """Held-out mean of one evaluation."""
    return float(np.mean(cell.scored(reward, step)["score"].to_numpy(dtype=float)))


def first_crossing(cell: CellResults, reward: str, target: float) -> tuple[float, int] | None:
    """(training seconds, optimizer steps) at the first evaluation that reaches the target; None if none
    does."""
    seconds = dict(zip(cell.metrics["step"], cell.metrics["seconds"], strict=True))
    for step in cell.eval_steps:
        if mean_score(cell, reward, step) >= target:
            return float(seconds[step]), step
    return None
