"""How `Results` look in a prompt and in a notebook: the report's sentences and tables."""

from __future__ import annotations

import io
from collections import Counter
from html import escape

from rich.console import Console

from bench.base.columns import as_text, print_columns
from bench.report.load import Results
from bench.report.summary import contest_lines
from bench.report.tables import column_groups
from bench.report.words import headline, legend

WIDTH = 100  # columns of text


def text(loaded: Results) -> str:
    """Where it is, how far it is, and each contest's held-out rewards."""
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, force_jupyter=False, force_terminal=False)
    for contest, lines in contest_lines(loaded):
        console.print(f"\n{contest.title}: {headline(lines)}", highlight=False, markup=False)
        names, groups = column_groups(lines)
        print_columns(console, names, groups[0].columns, [""] * len(lines))
    return "\n".join((_standing(loaded), *(line.rstrip() for line in stream.getvalue().splitlines())))


def html(loaded: Results) -> str:
    """The same with all tables, and how to read them."""
    parts = [f"<p>{escape(_standing(loaded))}</p>"]
    for contest, lines in contest_lines(loaded):
        parts.append(f"<p><b>{escape(contest.title)}</b> {escape(headline(lines))}</p>")
        names, groups = column_groups(lines)
        for group in groups:
            parts += [f"<p>{escape(group.title)}</p>", as_text([names, *group.columns], "html")]
        parts.append(f"<details><summary>How to read it</summary>{escape(legend(lines))}</details>")
    return "\n".join(parts)


def _standing(loaded: Results) -> str:
    """`Results of results/demo: 11 cells, 10 done, 1 failed`."""
    counts = Counter(cell.status for cell in loaded.cells)
    states = "".join(f", {count} {state}" for state, count in sorted(counts.items()))
    notes = f"; {len(loaded.notes)} left out: see `notes`" if loaded.notes else ""
    return f"Results of {loaded.path}: {len(loaded.cells)} cells{states}{notes}"
