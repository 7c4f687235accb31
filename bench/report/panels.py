"""Figures of one small panel per method, all on the same scales."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from bench.base.style import new_figure


def logarithmic_panels(
    names: Sequence[str], draw: Callable[[Axes, str], None], across: str, up: str
) -> Figure:
    """A panel under the name of each method, filled by `draw`; across, up: the labels of the axes.

    The vertical axis is logarithmic, the horizontal one counts whole steps.
    """
    columns = min(len(names), 3 if len(names) in (3, 5, 6) else 4)
    lines = math.ceil(len(names) / columns)
    figure = new_figure(9.0 if columns > 2 else 1.0 + 3.4 * columns, 0.7 + 1.75 * lines)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for place, axes in enumerate(panels):
        axes.set_visible(place < len(names))
        axes.tick_params(labelbottom=place + columns >= len(names))
    for axes, name in zip(panels, names, strict=False):
        axes.set_title(textwrap.fill(name, 96 // columns))
        axes.set_yscale("log")
        draw(axes, name)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    figure.supxlabel(across, fontsize=8.5)
    figure.supylabel(up, fontsize=8.5)
    return figure
