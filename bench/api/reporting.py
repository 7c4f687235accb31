"""`bench.report`."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from bench.api import words


def report(
    directory: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, paper: bool = False
) -> Path:
    """Write the report of a results directory, as `bench report`, and return the path of report.html.

    out: a directory for it, by default DIRECTORY/report. paper: with the RLR paper's tables. No tables are
    printed: `bench.load(directory)` shows them. Raises BenchError if there is nothing to report.
    """
    said = words.call(report, locals())
    from bench.report.report import write_report

    with words.asked_by(said, None):
        return write_report(Path(directory), Console(quiet=True), None if out is None else Path(out), paper)
