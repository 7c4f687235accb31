"""The report's section on what is not done, and why, and on what could not be read."""

from __future__ import annotations

from rich.console import Console

from bench.base.console import plain
from bench.report.load import Results
from bench.report.section import Section


def section(results: Results) -> Unfinished | None:
    """The cells that are not done and the notes on reading; None if there is neither."""
    found = Unfinished(results)
    return found if found.cells or found.notes else None


class Unfinished(Section):
    """Cells that failed, were stopped or still run."""

    template = "unfinished.html.j2"
    has_results = False

    def __init__(self, results: Results) -> None:
        self.cells, self.notes = results.unfinished(), results.notes

    def show(self, console: Console) -> None:
        """Print a line for each cell and note."""
        for cell in self.cells:
            reason = f": {cell.problem}" if cell.problem else ""
            plain(console, f"{cell.id} {cell.status} at step {cell.step}{reason}", "red", wrap=True)
        for note in self.notes:
            plain(console, f"note: {note}", wrap=True)

    def markdown(self) -> str:
        """A list of the cells, and the notes."""
        cells = [f"- `{c.id}`: {c.status} at step {c.step}. {c.problem}".rstrip() for c in self.cells]
        text = ["### What is not done", "\n".join(cells)] if cells else []
        return "\n\n".join([*text, *(f"Note: {note}" for note in self.notes)])
