"""Tables of text that fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

NONE = "–"
TONES = {1: "green", -1: "red", 0: ""}


@dataclass(frozen=True)
class Column:
    """A header and one formatted cell per row; tone: +1 / -1 for a clear gain / loss, 0 otherwise.

    optional: left out of a terminal that is too narrow for it.
    """

    header: str
    cells: tuple[str, ...]
    tones: tuple[int, ...]
    left: bool = False
    optional: bool = False

    @property
    def width(self) -> int:
        """Terminal cells that the column needs."""
        return max(cell_len(text) for text in (self.header, *self.cells))


def texts(header: str, cells: Sequence[str], left: bool = False) -> Column:
    """A column of texts, none of them coloured."""
    return Column(header, tuple(cells), (0,) * len(cells), left)


def pack(names: Column, columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Split columns into tables that fit `width` terminal cells, each beginning with the names."""
    gap, edges = 3, 2
    tables: list[list[Column]] = []
    used = width
    for column in columns:
        if used + gap + column.width > width:
            if column.optional:
                continue
            tables.append([])
            used = edges + names.width
        tables[-1].append(column)
        used += gap + column.width
    return tables


def print_columns(
    console: Console,
    names: Column,
    columns: Sequence[Column],
    styles: Sequence[str],
    sections: Sequence[int] = (),
) -> None:
    """Print columns beside the names, in as many tables as the console's width asks for.

    styles: of rows. sections: numbers of the rows that a line is drawn above.
    """
    for some in pack(names, columns, console.width):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in (names, *some):
            table.add_column(column.header, justify="left" if column.left else "right", no_wrap=True)
        for row, style in enumerate(styles):
            if row in sections:
                table.add_section()
            table.add_row(*(Text(c.cells[row], TONES[c.tones[row]]) for c in (names, *some)), style=style)
        console.print(table)


def as_text(columns: Sequence[Column], tablefmt: str = "github") -> str:
    """All columns as one table; tablefmt: github or latex_booktabs."""
    align = ["left" if column.left else "right" for column in columns]
    body = list(zip(*(column.cells for column in columns), strict=True))
    headers = [column.header for column in columns]
    return tabulate(body, headers, tablefmt, colalign=align, disable_numparse=True)
