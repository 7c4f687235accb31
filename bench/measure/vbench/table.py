"""The table of VBench scores: `python -m bench vbench table`. Dimensions down, models across, in percent."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import tabulate

from bench.base.columns import NONE, pack, texts
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.measure.vbench import aggregate, figures
from bench.measure.vbench.aggregate import AGGREGATES, Check
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.entries import Unit, write_notes
from bench.measure.vbench.results import PRINTED, SUFFIX, Row, read

TITLES = {
    "quality": "Quality",
    "semantic": "Semantic",
    "total": "Total",
    "weighted_average": "Weighted average",
}
HOME = Path("results/vbench")
MARK, MISSING = "*", "missing"


def table(console: Console, paths: Sequence[Path], out: Path, unit: Unit = "auto", draw: bool = True) -> None:
    """Print the table of these files and write it to OUT, with its figures unless told not to draw.

    No paths: every model that was scored under results/vbench. Raises BenchError.
    """
    chosen = list(paths) or sorted({p.parents[1] for p in HOME.glob(f"*/scores/*{SUFFIX}")})
    if not chosen:
        raise BenchError(
            f"nothing was scored under {HOME} yet: give result files, or score videos:  "
            "python -m bench vbench score DIRECTORY"
        )
    rows = read(chosen, unit)
    show(console, rows)
    written = [*write(out, rows), *(figures.draw(out, rows) if draw else ())]
    plain(console, f"wrote {', '.join(path.name for path in written)} to {out}")


def shown(rows: Sequence[Row]) -> list[str]:
    """The lines of the table: dimensions and aggregates that at least one row has, or should have."""
    found = [name for name in DIMENSIONS if any(row.whole or name in row.scores for row in rows)]
    return [*found, *(name for name in AGGREGATES if _wanted(name, rows))]


def _wanted(name: str, rows: Sequence[Row]) -> bool:
    if any(name in row.printed for row in rows):
        return True
    return any(aggregate.FUNCTIONS[name](row.scores) is not None for row in rows)


def value(row: Row, name: str) -> float | None:
    """A dimension's score or an aggregate, as a fraction."""
    if name in DIMENSIONS:
        return row.scores.get(name)
    return aggregate.FUNCTIONS[name](row.scores)


def cell(row: Row, name: str) -> str:
    """`95.44`, with a star where it is not the official score, or rests on one that is not."""
    number = value(row, name)
    if number is None:
        return MISSING if row.whole and name in DIMENSIONS else NONE
    rests = {name, *aggregate.PARTS.get(name, ())} & set(row.notes)
    return f"{100 * number:.2f}{MARK if rests else ''}"


def title(name: str) -> str:
    """What a line of the table is called."""
    return TITLES[name] if name in TITLES else DIMENSIONS[name].title


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the table in as many pieces as the terminal's width asks for, and what there is to say of it."""
    lines = shown(rows)
    names = texts("%", [title(line) for line in lines], left=True)
    columns = [texts(_short(row.name), [cell(row, line) for line in lines]) for row in rows]
    best = {c.header: _best(rows, lines, n) for n, c in enumerate(columns)}
    for piece in pack(names, columns, console.width):
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in (names, *piece):
            grid.add_column(column.header, justify="left" if column.left else "right", no_wrap=True)
        for n, line in enumerate(lines):
            if line in AGGREGATES and (n == 0 or lines[n - 1] not in AGGREGATES):
                grid.add_section()
            values = (Text(c.cells[n], "bold green" if n in best[c.header] else "") for c in piece)
            grid.add_row(Text(title(line), "bold" if line in AGGREGATES else ""), *values)
        console.print(grid)
    for remark in remarks(rows):
        console.print(Text(remark), soft_wrap=False)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"


def _best(rows: Sequence[Row], lines: Sequence[str], place: int) -> set[int]:
    """Numbers of the lines in which this row is the best of several, of scores that are VBench's own."""
    found: set[int] = set()
    for n, line in enumerate(lines):
        official = [value(row, line) if MARK not in cell(row, line) else None for row in rows]
        values = [v for v in official if v is not None]
        if len(values) > 1 and official[place] == max(values) > min(values):
            found.add(n)
    return found


def remarks(rows: Sequence[Row]) -> list[str]:
    """What is missing, what is not official, and which rows disagree with their printed aggregates."""
    found: list[str] = []
    for row in rows:
        lacking = [d.title for d in DIMENSIONS.values() if d.name not in row.scores]
        if lacking and len(lacking) < len(DIMENSIONS) - 6:  # a table of fewer has no total to miss
            found.append(f"{row.name}: no total without {', '.join(lacking)}")
        elif lacking and row.whole:
            found.append(f"{row.name}: {len(lacking)} of {len(DIMENSIONS)} dimensions are missing: no total")
        notes: dict[str, list[str]] = {}
        for name, note in row.notes.items():
            notes.setdefault(note, []).append(DIMENSIONS[name].title)
        found += [f"{MARK} {row.name}: {note}: {', '.join(names)}" for note, names in notes.items()]
    verified = [(row, check) for row in rows for check in checks(row)]
    wrong = [(row, check) for row, check in verified if not check.consistent]
    if verified:
        found.append(
            f"{len(verified) - len(wrong)} of {len(verified)} printed aggregates follow from the printed "
            "dimensions, as far as their rounding lets one say"
        )
    found += [
        f"{row.name}: {TITLES[c.aggregate]} is printed as {100 * c.printed:.2f}, its dimensions give "
        f"{100 * c.recomputed:.2f} ({100 * c.difference:+.3f}; rounding explains ±{100 * c.allowed:.3f})"
        for row, c in wrong
    ]
    return found


def checks(row: Row) -> list[Check]:
    """A row's printed aggregates beside the recomputed ones."""
    return aggregate.checks(row.scores, row.printed, row.half_units)


def write(out: Path, rows: Sequence[Row]) -> list[Path]:
    """vbench.csv (a line per model, readable again), .md and .tex (a line per dimension)."""
    content = {
        "csv": frame(rows).to_csv(index=False),
        "md": _markdown(rows),
        "tex": _grid(rows, "latex_booktabs"),
    }
    files = []
    for extension, text in content.items():
        files.append(out / f"vbench.{extension}")
        write_atomically(files[-1], text if text.endswith("\n") else text + "\n")
    return files


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per model in percent, with what is not official of it; empty where there is no score."""
    lines = shown(rows)
    back = {name: column for column, name in PRINTED.items()}
    records: list[dict[str, object]] = []
    for row in rows:
        values = {line: value(row, line) for line in lines}
        record: dict[str, object] = {"method": row.name}
        for name, number in values.items():
            record[back.get(name, name)] = None if number is None else round(100 * number, 4)
        records.append(record | {"unit": "percent"})
        if any(other.notes for other in rows):
            records[-1]["notes"] = write_notes(row.notes)
    return pd.DataFrame(records)


def _grid(rows: Sequence[Row], tablefmt: str) -> str:
    body = [[title(line), *(cell(row, line) for row in rows)] for line in shown(rows)]
    align = ["left", *("right" for _ in rows)]
    headers = ["%", *(row.name for row in rows)]
    return tabulate(body, headers, tablefmt, colalign=align, disable_numparse=True)


def _markdown(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    stream.write(_grid(rows, "github") + "\n")
    _list(stream, remarks(rows))
    disputed = [(row, check) for row in rows for check in checks(row)]
    if disputed:
        body = [
            [
                *(row.name, TITLES[c.aggregate], f"{100 * c.printed:.2f}", f"{100 * c.recomputed:.3f}"),
                *(
                    f"{100 * c.difference:+.3f}",
                    f"{100 * c.allowed:.3f}",
                    "yes" if c.consistent else "**no**",
                ),
            ]
            for row, c in disputed
        ]
        headers = ["model", "aggregate", "printed", "recomputed", "difference", "rounding ±", "consistent"]
        align = ["left", "left", *["right"] * 4, "left"]
        stream.write("\n" + tabulate(body, headers, "github", colalign=align, disable_numparse=True) + "\n")
    return stream.getvalue()


def _list(stream: io.StringIO, items: Iterable[str]) -> None:
    for n, item in enumerate(items):
        stream.write(f"{'' if n else chr(10)}- {item.removeprefix(MARK).strip()}\n")
