"""Where and when cells were run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.base.console import plain
from bench.report.load import CellResults

UNKNOWN = "unknown"
DIFFERENT_MACHINES = (
    "Seconds and memory of cells that different machines ran cannot be compared; forward equivalents can."
)


@dataclass(frozen=True)
class Origin:
    """Cells of one results directory that one machine ran. dates: of their last change, UTC."""

    directory: Path
    machine: str
    dates: str
    cells: tuple[str, ...]


def origins(cells: Iterable[CellResults]) -> list[Origin]:
    """Every directory and machine that cells are from, in order of first occurrence."""
    found: dict[tuple[Path, str], list[CellResults]] = {}
    for cell in cells:
        found.setdefault((cell.path.parent.parent, machine(cell)), []).append(cell)
    return [
        Origin(directory, where, dates(some), tuple(cell.id for cell in some))
        for (directory, where), some in found.items()
    ]


def show(found: Sequence[Origin], console: Console) -> None:
    """Print a line for each, where there are several."""
    if len(found) < 2:
        return
    for one in found:
        count = f"{len(one.cells)} cell{'' if len(one.cells) == 1 else 's'}"
        plain(console, f"from {one.directory}: {count}, {one.machine}, {one.dates}", wrap=True)
    if len({one.machine for one in found}) > 1:
        plain(console, DIFFERENT_MACHINES, "yellow", wrap=True)


def machine(cell: CellResults) -> str:
    """`node7 (NVIDIA H200)`: the host that ran a cell last, and its GPU or CPU, as far as they are known."""
    host, processor = cell.env.get("host"), cell.env.get("gpu") or cell.env.get("cpu")
    return f"{host or UNKNOWN} ({processor})" if processor else str(host or UNKNOWN)


def machines(cells: Iterable[CellResults]) -> str:
    """Those of all cells."""
    return ", ".join(dict.fromkeys(machine(cell) for cell in cells if cell.env)) or UNKNOWN


def dates(cells: Sequence[CellResults]) -> str:
    """`2026-11-28 to 2026-11-30`: the days of their last changes."""
    days = sorted({cell.updated[:10] for cell in cells if cell.updated})
    return UNKNOWN if not days else days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
