"""The table of VBench scores: `python -m bench vbench table`. Dimensions down, models across, in percent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text
from tabulate import tabulate

from bench.base.columns import NONE, Column, as_text, print_columns, texts
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.measure.vbench import aggregate, figures
from bench.measure.vbench.aggregate import AGGREGATES, Check, value
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.notation import Unit, write_notes
from bench.measure.vbench.results import PRINTED, SUFFIX, ScoreRow, read

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


def shown(rows: Sequence[ScoreRow]) -> list[str]:
    """The lines of the table: dimensions and aggregates that at least one row has, or should have."""
    found = [name for name in DIMENSIONS if any(row.whole or name in row.scores for row in rows)]
    for name in AGGREGATES:
        if any(name in row.printed or value(name, row.scores) is not None for row in rows):
            found.append(name)
    return found


def cell(row: ScoreRow, name: str) -> str:
    """`95.44`, with a star where it is not the official score, or rests on one that is not."""
    number = value(name, row.scores)
    if number is None:
        return MISSING if row.whole and name in DIMENSIONS else NONE
    rests = {name, *aggregate.PARTS.get(name, ())} & set(row.notes)
    return f"{100 * number:.2f}{MARK if rests else ''}"


def title(name: str) -> str:
    """What a line of the table is called."""
    return TITLES[name] if name in TITLES else DIMENSIONS[name].title


def show(console: Console, rows: Sequence[ScoreRow]) -> None:
    """Print the table in as many pieces as the terminal's width asks for, and what there is to say of it."""
    lines = shown(rows)
    first = next((n for n, line in enumerate(lines) if line in AGGREGATES), 0)
    styles = ["bold" if line in AGGREGATES else "" for line in lines]
    print_columns(console, _titles(lines), [_scores(rows, lines, row) for row in rows], styles, [first])
    for remark in remarks(rows):
        console.print(Text(remark), soft_wrap=False)


def _titles(lines: Sequence[str]) -> Column:
    return texts("%", [title(line) for line in lines], left=True)


def _scores(rows: Sequence[ScoreRow], lines: Sequence[str], row: ScoreRow) -> Column:
    """A model's column, with the best of several official scores marked."""
    best = [is_best(rows, row, line) for line in lines]
    return Column(_short(row.name), tuple(cell(row, line) for line in lines), tuple(map(int, best)))


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:11]}…{name[-12:]}"


def is_best(rows: Sequence[ScoreRow], row: ScoreRow, line: str) -> bool:
    """Whether a model has the best of several scores that are VBench's own."""
    official = [value(line, other.scores) for other in rows if MARK not in cell(other, line)]
    values = [number for number in official if number is not None]
    return (
        MARK not in cell(row, line)
        and len(values) > 1
        and value(line, row.scores) == max(values) > min(values)
    )


def remarks(rows: Sequence[ScoreRow]) -> list[str]:
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


def checks(row: ScoreRow) -> list[Check]:
    """A row's printed aggregates beside the recomputed ones."""
    return aggregate.checks(row.scores, row.printed, row.half_units)


def write(out: Path, rows: Sequence[ScoreRow]) -> list[Path]:
    """vbench.csv (a line per model, readable again), .md and .tex (a line per dimension)."""
    content = {
        "csv": frame(rows).to_csv(index=False),
        "md": _markdown(rows) + "\n",
        "tex": _grid(rows, "latex_booktabs") + "\n",
    }
    files = {out / f"vbench.{extension}": text for extension, text in content.items()}
    for path, text in files.items():
        write_atomically(path, text)
    return list(files)


def frame(rows: Sequence[ScoreRow]) -> pd.DataFrame:
    """One line per model in percent, with what is not official of it; empty where there is no score."""
    back = {name: column for column, name in PRINTED.items()}
    records: list[dict[str, object]] = []
    for row in rows:
        numbers = {back.get(line, line): value(line, row.scores) for line in shown(rows)}
        percent = {key: None if number is None else round(100 * number, 4) for key, number in numbers.items()}
        records.append({"method": row.name, **percent, "unit": "percent"})
        if any(other.notes for other in rows):
            records[-1]["notes"] = write_notes(row.notes)
    return pd.DataFrame(records)


def _grid(rows: Sequence[ScoreRow], tablefmt: str) -> str:
    lines = shown(rows)
    scores = [texts(row.name, [cell(row, line) for line in lines]) for row in rows]
    return as_text([_titles(lines), *scores], tablefmt)


def _markdown(rows: Sequence[ScoreRow]) -> str:
    listed = "\n".join(f"- {text.removeprefix(MARK).strip()}" for text in remarks(rows))
    verified = [
        (
            row.name,
            TITLES[check.aggregate],
            f"{100 * check.printed:.2f}",
            f"{100 * check.recomputed:.3f}",
            f"{100 * check.difference:+.3f}",
            f"{100 * check.allowed:.3f}",
            "yes" if check.consistent else "**no**",
        )
        for row in rows
        for check in checks(row)
    ]
    headers = ["model", "aggregate", "printed", "recomputed", "difference", "rounding ±", "consistent"]
    align = ["left", "left", *["right"] * 4, "left"]
    parts = [_grid(rows, "github"), listed]
    if verified:
        parts.append(tabulate(verified, headers, "github", colalign=align, disable_numparse=True))
    return "\n\n".join(filter(None, parts))
