"""`bench report DIR`: the summary on the terminal, and report/ with tables, figures, pictures and a page.

Everything is derived from the cells and can be rebuilt; the same cells give the same tables byte for byte.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.analysis import tables
from bench.analysis.figures import all_figures
from bench.analysis.grid import picture_grid
from bench.analysis.groups import contests
from bench.analysis.load import Experiment, load
from bench.analysis.page import Part, render_page
from bench.analysis.summary import comparison, rows
from bench.errors import BenchError
from bench.store import ResultsDir, write_atomically


def write_report(results_dir: Path, console: Console) -> Path:
    """Print the summary and write report/. Returns the path of report.html.

    Works on what is there: unfinished and failed cells are shown as such. Raises BenchError if nothing is.
    """
    experiment = load(results_dir)
    parts = []
    for contest in contests(experiment):
        lines = rows(contest)
        console.print(f"\n[bold]{contest.title}[/bold]  {tables.headline(lines)}", highlight=False)
        tables.show(lines, console)
        figures = all_figures(contest)
        parts.append(Part(contest, lines, comparison(contest), figures, picture_grid(contest)))
    _tell_what_is_missing(experiment, console)
    if not parts:
        raise BenchError(f"{results_dir}: none of its {len(experiment.cells)} cells can be read yet")
    path = _write(experiment, parts, ResultsDir(results_dir).report)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)
    return path


def _tell_what_is_missing(experiment: Experiment, console: Console) -> None:
    for cell in experiment.unfinished():
        reason = f": {cell.problem}" if cell.problem else ""
        console.print(
            f"{cell.id} {cell.status} at step {cell.step}{reason}", style="red", markup=False, highlight=False
        )
    for note in experiment.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def _write(experiment: Experiment, parts: list[Part], folder: Path) -> Path:
    """All files of report/, the page last."""
    every = [row for part in parts for row in part.rows]
    write_atomically(folder / "summary.csv", _csv(tables.frame(every)))
    write_atomically(folder / "summary.md", _markdown(experiment, parts))
    write_atomically(
        folder / "summary.tex", "\n".join(tables.markdown(p.rows, "latex_booktabs") for p in parts) + "\n"
    )
    pairs = [part.comparison.assign(contest=part.contest.title) for part in parts]
    write_atomically(folder / "comparison.csv", _csv(pd.concat(pairs)))
    for part in parts:
        suffix = "" if len(parts) == 1 else "-" + re.sub(r"\W+", "_", part.contest.title).strip("_")
        for figure in part.figures:
            write_atomically(folder / f"{figure.name}{suffix}.svg", figure.svg)
            write_atomically(folder / f"{figure.name}{suffix}.png", figure.png)
        if part.grid:
            write_atomically(folder / f"grid{suffix}.png", part.grid)
    page = folder / "report.html"
    write_atomically(page, render_page(experiment, parts))
    return page


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.8g", lineterminator="\n")


def _markdown(experiment: Experiment, parts: list[Part]) -> str:
    text = []
    for part in parts:
        text += [f"## {part.contest.title}", tables.headline(part.rows), tables.markdown(part.rows)]
        text.append(tables.legend(part.rows))
    missing = [
        f"- `{c.id}`: {c.status} at step {c.step}. {c.problem}".rstrip() for c in experiment.unfinished()
    ]
    if missing:
        text += ["### What is not done", "\n".join(missing)]
    return "\n\n".join([*text, *(f"Note: {note}" for note in experiment.notes)]) + "\n"
