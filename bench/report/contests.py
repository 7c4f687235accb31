"""The report's section on trained cells: every contest's tables, figures, pictures and settings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from bench.base.files import write_atomically
from bench.base.filmstrip import FRAME_MS
from bench.base.labels import listed
from bench.base.style import Drawing, write_drawings
from bench.report import tables
from bench.report.chart_data import chart_data
from bench.report.figures import all_figures
from bench.report.grid import Grid, grid_of, picture_sheets
from bench.report.groups import Contest
from bench.report.load import Results
from bench.report.pictures import shots
from bench.report.section import Section
from bench.report.sheet import Sheet
from bench.report.summary import Line, comparison, contest_lines
from bench.report.target import target_of
from bench.report.words import headline, legend

UNFOLDED = 4  # prompts whose pictures the page shows at once


def section(results: Results) -> Contests | None:
    """All contests of a results directory; None if it holds no cell that can be read."""
    found = [ContestView(contest, lines, target_of(results)) for contest, lines in contest_lines(results)]
    return Contests(found) if found else None


@dataclass(frozen=True, eq=False)
class ContestView:
    """Everything that is shown of one contest. What takes long is made when it is asked for."""

    contest: Contest
    lines: Sequence[Line]
    target: float | None = None

    @cached_property
    def figures(self) -> list[Drawing]:
        """All figures of the contest."""
        return all_figures(self.contest)

    @cached_property
    def grid(self) -> Grid:
        """Its pictures before and after training."""
        return grid_of(self.contest)

    @cached_property
    def sheets(self) -> list[Sheet]:
        """The same on sheets."""
        return picture_sheets(self.grid)

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """How often each method beats each other one."""
        return comparison(self.contest)

    @property
    def page(self) -> dict[str, Any]:
        """What the page's template asks for."""
        names, groups = tables.column_groups(self.lines)
        seeds = max(len(line.group.cells) for line in self.lines)
        return {
            "title": self.contest.title,
            "reward": self.contest.reward,
            "headline": headline(self.lines),
            "legend": legend(self.lines),
            "lines": self.lines,
            "names": names,
            "tables": groups,
            "charts": chart_data(self.contest, self.lines, self.target),
            "prompts": shots(*self.grid),
            "unfolded": UNFOLDED,
            "milliseconds": FRAME_MS,
            "grid_note": " Of several seeds the first one is shown." if seeds > 1 else "",
            "matrix": _matrix(self.comparison),
            "settings": [_settings(line) for line in self.lines if not line.is_base],
            "shared": _shared(self.contest),
        }


class Contests(Section):
    """A table, figures and pictures per contest."""

    template = "contests.html.j2"
    has_charts = True

    def __init__(self, views: Sequence[ContestView]) -> None:
        self.views = views

    def show(self, console: Console) -> None:
        """Print the result in a sentence and the summary of each."""
        for view in self.views:
            console.print(f"\n[bold]{view.contest.title}[/bold]  {headline(view.lines)}", highlight=False)
            tables.print_summary(view.lines, console)

    def write(self, folder: Path, beside: Path) -> None:
        """Write summary.csv, summary.tex, comparison.csv, figures and pictures."""
        every = [line for view in self.views for line in view.lines]
        latex = "\n".join(tables.markdown(view.lines, "latex_booktabs") for view in self.views)
        pairs = [view.comparison.assign(contest=view.contest.title) for view in self.views]
        write_atomically(folder / "summary.csv", _csv(tables.frame(every)))
        write_atomically(folder / "summary.tex", latex + "\n")
        write_atomically(folder / "comparison.csv", _csv(pd.concat(pairs)))
        for view in self.views:
            title = re.sub(r"\W+", "_", view.contest.title).strip("_")
            suffix = "" if len(self.views) == 1 else f"-{title}"
            write_drawings(folder, view.figures, suffix)
            for n, sheet in enumerate(view.sheets, start=1):
                write_atomically(folder / f"grid{suffix}{'' if n == 1 else f'_{n}'}.png", sheet.png)

    def markdown(self) -> str:
        """The result in a sentence, the table, and how to read it."""
        text: list[str] = []
        for view in self.views:
            text += [f"## {view.contest.title}", headline(view.lines), tables.markdown(view.lines)]
            text.append(legend(view.lines))
        return "\n\n".join(text)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.8g", lineterminator="\n")


def _matrix(comparison: pd.DataFrame) -> dict[str, Any]:
    """Labels and rows of coloured cells from the list of pairs."""
    found = {(pair["method"], pair["other"]): pair for pair in comparison.to_dict("records")}
    labels = list(dict.fromkeys(a for a, _ in found))
    rows = [
        {"label": a, "cells": [_pair_cell(found[a, b]) if a != b else _NO_PAIR for b in labels]}
        for a in labels
    ]
    return {"labels": labels, "rows": rows}


_NO_PAIR = {"text": "", "tone": "none", "by": "0", "title": ""}


def _pair_cell(pair: Mapping[Any, Any]) -> dict[str, str]:
    """Blue where the row wins, orange where it loses, white at one half."""
    p = float(pair["probability"])
    if math.isnan(p):
        return {"text": "–", "tone": "", "by": "0", "title": "no common pictures"}
    return {
        "text": f"{p:.0%}",
        "tone": "won" if p > 0.5 else "lost",
        "by": f"{abs(p - 0.5):.2f}",
        "title": f"95 % interval {pair['low']:.0%} to {pair['high']:.0%}",
    }


def _settings(line: Line) -> dict[str, str]:
    cell = next(iter([*line.group.cells, *line.group.left_out]))
    return {
        "label": line.group.label,
        "method": listed(cell.training["method"]["config"]),
        "train": listed(cell.training["train"]),
    }


def _shared(contest: Contest) -> list[tuple[str, str]]:
    """What all cells of a contest have in common."""
    members = [*([contest.base] if contest.base else []), *contest.groups]
    config = next(c.config for g in members for c in [*g.cells, *g.left_out])
    rewards = [f"{r['name']} ({listed(r['config']) or 'defaults'})" for r in config["eval_rewards"]]
    return [
        ("model", f"{config['model']['name']} ({listed(config['model']['config'])})"),
        ("prompts", str(config["prompts"])),
        ("evaluation", listed(config["eval"])),
        ("rewards", "; ".join(rewards)),
        ("threads per cell", str(config["threads"])),
        ("digests", listed(config["digests"])),
    ]
