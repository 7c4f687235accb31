"""How things look: a colour, marker and line per method, safe for colour-blind readers (Okabe & Ito 2008)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.base import registry
from bench.base.files import write_atomically

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#6E6E6E"
SILVER = "#9A9A9A"
DPI = 200


class Look(NamedTuple):
    """What a method's line looks like."""

    colour: str
    marker: str
    line: Any  # a matplotlib line style


DASHED, DOTTED, MIXED = (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5))
COLOURS = {
    "black": BLACK,
    "orange": ORANGE,
    "sky": SKY,
    "green": GREEN,
    "blue": BLUE,
    "vermillion": VERMILLION,
    "purple": PURPLE,
    "silver": SILVER,
}
LINES: dict[str, Any] = {"solid": "-", "dashed": DASHED, "dotted": DOTTED, "mixed": MIXED}
SPARE = [
    Look(colour, marker, line)
    for line, marker in ((DOTTED, "<"), (MIXED, ">"), (DASHED, "X"))
    for colour in (GREEN, VERMILLION, BLUE, ORANGE, PURPLE, SKY, BLACK)
]
TERMS = {
    "fo": Look(BLUE, "o", "-"),
    "ho": Look(VERMILLION, "s", DASHED),
    "zo": Look(GREEN, "^", DOTTED),
    "match": Look(PURPLE, "P", MIXED),
}

SPARE_TERM = Look(GREY, "D", "-")

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "svg.hashsalt": "bench",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Drawing:
    """A figure ready to be written: file name without extension, caption, and its bytes in both formats."""

    name: str
    caption: str
    svg: bytes
    png: bytes


@cache
def own_looks() -> dict[str, Look]:
    """The look of every method in methods/ that says how it is drawn: `look = (colour, marker, line)`."""
    said = {name: entry.declared("look") for name, entry in registry.own("method").items()}
    return {
        name: Look(COLOURS[look[0]], look[1], LINES[look[2]])
        for name, look in said.items()
        if isinstance(look, tuple) and len(look) == 3 and look[0] in COLOURS and look[2] in LINES
    }


def looks(methods: dict[str, str]) -> dict[str, Look]:
    """Label → look, from label → method. A method's look is its first label's, others have spare ones."""
    known = own_looks()
    own = {method: label for label, method in sorted(methods.items(), reverse=True) if method in known}
    found = {label: known[method] for method, label in own.items()}
    spare = list(SPARE)
    for label in sorted(methods.keys() - found.keys()):
        colours = [look.colour for look in found.values()]
        found[label] = min(spare, key=lambda look: colours.count(look.colour))
        spare = [look for look in spare if look != found[label]] or list(SPARE)
    return found


@contextmanager
def drawing() -> Iterator[None]:
    """Within it, figures are drawn in this project's style, whatever matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for key, value in _RC.items():
            matplotlib.rcParams[cast(Any, key)] = value
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches; no pyplot, no display."""
    return Figure(figsize=(width, height), layout="constrained")


def term_look(term: str) -> Look:
    """How a gradient term (`fo`, `ho`, `zo`, or a plug-in's own) is drawn."""
    return TERMS.get(term, SPARE_TERM)


def legend(figure: Figure, labels: Sequence[str], look: dict[str, Look], beside: int) -> None:
    """One entry per label, in their order: on the right if no label has more letters than `beside`, else on
    top."""
    entries = [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.line, markeredgewidth=0, label=label)
        for label, s in ((label, look[label]) for label in labels)
    ]
    longest = max(map(len, labels))
    if longest <= beside:
        figure.legend(handles=entries, loc="outside right upper", handlelength=2.6)
    else:
        room = 900 if not beside else 600  # pixels of figure width; an entry takes about 45, and 7 per letter
        columns = max(1, min(len(entries), room // (45 + 7 * longest)))
        figure.legend(
            handles=entries, loc="outside upper left", ncols=columns, handlelength=2.4, columnspacing=1.2
        )


def render(figure: Figure) -> dict[str, bytes]:
    """The figure as svg and png, the same bytes each time. It is laid out once, for both."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return {"svg": _saved(figure, "svg", {"Date": None}), "png": _saved(figure, "png", {"Software": None})}


def _saved(figure: Figure, extension: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=extension, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def write_drawings(directory: Path, drawings: Iterable[Drawing], suffix: str = "") -> list[Path]:
    """Write `<name><suffix>.svg` and `.png` of each; returns the files."""
    files = []
    for drawn in drawings:
        for extension, content in (("svg", drawn.svg), ("png", drawn.png)):
            files.append(directory / f"{drawn.name}{suffix}.{extension}")
            write_atomically(files[-1], content)
    return files
