"""`bench report DIR`: the summary on the terminal, and report/ with tables, figures, pictures and a page.

Everything is derived from cells and gradient profiles and can be rebuilt; the same ones give the same tables
byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.style import Drawing
from bench.report import overview, tables
from bench.report.figures import all_figures
from bench.report.grid import picture_sheets
from bench.report.groups import contests
from bench.report.load import Experiment, has_profiles, load
from bench.report.page import Part, render_page
from bench.report.summary import comparison, rows
from bench.run.store import ResultsDir
from bench.run.work import kind_of

if TYPE_CHECKING:
    from bench.report.gradients import Profiles


def write_report(results_dir: Path, console: Console) -> Path:
    """Print the summary and write report/, and gradients*.csv beside it. Returns the path of report.html.

    Works on what is there: unfinished and failed cells and gradient profiles are shown as such. Raises
    BenchError if nothing can be shown.
    """
    for kind in map(kind_of, ResultsDir(results_dir).cells()):
        if kind.not_reported is not None:
            raise BenchError(f"{results_dir}: {kind.not_reported}")
    experiment, profiles = load(results_dir), _profiles(results_dir)
    parts = []
    for contest in contests(experiment):
        lines = rows(contest)
        console.print(f"\n[bold]{contest.title}[/bold]  {tables.headline(lines)}", highlight=False)
        tables.show(lines, console)
        figures = all_figures(contest)
        parts.append(Part(contest, lines, comparison(contest), figures, picture_sheets(contest)))
    glance = overview.overview([(part.contest, part.rows) for part in parts])
    if glance is not None:
        overview.show(glance, console)
    _tell_what_is_missing(experiment, console)
    if profiles is not None:
        _show_profiles(results_dir, profiles, console)
    if not parts and not (profiles and profiles.tables):
        raise BenchError(f"{results_dir}: {_nothing(experiment, profiles)} can be read yet")
    path = _write(experiment, parts, profiles, ResultsDir(results_dir).report)
    plain(console, f"report: {path}")
    return path


def _profiles(results_dir: Path) -> Profiles | None:
    """None where no gradients were ever profiled; those who have none need not wait for torch."""
    if not has_profiles(results_dir):
        return None
    from bench.report.gradients import load_profiles

    return load_profiles(results_dir)


def _show_profiles(results_dir: Path, profiles: Profiles, console: Console) -> None:
    from bench.measure.gradients.show import show
    from bench.measure.gradients.table import write

    if profiles.tables:
        write(results_dir, profiles.rows)
        show(profiles.rows, console)
    for one in profiles.unfinished:
        reason = f": {one.reason}" if one.reason else ""
        text = f"{one.id} {one.state} after {one.draws} draws{reason}"
        plain(console, text, "red")


def _nothing(experiment: Experiment, profiles: Profiles | None) -> str:
    """What is there, and of no use."""
    found = [f"none of its {len(experiment.cells)} cells"] if experiment.cells else []
    if profiles is not None:
        found.append("no gradient profile")
    return " and ".join(found)


def _tell_what_is_missing(experiment: Experiment, console: Console) -> None:
    for cell in experiment.unfinished():
        reason = f": {cell.problem}" if cell.problem else ""
        plain(console, f"{cell.id} {cell.status} at step {cell.step}{reason}", "red", wrap=True)
    for note in experiment.notes:
        plain(console, f"note: {note}", wrap=True)


def _write(experiment: Experiment, parts: list[Part], profiles: Profiles | None, folder: Path) -> Path:
    """All files of report/, the page last. Pictures of an earlier report go: they may be of other parts."""
    for old in (*folder.glob("*.png"), *folder.glob("*.svg")):
        old.unlink()
    if parts:
        _write_cells(experiment, parts, folder)
    if profiles is not None:
        write_atomically(folder / "gradients.md", profiles.markdown)
        for table in profiles.tables:
            _write_figures(table.figures, table.suffix, folder)
    page = folder / "report.html"
    glance = overview.overview([(part.contest, part.rows) for part in parts])
    write_atomically(page, render_page(experiment, parts, profiles, glance))
    return page


def _write_cells(experiment: Experiment, parts: list[Part], folder: Path) -> None:
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
        _write_figures(part.figures, suffix, folder)
        for n, sheet in enumerate(part.sheets, start=1):
            write_atomically(folder / f"grid{suffix}{'' if n == 1 else f'_{n}'}.png", sheet.png)


def _write_figures(figures: Sequence[Drawing], suffix: str, folder: Path) -> None:
    for figure in figures:
        write_atomically(folder / f"{figure.name}{suffix}.svg", figure.svg)
        write_atomically(folder / f"{figure.name}{suffix}.png", figure.png)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, float_format="%.8g", lineterminator="\n")


def _markdown(experiment: Experiment, parts: list[Part]) -> str:
    glance = overview.overview([(part.contest, part.rows) for part in parts])
    text = [] if glance is None else [overview.markdown(glance)]
    for part in parts:
        text += [f"## {part.contest.title}", tables.headline(part.rows), tables.markdown(part.rows)]
        text.append(tables.legend(part.rows))
    missing = [
        f"- `{c.id}`: {c.status} at step {c.step}. {c.problem}".rstrip() for c in experiment.unfinished()
    ]
    if missing:
        text += ["### What is not done", "\n".join(missing)]
    return "\n\n".join([*text, *(f"Note: {note}" for note in experiment.notes)]) + "\n"
