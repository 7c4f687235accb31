"""The figures of gradient profiles, each a function from the frames of bench/measure/gradients/table.py."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from bench.base.style import GREY, Drawing, Look, drawing, legend, looks, new_figure, render, term_look
from bench.report.label_placement import Point, place_names
from bench.report.panels import logarithmic_panels

AREA = 420.0  # points² of the marker of the slowest gradient
DIAMOND = math.pi / 4  # matplotlib's "D" covers its whole size, its "o" this share
LINEAR = 0.01  # relative bias up to which the axis is linear, so that 0 has a place
COLOURS = colormaps["viridis_r"]
BALANCE = (0, (1, 2))  # the line where bias² = variance
EXACT = Look("#9A9A9A", "", "-")
INK, PALE = "#222222", "#8A8A8A"


@dataclass(frozen=True)
class Dot:
    """One estimator in the plane: relative bias with its interval, relative variance, cost, MB above idle."""

    name: str
    bias: float
    low: float
    high: float
    variance: float
    seconds: float
    memory: float
    biased: bool
    undecided: bool


def gradient_figures(summary: pd.DataFrame, steps: pd.DataFrame, cosine: pd.DataFrame) -> list[Drawing]:
    """Every figure that there is data for. The frames: gradients.csv, gradients_steps.csv and
    gradients_cosine.csv, rows of one model, θ and seed."""
    with drawing():
        return [Drawing(n, caption, **render(f)) for n, caption, f in _figures(summary, steps, cosine)]


def _figures(
    summary: pd.DataFrame, steps: pd.DataFrame, cosine: pd.DataFrame
) -> Iterator[tuple[str, str, Figure]]:
    short = {str(label): str(label).partition(" = ")[0] for label in summary["method"]}
    found = dots(summary, short)
    if found:
        yield "gradients_plane", _PLANE + _left_out(short, [dot.name for dot in found]), plane(found)
    by_step = {short[str(label)]: frame for label, frame in steps.groupby("method")} if len(steps) else {}
    if by_step:
        references = [short[str(row["method"])] for row in summary.to_dict("records") if row["reference"]]
        ordered = {name: by_step[name] for name in short.values() if name in by_step}
        yield "gradients_steps", _STEPS, per_step(ordered, references[0] if references else None)
    lines = curves(summary, cosine, short)
    if lines:
        yield "gradients_cosine", _COSINE + _left_out(short, lines), against_samples(lines)


def _left_out(short: Mapping[str, str], shown: Sequence[str] | Mapping[str, object]) -> str:
    names = [name for name in short.values() if name not in shown]
    return f" Not enough is known yet of: {', '.join(names)}." if names else ""


_PLANE = (
    "Bias against noise of one batch gradient, both relative to the exact gradient g of the deployed "
    "sampler. Area of a marker: seconds per gradient. Colour: peak memory. Bars: intervals of the bias, cut "
    "off at the frame. Pale: undecided, the bias is not known well enough. Left of the dotted curve noise is "
    "the larger part of the error, and averaging helps; right of it, bias is."
)
_STEPS = (
    "Variance of what each step of the chain contributes to a batch gradient, by term, and |mean|² of the "
    "same step of the deployed sampler’s exact gradient, all relative to |g|². Where the coloured line is "
    "far above the grey one, the step adds mostly noise. A perturbation that several steps share counts at "
    "the first of them."
)
_COSINE = (
    "Cosine between the mean of so many samples’ gradients and the exact gradient of the deployed sampler, "
    "from measured bias and variance. Biased estimators level off below 1. Dotted: more samples than were "
    "measured; estimators of undecided bias end there."
)


def dots(summary: pd.DataFrame, short: Mapping[str, str]) -> list[Dot]:
    """What is known well enough for the plane, the slowest first: its marker must not hide others."""
    found = [
        Dot(
            name=short[str(row["method"])],
            bias=float(row["deployed_bias_rel"]),
            low=max(0.0, float(row["deployed_bias_lo"])),
            high=float(row["deployed_bias_hi"]),
            variance=float(row["variance_deployed"]),
            seconds=float(row["seconds"]),
            memory=max(0.0, float(row["peak_memory_mb"]) - float(row["idle_memory_mb"])),
            biased=row["declared"] == "biased",
            undecided=row["deployed_verdict"] == "undecided",
        )
        for row in summary.to_dict("records")
    ]
    found = [dot for dot in found if math.isfinite(dot.bias) and 0 < dot.variance < math.inf]
    return sorted(found, key=lambda dot: -dot.seconds if math.isfinite(dot.seconds) else -math.inf)


def plane(found: Sequence[Dot]) -> Figure:
    """Bias, variance, seconds and memory of every estimator."""
    figure = new_figure(9.0, 5.6)
    axes = figure.subplots()
    slowest = max((dot.seconds for dot in found if math.isfinite(dot.seconds)), default=math.nan)
    sizes = [_size(dot.seconds, slowest) for dot in found]
    norm = _memory_scale([dot.memory for dot in found])
    _plane_axes(axes, found)
    right = axes.get_xlim()[1]
    for dot, size in zip(found, sizes, strict=True):
        bar = [dot.low, min(dot.high, right)]
        axes.plot(bar, [dot.variance] * 2, color="#BBBBBB", linewidth=0.9, zorder=1, solid_capstyle="butt")
        axes.scatter(
            [dot.bias],
            [dot.variance],
            s=size * (DIAMOND if dot.biased else 1.0),
            color=[COLOURS(norm(dot.memory))],
            marker="D" if dot.biased else "o",
            edgecolors="white",
            linewidths=0.5,
            alpha=0.4 if dot.undecided else 1.0,
            zorder=3,
            clip_on=False,
        )
    scale = ScalarMappable(norm, COLOURS)
    figure.colorbar(scale, ax=axes, label="peak memory above idle (MB)", shrink=0.75, aspect=28, pad=0.02)
    _plane_legend(figure, {dot.biased for dot in found}, slowest)
    names = [
        Point(dot.name, dot.bias, dot.variance, math.sqrt(size) / 2, PALE if dot.undecided else INK)
        for dot, size in zip(found, sizes, strict=True)
    ]
    place_names(figure, axes, names, 8.0 if len(found) <= 12 else 7.0)
    return figure


def _size(seconds: float, slowest: float) -> float:
    """Area in points², proportional to seconds; the smallest are drawn a little larger, to be seen."""
    return max(8.0, AREA * seconds / slowest) if math.isfinite(seconds) else 8.0


def _memory_scale(memory: Sequence[float]) -> Normalize:
    low, high = max(min(memory), 1.0), max(*memory, 1.0)
    return LogNorm(low, high) if high > 20 * low else Normalize(0, high)


def _plane_axes(axes: Axes, found: Sequence[Dot]) -> None:
    """Scales, limits and guides."""
    largest = max(dot.bias for dot in found)
    ends = [dot.high for dot in found if math.isfinite(dot.high)]
    right = max(1.5, 2 * largest, min(3 * largest, max(ends, default=0.0)))
    variances = [dot.variance for dot in found]
    axes.set_xscale("symlog", linthresh=LINEAR, linscale=0.5)
    axes.set_yscale("log")
    axes.set_xlim(-0.25 * LINEAR, right)
    axes.set_ylim(min(variances) / 4, max(variances) * 4)
    decades = [10.0**k for k in range(-2, math.floor(math.log10(right)) + 1)]
    axes.xaxis.set_major_locator(FixedLocator([0, *decades]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 1e4 else f"{x:.0e}"))
    axes.yaxis.set_major_locator(LogLocator(numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("relative bias |E ĝ − g| / |g|, g of the deployed sampler")
    axes.set_ylabel("variance of one batch gradient / |g|²")
    x = np.geomspace(1e-4, right, 200)
    axes.plot(x, x**2, color=GREY, linewidth=0.9, linestyle=BALANCE, zorder=1)


def _plane_legend(figure: Figure, declared: set[bool], slowest: float) -> None:
    def entry(marker: str, size: float, label: str) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=size, color=GREY, label=label)

    entries = [entry("o", 6, "declared unbiased")] if False in declared else []
    entries += [entry("D", 5.3, "declared biased")] if True in declared else []
    if slowest > 0:
        for seconds in dict.fromkeys(_round(slowest * share) for share in (0.05, 0.3, 1.0)):
            entries.append(entry("o", math.sqrt(_size(seconds, slowest)), f"{seconds:g} s"))
    entries.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=BALANCE, label="bias² = variance"))
    figure.legend(
        handles=entries,
        loc="outside upper left",
        ncols=len(entries),
        handletextpad=0.9,
        columnspacing=2.0,
        borderpad=0.8,
    )


def _round(value: float) -> float:
    """To one digit, downwards."""
    unit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.floor(value / unit + 1e-9) * unit:.1g}")


def per_step(by_step: Mapping[str, pd.DataFrame], reference: str | None) -> Figure:
    """One panel per method: columns of gradients_steps.csv. reference: whose mean is the exact gradient."""
    exact = None if reference is None or reference not in by_step else _squares(by_step[reference])

    def draw(axes: Axes, name: str) -> None:
        if exact is not None:
            axes.plot(*exact, color=EXACT.colour, linewidth=1.3, zorder=1)
        for term, part in by_step[name].groupby("term"):
            s = term_look(str(term))
            values = part["variance"].where(part["variance"] > 0)
            marker = s.marker if len(part) < 4 else ""  # one step alone makes no line
            axes.plot(part["step"], values, color=s.colour, linestyle=s.line, marker=marker, linewidth=1.4)
        axes.yaxis.set_major_locator(LogLocator(numticks=6))

    across = "step of the chain, from noise to picture"
    figure = logarithmic_panels(list(by_step), draw, across, "variance / |g|²")
    terms = sorted({str(term) for frame in by_step.values() for term in frame["term"]})
    styles = {f"variance, {term}": term_look(term)._replace(marker="") for term in terms}
    if exact is not None:
        styles["|mean|², exact gradient"] = EXACT
    legend(figure, list(styles), styles, beside=0)
    return figure


def _squares(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Steps and |mean|², nan where nothing is left after the noise's part."""
    mean = frame["mean"].to_numpy(dtype=float)
    return frame["step"].to_numpy(), np.where(mean > 0, mean**2, np.nan)


def curves(summary: pd.DataFrame, cosine: pd.DataFrame, short: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """Known cosines by method, the highest first; of undecided ones only as far as was measured."""
    undecided = set(summary["method"][summary["deployed_verdict"] == "undecided"])
    found = {}
    for label, frame in cosine.groupby("method"):
        known = np.isfinite(frame["cosine_deployed"].to_numpy(dtype=float))
        if label in undecided:
            known &= frame["measured"].to_numpy(dtype=bool)
        if known.any():
            found[short[str(label)]] = cast(pd.DataFrame, frame[known])
    return dict(sorted(found.items(), key=lambda item: -float(item[1]["cosine_deployed"].iloc[-1])))


def against_samples(lines: Mapping[str, pd.DataFrame]) -> Figure:
    """One line per method: columns samples, cosine_deployed, measured (whether so many samples were)."""
    figure = new_figure(8.6, max(3.8, 0.4 + 0.18 * len(lines)))
    axes = figure.subplots()
    look = looks({name: name for name in lines})
    lowest = 0.0
    for name, frame in lines.items():
        s, seen = look[name], int(frame["measured"].to_numpy(dtype=bool).sum())
        x, y = (frame[key].to_numpy(dtype=float) for key in ("samples", "cosine_deployed"))
        axes.plot(x[:seen], y[:seen], color=s.colour, linestyle=s.line, marker=s.marker)
        beyond = slice(max(0, seen - 1), None)
        axes.plot(x[beyond], y[beyond], color=s.colour, linestyle=":", linewidth=1)
        lowest = min(lowest, float(y.min()))
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(lowest - 0.02, 1.02)
    axes.set_xlabel("samples averaged")
    axes.set_ylabel("cosine with the exact gradient")
    legend(figure, list(lines), look, beside=30)
    return figure
