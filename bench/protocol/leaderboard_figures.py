"""The figures of the leaderboard: performance profiles, and held-out curves of each workload."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from bench.base.style import BLACK, Drawing, Look, drawing, legend, looks, new_figure, own_looks, render
from bench.protocol.leaderboard import Leaderboard, Standing, Table
from bench.protocol.measures import LARGEST_RATIO, profile
from bench.protocol.reading import DONE, Record
from bench.report.figures import AXES, BESIDE, level, line
from bench.report.groups import NULL

PROFILE = "profile"
APART = 0.008  # so far are lines of the same share drawn from each other
BANDS = 6  # the first methods have bands: more of them hide each other


class Curve(NamedTuple):
    """Held-out reward of a method's finished runs: forward equivalents, mean, standard error [points].

    Runs are interpolated to the evaluations of all; one that has ended stays where it is.
    """

    forwards: np.ndarray
    mean: np.ndarray
    se: np.ndarray


def figures(board: Leaderboard) -> list[Drawing]:
    """The profiles, if a workload is solved, and the curves of every workload that has some, by its name."""
    look = _looks(board)
    with drawing():
        return [Drawing(name, caption, **render(figure)) for name, caption, figure in _figures(board, look)]


def _figures(board: Leaderboard, look: dict[str, Look]) -> Iterator[tuple[str, str, Figure]]:
    if any(total.ratios for total in board.totals):
        yield PROFILE, "Performance profiles", _profiles(board, look)
    records = {record.name: record for record in board.records}
    for table in board.tables:
        found = {s.label: _curve(s, table, records[s.record]) for s in table.standings}
        curves = {label: curve for label, curve in found.items() if curve is not None}
        if curves:
            name = table.workload.reward
            yield table.name, f"Held-out {name} against what was spent", _curves(table, curves, board, look)


def _looks(board: Leaderboard) -> dict[str, Look]:
    """Every method's look, the same in all figures; all null rows have theirs."""
    methods = {total.label: total.method for total in board.totals}
    null = own_looks()[NULL]
    return looks(methods) | {total.label: null for total in board.totals if total.null}


def _profiles(board: Leaderboard, look: dict[str, Look]) -> Figure:
    """The share of workloads solved within τ times the time of the best, of methods that solve one."""
    figure = new_figure(6.2, 3.4)
    axes = figure.subplots()
    drawn = [total for total in board.totals if profile(total.ratios, LARGEST_RATIO) > 0]
    for rank, total in reversed(list(enumerate(drawn))):  # the best on top
        steps = sorted({1.0, LARGEST_RATIO, *(r for r in total.ratios if r <= LARGEST_RATIO)})
        shares = [profile(total.ratios, tau) - APART * rank for tau in steps]
        s = look[total.label]
        axes.step(steps, shares, where="post", color=s.colour, linestyle=s.line)
        axes.plot(steps[:-1], shares[:-1], color=s.colour, marker=s.marker, linestyle="", markeredgewidth=0)
    axes.set_xlim(1, LARGEST_RATIO)
    axes.set_ylim(-0.01 - APART * len(drawn), 1.02)
    axes.set_xlabel("τ: time to target over that of the fastest method")
    axes.set_ylabel("workloads solved within τ")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend(figure, [total.label for total in drawn], look, beside=BESIDE)
    return figure


def _curve(standing: Standing, table: Table, record: Record) -> Curve | None:
    """None without a finished run or a base model to begin with."""
    tables, reward = record.tables[table.name], table.workload.reward
    seeds = [run.seed for run in tables.of(standing.method) if run.state == DONE]
    runs = [run for seed in seeds if (run := tables.curve(standing.method, seed, reward))]
    base = tables.base(reward)
    if not runs or math.isnan(base):
        return None
    spent = [[0.0, *(point.forwards or 0.0 for point in run if point.step > 0)] for run in runs]
    score = [[base, *(point.score for point in run if point.step > 0)] for run in runs]
    grid = np.unique(np.concatenate(spent))
    values = np.stack([np.interp(grid, x, y) for x, y in zip(spent, score, strict=True)])
    error = values.std(axis=0, ddof=1) / math.sqrt(len(runs)) if len(runs) > 1 else np.zeros(len(grid))
    return Curve(grid, values.mean(axis=0), error)


def _curves(table: Table, curves: dict[str, Curve], board: Leaderboard, look: dict[str, Look]) -> Figure:
    figure = new_figure(6.2, 3.6)
    axes = figure.subplots()
    for rank, (label, curve) in reversed(list(enumerate(curves.items()))):
        se = curve.se if rank < BANDS else np.zeros_like(curve.se)
        line(axes, curve.forwards, curve.mean, se, look[label])
    tables = [record.tables[table.name] for record in board.records if table.name in record.tables]
    level(axes, float(np.nanmean([one.base(table.workload.reward) for one in tables])), "base")
    if table.workload.target is not None:
        axes.axhline(table.workload.target, color=BLACK, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            "target", (0, table.workload.target), xytext=(3, 2), textcoords="offset points", fontsize=8
        )
    axes.set_xlabel(AXES["forward_equivalents"])
    axes.set_ylabel(f"held-out {table.workload.reward}")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(figure, list(curves), look, beside=BESIDE)
    return figure
