"""Tables of text that fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

NONE = "–"


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
