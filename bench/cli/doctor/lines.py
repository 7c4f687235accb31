"""What an examination finds: lines with a mark. None of them may fail: a doctor that crashes helps nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Mark(Enum):
    """How a line stands out. BAD: not even the demo can run."""

    OK = ""
    NOTE = "yellow"
    BAD = "bold red"


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    text: str
    mark: Mark = Mark.OK


def examine(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The lines of an examination; if it fails, one that says so."""
    try:
        return list(look())
    except Exception as error:
        return [Finding(name, f"could not be examined: {type(error).__name__}: {error}", Mark.NOTE)]


def show(console: Console, title: str, lines: Iterable[Finding]) -> None:
    """A section: names left, texts right, folded to the terminal's width."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), title=title, title_justify="left")
    table.title_style = "bold"
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(line.name, Text(line.text, style=line.mark.value))
    console.print(table)
    console.print()
