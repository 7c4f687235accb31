"""`bench report DIR`: the summary on the terminal, and report/ with tables, figures, pictures and a page.

Everything is derived from cells and gradient profiles and can be rebuilt; the same ones give the same tables
byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench.base.console import plain, progress
from bench.base.errors import BenchError
from bench.base.files import existing, write_atomically
from bench.report import contests, overview, paper_section, unfinished
from bench.report.load import Results, has_profiles, load
from bench.report.page import render_page
from bench.report.section import Section
from bench.run.store import ResultsDir
from bench.run.work import kind_of

PAGE = "report.html"


def _gradients(results: Results) -> Section | None:
    """None where no gradients were ever profiled: those who have none need not wait for torch."""
    if not has_profiles(results.path):
        return None
    from bench.report import gradients

    return gradients.section(results)


# In the order of the page. A new part of the report is a module with such a function, and a line here.
SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    overview.section,
    contests.section,
    unfinished.section,
    _gradients,
)


def write_report(results_dir: Path, console: Console, out: Path | None = None, paper: bool = False) -> Path:
    """Print the summary and write report/, and gradients*.csv beside it. Returns the path of report.html.

    out: where all files go instead. paper: the RLR paper's tables beside the cells, which are printed instead
    of the summary, and stand first on the page. Works on what is there: unfinished and failed cells and
    gradient profiles are shown as such. Raises BenchError if nothing can be shown, or nothing written.
    """
    folder = ResultsDir(results_dir).report if out is None else out
    _check_writable(folder)
    progress(f"reading {results_dir}")
    for kind in map(kind_of, ResultsDir(results_dir).cells()):
        if kind.not_reported is not None:
            raise BenchError(f"{results_dir}: {kind.not_reported}")
    results = load(results_dir)
    beside = [paper_section.section(results)] if paper else []
    sections = [*beside, *(section for make in SECTIONS if (section := make(results)) is not None)]
    for section in beside or sections:
        section.show(console)
    if not any(section.has_results for section in sections):
        raise BenchError(f"{results_dir}: {_nothing(results)} can be read yet")
    progress("drawing figures and pictures")
    path = _write(results, sections, folder, results_dir if out is None else out)
    plain(console, f"report: {path}")
    return path


def _nothing(results: Results) -> str:
    found = [f"none of its {len(results.cells)} cells"] if results.cells else []
    if has_profiles(results.path):
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
