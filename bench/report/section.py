"""What every part of the report has in common: it is printed, written beside the page, and shown on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tabulate import tabulate

from bench.base.columns import Column, print_columns


class Section:
    """A part of the report. A subclass is made of a results directory and says what it adds to each place.

    template: a file in templates/, which sees the section under the name `section`.
    """

    template: str
    has_results = True  # whether this is enough to make a report of
    has_charts = False  # whether the page needs what draws them

    @property
    def count(self) -> str:
        """How much there is of what it shows, for the head of the page: `3 gradient profiles`."""
        return ""

    @property
    def environments(self) -> Sequence[Mapping[str, Any]]:
        """What env.json of each process says that measured what is shown."""
        return ()

    def show(self, console: Console) -> None:
        """Print it; nothing by default."""

    def write(self, folder: Path, beside: Path) -> None:
        """Write files of its own; none by default. folder: the report's. beside: of gradients*.csv."""

    def markdown(self) -> str:
        """What it adds to report/summary.md."""
        return ""


@dataclass(frozen=True, eq=False)
class TableSection(Section):
    """A section that is one table. muted: whether a row stands for the untuned model."""

    title: str
    names: Column
    columns: tuple[Column, ...]
    muted: tuple[bool, ...]

    template = "table.html.j2"

    @property
    def header(self) -> list[str]:
        """Headers of all columns."""
        return [self.names.header, *(c.header for c in self.columns)]

    @property
    def lines(self) -> list[list[str]]:
        """Texts of all rows."""
        return [[self.names.cells[n], *(c.cells[n] for c in self.columns)] for n in range(len(self.muted))]

    def show(self, console: Console) -> None:
        """Print it, in as many tables as the width of the terminal asks for."""
        console.print(f"\n[bold]{self.title}[/bold]")
        print_columns(console, self.names, self.columns, ["dim" if muted else "" for muted in self.muted])

    def markdown(self) -> str:
        """The table under its title."""
        return f"## {self.title}\n\n" + tabulate(self.lines, self.header, "github", disable_numparse=True)
