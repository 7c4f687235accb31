"""`bench report DIR`: the summary on the terminal, and report/ with tables, figures, pictures and a page.

Everything is derived from cells and gradient profiles and can be rebuilt; the same ones give the same tables
byte for byte.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from bench.base.console import plain, progress
from bench.base.errors import BenchError
from bench.base.files import existing, write_atomically
from bench.report import contests, overview, paper_section, target, unfinished
from bench.report.load import Results, has_profiles, load
from bench.report.origins import origins
from bench.report.origins import show as show_origins
from bench.report.page import render_page
from bench.report.section import Section
from bench.run.store import ResultsDir
from bench.run.work import kind_of

PAGE = "report.html"


def _gradients(results: Results) -> Section | None:
    """None where no gradients were ever profiled: those who have none need not wait for torch."""
    if not any(map(has_profiles, results.directories)):
        return None
    from bench.report import gradients

    return gradients.section(results)


# In the order of the page. A new part of the report is a module with such a function, and a line here.
SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    overview.section,
    contests.section,
    target.section,
    unfinished.section,
    _gradients,
)


def write_report(
    results_dir: Path,
    console: Console,
    out: Path | None = None,
    paper: bool = False,
    others: Sequence[Path] = (),
) -> Path:
    """Print the summary and write report/, and gradients*.csv beside it. Returns the path of report.html.

    out: where all files go instead. others: further results directories, which are reported on together; that
    takes `out`. paper: the RLR paper's tables beside the cells, which are printed instead of the summary, and
    stand first on the page. Works on what is there: unfinished and failed cells and gradient profiles are
    shown as such. Raises BenchError if nothing can be shown, or nothing written.
    """
    places = (results_dir, *others)
    _check_places(places, out)
    folder = ResultsDir(results_dir).report if out is None else out
    _check_writable(folder)
    progress(f"reading {', '.join(map(str, places))}")
    for place in places:
        for kind in map(kind_of, ResultsDir(place).cells()):
            if kind.not_reported is not None:
                raise BenchError(f"{place}: {kind.not_reported}")
    results = load(*places)
    beside = [paper_section.section(results)] if paper else []
    sections = [*beside, *(section for make in SECTIONS if (section := make(results)) is not None)]
    for section in beside or sections:
        section.show(console)
    show_origins(origins(results.cells), console)
    if not any(section.has_results for section in sections):
        raise BenchError(f"{', '.join(map(str, places))}: {_nothing(results)} can be read yet")
    progress("drawing figures and pictures")
    path = _write(results, sections, folder, results_dir if out is None else out)
    plain(console, f"report: {path}")
    return path


def _check_places(places: Sequence[Path], out: Path | None) -> None:
    """Several directories have no report of their own, and none is named twice."""
    resolved = [place.resolve() for place in places]
    for place, path in zip(places, resolved, strict=True):
        if resolved.count(path) > 1:
            raise BenchError(f"{place} is named twice: name every results directory once")
    if len(places) > 1 and out is None:
        raise BenchError(
            f"a report on {len(places)} results directories belongs to none of them: say where to write it: "
            f"python -m bench report {' '.join(shlex.quote(str(place)) for place in places)} --out DIRECTORY"
        )


def _nothing(results: Results) -> str:
    found = [f"none of its {len(results.cells)} cells"] if results.cells else []
    if any(map(has_profiles, results.directories)):
        found.append("no gradient profile")
    return " and ".join(found)


def _check_writable(folder: Path) -> None:
    place = existing(folder)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise BenchError(
            f"cannot write a report to {folder}: {place} is no directory that can be written to. Write it "
            "elsewhere: python -m bench report DIR --out DIRECTORY"
        )


def _write(results: Results, sections: list[Section], folder: Path, beside: Path) -> Path:
    """All files, the page last. Pictures and the paper's tables of an earlier report go: they may be of other
    cells."""
    if beside == results.path or (folder / PAGE).is_file():  # else they are nobody's report
        for old in (*folder.glob("*.png"), *folder.glob("*.svg"), *(folder / f for f in paper_section.FILES)):
            old.unlink(missing_ok=True)
    for n, section in enumerate(sections, start=1):
        progress(f"part {n} of {len(sections)}")
        section.write(folder, beside)
    if text := [text for section in sections if (text := section.markdown())]:
        write_atomically(folder / "summary.md", "\n\n".join(text) + "\n")
    page = folder / PAGE
    write_atomically(page, render_page(results, sections))
    return page
