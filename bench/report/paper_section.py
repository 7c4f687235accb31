"""The report's section on the RLR paper: its tables and figures beside one's own cells (`report --paper`)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.base.columns import as_text, print_columns
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.report.load import Results
from bench.report.paper import View, ViewLine, file_of, number, their_gain, views
from bench.report.paper_parts import Part, figure_parts, table_part
from bench.report.paper_tables import TABLES, VIDEO, PaperTable, Quantity
from bench.report.section import Section

FILES = ("paper.csv", "paper.md", "paper.tex")
COLUMNS = (
    *("table", "line", "model", "stands_in", "quantity", "reward", "prompts", "state", "seeds", "cells"),
    *("ours", "ours_low", "ours_high", "theirs", "difference", "difference_low", "difference_high"),
    *("our_gain", "our_gain_low", "our_gain_high", "their_gain", "settings_not_the_papers"),
)


def section(results: Results) -> Paper:
    """All tables and figures that there are cells of. Raises BenchError if there are none."""
    shown, others = views(results)
    parts = [*(table_part(view, results.path) for view in shown), *figure_parts(results)]
    notes = [*_others(others), *_videos(results)]
    if not (parts or notes):
        names = ", ".join(dict.fromkeys(table.experiment for table in TABLES))
        raise BenchError(
            f"{results.path}: --paper: none of its {len(results.cells)} cells belongs to a number of the "
            f"paper. Run one of {names} into it, such as: "
            f"python -m bench run --config table5 --out {shlex.quote(str(results.path))}"
        )
    return Paper(shown, parts, notes)


def _others(tables: Sequence[PaperTable]) -> list[str]:
    if not tables:
        return []
    names = ", ".join(table.name for table in tables)
    configs = ", ".join(f"--config {name}" for name in dict.fromkeys(table.experiment for table in tables))
    return [
        f"Some of these cells belong to other tables, too: {names}. They are shown where cells were run with "
        f"{configs}."
    ]


def _videos(results: Results) -> list[str]:
    cells = [c for c in results.cells if c.config and c.training and c.config["model"]["name"] == VIDEO]
    if not cells:
        return []
    lora, table = (shlex.quote(str(path)) for path in (cells[0].path, file_of("table10_vbench")))
    return [
        f"Tables 3 and 10 are VBench's scores of videos, which {len(cells)} cells of {VIDEO} here can make "
        f"(docs/vbench.md): python -m bench vbench generate --lora {lora}, vbench score, "
        f"and beside the published numbers: python -m bench vbench table results/vbench/* {table}"
    ]


class Paper(Section):
    """Tables, figures, what is missing, and notes on what is elsewhere. views: what paper.csv has."""

    template = "paper.html.j2"

    def __init__(self, views: Sequence[View], parts: Sequence[Part], notes: Sequence[str]) -> None:
        self.views, self.parts, self.notes = views, parts, notes

    def show(self, console: Console) -> None:
        """Print each table, a part for each of its columns, with remarks, and the command for the rest."""
        for part in self.parts:
            console.print(f"\n[bold]{part.title}[/bold]", highlight=False)
            if part.notice:
                plain(console, part.notice, "yellow", wrap=True)
            for block in part.blocks:
                styles = ["dim" if base else "" for base in block.bases]
                for group in block.groups:
                    if title := ", ".join(filter(None, (block.title, group.title))):
                        console.print(title, style="bold", highlight=False)
                    print_columns(console, block.names, group.columns, styles)
            for remark in part.remarks:
                plain(console, remark, "dim", wrap=True)
            if part.missing:
                plain(console, f"Missing: {part.missing}", "yellow", wrap=True)
                plain(console, f"  {part.command}")
            if part.missing and part.typed_before:
                plain(console, "with the flags of those that are here, which were run by", "dim", wrap=True)
                plain(console, f"  {part.typed_before}")
        for note in self.notes:
            plain(console, note, wrap=True)

    def write(self, folder: Path, beside: Path) -> None:
        """Write paper.csv (one line per published number, unrounded), paper.md and paper.tex."""
        lines = [_record(view, line, q) for view in self.views for line, q in _places(view)]
        frame = pd.DataFrame(lines, columns=COLUMNS)
        table = frame.to_csv(index=False, float_format="%.8g", lineterminator="\n")
        for name, text in zip(FILES, (table, self.markdown() + "\n", self._latex()), strict=True):
            write_atomically(folder / name, text)

    def markdown(self) -> str:
        """Every table with its remarks and what is missing."""
        text = ["# Beside the RLR paper"]
        for part in self.parts:
            text += [f"## {part.title}", *filter(None, [part.notice])]
            for block in part.blocks:
                text += [
                    *([f"**{block.title}**"] if block.title else []),
                    as_text([block.names, *block.flat]),
                ]
            text.append("\n".join(f"- {remark}" for remark in part.remarks))
            if part.missing:
                before = f"\n    # with the flags of: {part.typed_before}" if part.typed_before else ""
                text.append(f"Missing: {part.missing}\n\n    {part.command}{before}")
        return "\n\n".join([*text, *self.notes])

    def _latex(self) -> str:
        return "\n".join(
            f"% {', '.join(filter(None, (part.title, block.title)))}\n"
            f"{as_text([block.names, *block.flat], 'latex_booktabs')}\n"
            for part in self.parts
            for block in part.blocks
        )


def _places(view: View) -> Iterator[tuple[ViewLine, Quantity]]:
    """Every number of a table, and a line more for each further setting that has it."""
    for line in view.lines:
        same = [other for other in view.lines if other.line is line.line]
        for quantity in view.table.quantities:
            nowhere = not any(quantity.column in other.entries for other in same)
            if quantity.column in line.entries or (nowhere and line is same[0]):
                yield line, quantity


def _record(view: View, line: ViewLine, quantity: Quantity) -> dict[str, object]:
    """One line of paper.csv; what is not known is left empty."""
    entry = line.entry(quantity)
    states = [one.state for one in view.missing if (one.line, one.quantity) == (line.line, quantity)]
    record: dict[str, object] = {
        "table": view.table.name,
        "line": line.label,
        "model": view.beside.model(line.line),
        "stands_in": "yes" if view.beside.stand_in else "no",
        "quantity": quantity.column,
        "reward": view.beside.of(quantity.reward),
        "prompts": view.beside.of(quantity.prompts),
        "state": "done" if entry.cells else "".join(states) or "missing",
        "seeds": entry.seeds or None,
        "cells": " ".join(cell.id for cell in entry.cells),
        "theirs": number(view.table, line.line, quantity),
        "their_gain": their_gain(view.table, line.line, quantity),
        "settings_not_the_papers": "; ".join(line.differing),
    }
    for name, own in (("ours", entry.ours), ("difference", entry.difference), ("our_gain", entry.gain)):
        record |= {name: own.mean, f"{name}_low": own.low, f"{name}_high": own.high}
    return record
