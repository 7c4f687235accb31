"""The figures of one contest, each a function from data to a matplotlib Figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from bench.base.style import GREY, Drawing, Look, drawing, legend, looks, new_figure, render, term_look
from bench.report import curves
from bench.report.groups import Contest
from bench.report.panels import logarithmic_panels
from bench.report.stats import Estimate
from bench.report.summary import DIVERSITY

AXES = {
    "steps": "optimizer steps",
    "seconds": "training seconds",
    "forward_equivalents": "forward equivalents",
}
BESIDE = 16  # letters of a legend that there is room for beside a figure of one panel


def all_figures(contest: Contest) -> list[Drawing]:
    """Every figure that there is data for."""
    with drawing():
        return [Drawing(n, caption, **render(f)) for n, caption, f in _figures(contest)]


def _figures(contest: Contest) -> Iterator[tuple[str, str, Figure]]:
    measured = {g.label: curves.held_out(contest, g) for g in contest.ranked() if g.cells}
    look = looks({g.label: g.method for g in contest.groups})
    base = contest.score(contest.base, contest.reward) if contest.base else None
    held_out = f"Held-out {contest.reward}; bands: one standard error of the gain over base."
    if measured:
        yield "reward", held_out, _panels(contest, measured, look, base, list(AXES))
        yield "gains", "Gain over base in every reward, with 95 % intervals.", _gains(contest, look)
        for axis in AXES:
            yield f"reward_vs_{axis}", held_out, _panels(contest, measured, look, base, [axis])
    for name, caption, draw in _TRAINING:
        figure = draw(contest, look)
        if figure is not None:
            yield name, caption, figure


def _panels(
    contest: Contest,
    measured: dict[str, pd.DataFrame],
    look: dict[str, Look],
    base: Estimate | None,
    which: list[str],
) -> Figure:
    """Held-out reward against what was spent, one panel per way of counting it."""
    figure = new_figure(9.0, 3.3) if len(which) > 1 else new_figure(6.2, 3.6)
    panels = figure.subplots(1, len(which), sharey=True, squeeze=False)[0]
    for axes, axis in zip(panels, which, strict=True):
        for label, points in measured.items():
            x, y, se = (np.asarray(points[name], dtype=float) for name in (axis, "mean", "se"))
            line(axes, x, y, np.nan_to_num(se), look[label])
        if base is not None and math.isfinite(base.mean):
            level(axes, base.mean, "base" if axes is panels[-1] else "")
        axes.set_xlabel(AXES[axis])
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=axis == "steps"))
        if axis == "forward_equivalents":
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    panels[0].set_ylabel(f"held-out {contest.reward}")
    legend(figure, list(measured), look, beside=BESIDE if len(which) == 1 else 0)
    return figure


def line(axes: Axes, x: np.ndarray, y: np.ndarray, se: np.ndarray, look: Look) -> None:
    """A method's line through y [points] at x, with a band of se to both sides."""
    axes.fill_between(x, y - se, y + se, color=look.colour, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=look.colour, marker=look.marker, linestyle=look.line, markeredgewidth=0)


def level(axes: Axes, value: float, name: str) -> None:
    """A grey line at a value across the axes, named on the right of them."""
    axes.axhline(value, color=GREY, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate(
        name,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        color=GREY,
        fontsize=8,
    )


def _gains(contest: Contest, look: dict[str, Look]) -> Figure:
    """Gain in every reward: what was trained on, and what it did to the others."""
    ranked = [g for g in contest.ranked() if g.cells]
    rewards = [r for r in contest.rewards if r != DIVERSITY]
    figure = new_figure(9.0, 0.9 + 0.27 * len(ranked))
    panels = figure.subplots(1, len(rewards), sharey=True, squeeze=False)[0]
    for axes, reward in zip(panels, rewards, strict=True):
        axes.axvline(0, color=GREY, linewidth=1.1, linestyle=(0, (2, 2)), zorder=1)
        for place, group in enumerate(ranked):
            gain, s = contest.gain(group, reward), look[group.label]
            if math.isfinite(gain.low):
                axes.plot([gain.low, gain.high], [place, place], color=s.colour, linewidth=2.2)
            axes.plot([gain.mean], [place], color=s.colour, marker=s.marker, markersize=5.5)
        axes.set_title(f"{reward} (trained on)" if reward == contest.reward else reward)
        axes.set_xlabel("gain over base")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(ranked)), [g.label for g in ranked])
    panels[0].set_ylim(len(ranked) - 0.4, -0.6)
    return figure


def _training_reward(contest: Contest, look: dict[str, Look]) -> Figure | None:
    """Reward of the training batches; each method samples as its estimator demands, so levels may differ."""
    found = {g.label: frame for g in contest.ranked() if not (frame := curves.training(g.cells)).empty}
    if not found:
        return None
    figure = new_figure(6.2, 3.6)
    axes = figure.subplots()
    for label, frame in found.items():
        s = look[label]
        axes.plot(frame.index, frame["reward"], color=s.colour, linewidth=0.6, alpha=0.25)
        axes.plot(
            frame.index,
            frame["smooth"],
            color=s.colour,
            linestyle=s.line,
            marker=s.marker,
            markevery=max(1, len(frame) // 8),
            markeredgewidth=0,
        )
    axes.set_xlabel(AXES["steps"])
    axes.set_ylabel(f"{contest.reward} of the training batch")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, list(found), look, beside=BESIDE)
    return figure


def _term_norms(contest: Contest, look: dict[str, Look]) -> Figure | None:
    """Norm of each gradient term, one panel per method, on one logarithmic scale."""
    found = {g.label: frame for g in contest.ranked() if not (frame := curves.norms(g.cells)).empty}
    if not found:
        return None

    def draw(axes: Axes, label: str) -> None:
        for term in found[label].columns:
            s = term_look(str(term))
            axes.plot(found[label].index, found[label][term], color=s.colour, linestyle=s.line, linewidth=1.3)
        axes.set_ylim(*_decades(found))

    figure = logarithmic_panels(list(found), draw, AXES["steps"], "norm of the term")
    terms = sorted({str(t) for frame in found.values() for t in frame.columns})
    legend(figure, terms, {term: term_look(term)._replace(marker="") for term in terms}, beside=0)
    return figure


def _decades(found: dict[str, pd.DataFrame]) -> tuple[float, float]:
    values = np.concatenate([frame.to_numpy(dtype=float).ravel() for frame in found.values()])
    logs = np.log10(values[np.isfinite(values)])
    low, high = (math.floor(logs.min()), math.ceil(logs.max())) if logs.size else (-1, 0)
    return 10.0**low, 10.0 ** max(high, low + 1)


_TRAINING: list[tuple[str, str, Callable[[Contest, dict[str, Look]], Figure | None]]] = [
    ("training_reward", "Reward of the training batches (thin) and its running mean.", _training_reward),
    ("term_norms", "Norm of every term of the gradient: the largest one steers.", _term_norms),
]
