"""`bench.report`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.api import words
from bench.base.errors import BenchError


def report(
    directories: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    paper: bool = False,
) -> Path:
    """Write the report of one or several results directories, as `bench report`. The path of report.html.

    out: a directory for it, by default DIRECTORY/report, and needed for several. paper: with the
    RLR paper's tables. No tables are printed: `bench.load(directory)` shows them. Raises BenchError if there
    is nothing to report.
    """
    said = words.call(report, locals())
    from bench.report.report import write_report

    given = [directories] if isinstance(directories, str | os.PathLike) else directories
    if not given:
        raise BenchError("bench.report: names no results directory")
    with words.asked_by(said, None):
        first, *others = [Path(one) for one in given]
        return write_report(first, Console(quiet=True), None if out is None else Path(out), paper, others)
