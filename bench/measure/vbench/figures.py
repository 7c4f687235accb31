"""Figures of VBench scores: a radar of all dimensions, and bars of each one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.projections.polar import PolarAxes

from bench.base import style
from bench.base.style import Drawing, Look
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.results import ScoreRow

TOGETHER = 4  # models in one radar; more get a panel each
COLOURS = {"quality": "#274E6E", "semantic": "#6B3F12"}
OTHERS = "#C9C9C9"
RINGS = (0.25, 0.5, 0.75, 1.0)  # of VBench's range
ANGLES = [2 * math.pi * n / len(DIMENSIONS) for n in range(len(DIMENSIONS))]
# Colours of bars and panels: those of Okabe & Ito without black, then two darker ones.
PALETTE = (
    *(style.ORANGE, style.PURPLE, style.GREY, style.BLUE, style.GREEN, style.SKY, style.VERMILLION),
    *("#7B5D1E", "#5B3A78"),
)
# What the small radars call a dimension, if not by its first word.
SHORT = {"temporal_flickering": "flickering", "multiple_objects": "objects", "human_action": "action"}


def draw(directory: Path, rows: Sequence[ScoreRow]) -> list[Path]:
    """Draw both figures as svg and png. Returns the files."""
    with style.drawing():
        found = [radar(rows), bars(rows)]
    return style.write_drawings(directory, found)


def colours(rows: Sequence[ScoreRow]) -> dict[str, str]:
    """A colour for each model, different ones as far as they go; a method of this project keeps its own."""
    looks = style.own_looks()
    known = {row.name: looks[row.name.lower()].colour for row in rows if row.name.lower() in looks}
    free = [colour for colour in PALETTE if colour not in known.values()] or list(PALETTE)
    others = [row.name for row in rows if row.name not in known]
    return known | {name: free[n % len(free)] for n, name in enumerate(others)}


def radar(rows: Sequence[ScoreRow]) -> Drawing:
    """Normalised scores around a circle: up to four models in one, more in a panel each over the others."""
    figure = _together(rows) if len(rows) <= TOGETHER else _panels(rows)
    caption = "VBench scores, each normalised by its official range (0 at the centre, 1 at the rim)"
    return Drawing("vbench_radar", caption, **style.render(figure))


def _together(rows: Sequence[ScoreRow]) -> Figure:
    look = style.looks({row.name: row.name.lower() for row in rows})
    figure = style.new_figure(6.2, 5.6)
    axes = _circle(figure, (1, 1, 1), {name: d.title for name, d in DIMENSIONS.items()}, 8.0)
    for row in rows:
        _loop(axes, row, look[row.name], 1.6)
    for ring in RINGS:
        label = {"ha": "center", "va": "center", "fontsize": 6.5, "color": "#777777"}
        axes.text(math.pi / 16, ring, f"{100 * ring:.0f} %", label)
    style.legend(figure, [row.name for row in rows], look, beside=0)
    return figure


def _panels(rows: Sequence[ScoreRow]) -> Figure:
    columns = min(4, math.ceil(len(rows) / 2))
    lines = math.ceil(len(rows) / columns)
    labels = {name: SHORT.get(name, d.title.split()[0]) for name, d in DIMENSIONS.items()}
    figure = style.new_figure(2.75 * columns, 2.6 * lines + 0.4)
    for place, row in enumerate(rows, 1):
        colour = colours(rows)[row.name]
        axes = _circle(figure, (lines, columns, place), labels, 6.2)
        for other in rows:
            if other is not row:
                _loop(axes, other, Look(OTHERS, "", "-"), 0.6)
        _loop(axes, row, Look(colour, "", "-"), 1.7, filled=True)
        axes.set_title(row.name, loc="center", pad=20, fontsize=9.5, color=colour)
    figure.legend(handles=_context(), loc="outside lower center", ncols=4, fontsize=7.5)
    return figure


def _context() -> list[Line2D]:
    text = {"quality": "quality dimension", "semantic": "semantic dimension"}
    kinds = [Line2D([], [], color=COLOURS[k], marker="s", linestyle="", label=text[k]) for k in COLOURS]
    rings = Line2D([], [], color="#E4E4E4", label="rings: 25, 50, 75, 100 % of VBench's range")
    return [*kinds, Line2D([], [], color=OTHERS, linewidth=1.0, label="the other models"), rings]


def _circle(figure: Figure, place: tuple[int, int, int], labels: Mapping[str, str], size: float) -> PolarAxes:
    """An empty radar: quality dimensions on the right from the top on, semantic ones after them."""
    axes = cast(PolarAxes, figure.add_subplot(*place, projection="polar"))
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set(ylim=(0, 1), yticks=RINGS, yticklabels=[])
    axes.set_xticks(ANGLES, [""] * len(ANGLES))
    axes.spines["polar"].set_visible(False)
    for (name, dimension), angle in zip(DIMENSIONS.items(), ANGLES, strict=True):
        right, upper = math.sin(angle), math.cos(angle)
        across = "center" if abs(right) < 0.12 else ("left" if right > 0 else "right")
        along = "center" if abs(upper) < 0.7 else ("bottom" if upper > 0 else "top")
        colour = COLOURS[dimension.group]
        axes.text(angle, 1.06, labels[name], ha=across, va=along, fontsize=size, color=colour)
    return axes


def _loop(axes: PolarAxes, row: ScoreRow, look: Look, width: float, filled: bool = False) -> None:
    """A model's closed line; it is broken where a score is missing."""
    points = [
        min(1.0, max(0.0, d.normalised(row.scores[name]))) if name in row.scores else math.nan
        for name, d in DIMENSIONS.items()
    ]
    around, closed = [*ANGLES, 2 * math.pi], [*points, points[0]]
    line = {"color": look.colour, "linestyle": look.line, "marker": look.marker}
    axes.plot(around, closed, linewidth=width, markeredgewidth=0, zorder=3 if filled else 2, **line)
    if filled and not any(map(math.isnan, points)):
        axes.fill(around, closed, color=look.colour, alpha=0.14, linewidth=0, zorder=2)


def bars(rows: Sequence[ScoreRow]) -> Drawing:
    """A panel for each dimension that was scored, a bar for each model, in percent."""
    present = [d for d in DIMENSIONS.values() if any(d.name in row.scores for row in rows)]
    colour = colours(rows)
    columns = min(4, len(present))
    lines = math.ceil(len(present) / columns)
    figure = style.new_figure(1.4 + 2.0 * columns, 0.35 + lines * (0.5 + 0.165 * len(rows)))
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, dimension in zip(panels, present, strict=False):
        _bars(axes, rows, dimension.name, colour)
        axes.set_title(dimension.title, fontsize=8.0, color=COLOURS[dimension.group])
    for axes in panels[len(present) :]:
        axes.set_visible(False)
    return Drawing("vbench_bars", "VBench scores of each dimension, percent", **style.render(figure))


def _bars(axes: Axes, rows: Sequence[ScoreRow], name: str, colour: Mapping[str, str]) -> None:
    values = [100 * row.scores[name] if name in row.scores else math.nan for row in rows]
    known = [v for v in values if not math.isnan(v)]
    official = [v for v, row in zip(values, rows, strict=True) if name not in row.notes and not math.isnan(v)]
    places = range(len(rows))
    axes.barh(places, values, color=[colour[row.name] for row in rows], height=0.72)
    axes.set(
        yticks=list(places),
        yticklabels=[row.name for row in rows],
        xlim=(0, 1.28 * max(*known, 0.01)),
        xticks=[],
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0, labelsize=7.5)
    for place, number in enumerate(values):
        if math.isnan(number):
            axes.text(0, place, " not scored", va="center", fontsize=7.0, color="#8A8A8A")
            continue
        partial = name in rows[place].notes  # a score that is not VBench's is nobody's to beat
        best = not partial and len(official) > 1 and number == max(official)
        text, weight = f" {number:.2f}{'*' * partial}", "bold" if best else "normal"
        axes.text(max(number, 0), place, text, va="center", fontsize=7.0, weight=weight, color="#222222")
