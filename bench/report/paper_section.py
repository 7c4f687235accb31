"""The report's section on the RLR paper: its tables and figures beside one's own cells (`report --paper`)."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from bench.base.columns import as_text, print_columns
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.report import paper_columns
from bench.report.load import CellResults, Results
from bench.report.paper import Entry, View, ViewLine, file_of, number, their_gain, views
from bench.report.paper_figures import FigureTable, figure_tables
from bench.report.paper_tables import TABLES, VIDEO, PaperTable, Quantity
from bench.report.section import Section


def section(results: Results) -> Paper:
    """All tables and figures that there are cells of. Raises BenchError if there are none."""
    shown, others = views(results)
    figures = figure_tables(results)
    notes = [*_others(others), *_videos(results)]
    if not (shown or figures or notes):
        names = ", ".join(dict.fromkeys(table.experiment for table in TABLES))
        raise BenchError(
            f"{results.path}: --paper: none of its {len(results.cells)} cells belongs to a number of the "
            f"paper. Run one of {names} into it, such as: "
            f"python -m bench run --config table5 --out {_quoted(results.path)}"
        )
    return Paper(results, [PaperView(view, results) for view in shown], figures, notes)


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
    return [
        f"Tables 3 and 10 are VBench's scores of videos, which {len(cells)} cells of {VIDEO} here can make "
        f"(docs/vbench.md): python -m bench vbench generate --lora {_quoted(cells[0].path)}, vbench score, "
        "and beside the published numbers: python -m bench vbench table results/vbench/* "
        f"{_quoted(file_of('table10_vbench'))}"
    ]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


@dataclass(frozen=True)
class PaperView:
    """What is shown of one table."""

    view: View
    results: Results

    @property
    def blocks(self) -> list[paper_columns.Block]:
        """Its columns, those of each prompt set together."""
        return paper_columns.blocks(self.view)

    @property
    def remarks(self) -> list[str]:
        """How to read it, and what is not as in the paper."""
        return paper_columns.remarks(self.view)

    @property
    def notice(self) -> str:
        """That another model stands in; empty if none does."""
        return paper_columns.stand_in(self.view)

    @property
    def missing(self) -> str:
        """What has no finished run, in a sentence; empty if nothing."""
        if not self.view.missing:
            return ""
        total = len(self.view.table.lines) * len(self.view.table.quantities)
        lines: dict[str, list[str]] = {}
        for one in self.view.missing:
            several = len({q.prompts for q in self.view.table.quantities}) > 1
            name = f"{one.quantity.prompts} {one.quantity.header}" if several else one.quantity.header
            lines.setdefault(one.line.label, []).append(name + (f" ({one.state})" if one.state else ""))
        whole = len(self.view.table.quantities)
        bare = {
            label
            for label, names in lines.items()
            if len(names) == whole and not any("(" in n for n in names)
        }
        parts = [label if label in bare else f"{label}: {', '.join(names)}" for label, names in lines.items()]
        return f"{len(self.view.missing)} of {total} numbers have no finished run. {'; '.join(parts)}."

    @property
    def command(self) -> str:
        """What makes the missing ones: of methods, rewards, models and prompts only those of theirs."""
        table, stand_in, missing = self.view.table, self.view.stand_in, self.view.missing
        every = [(line, quantity) for line in table.lines for quantity in table.quantities]
        some = [(one.line, one.quantity) for one in missing]
        words = ["python -m bench run --config", table.experiment]
        if stand_in is not None:
            words.append(stand_in.flags)
        else:
            words += _only("--model", [x.model for x, _ in some], [x.model for x, _ in every])
        words += _only("--methods", [x.typed for x, _ in some], [x.typed for x, _ in every])
        named = stand_in.of if stand_in else str
        words += _only("--reward", [named(q.reward) for _, q in some], [named(q.reward) for _, q in every])
        words += _only("--prompts", [named(q.prompts) for _, q in some], [named(q.prompts) for _, q in every])
        return " ".join([*words, "--out", _quoted(self.results.path)])

    @property
    def typed_before(self) -> str:
        """The command that the cells shown were run with, if it is one: the missing may need its flags."""
        cells = [cell for line in self.view.lines for entry in line.entries.values() for cell in entry.cells]
        commands = {str(cell.env["command"]) for cell in cells if "command" in cell.env}
        return commands.pop() if len(commands) == 1 else ""


def _only(flag: str, some: Sequence[str], every: Sequence[str]) -> list[str]:
    """The flag with those names, unless they are all that there are, or none."""
    names = [name for name in dict.fromkeys(some) if name]
    return [flag, ",".join(names)] if names and set(names) != {name for name in every if name} else []


class Paper(Section):
    """Tables, figures, what is missing, and notes on what is elsewhere."""

    template = "paper.html.j2"

    def __init__(
        self,
        results: Results,
        tables: Sequence[PaperView],
        figures: Sequence[FigureTable],
        notes: Sequence[str],
    ) -> None:
        self.results, self.views, self.figures, self.notes = results, tables, figures, notes

    def show(self, console: Console) -> None:
        """Print each table, a part for each of its columns, with remarks, and the command for the rest."""
        for one in self.views:
            console.print(f"\n[bold]{one.view.title}[/bold]", highlight=False)
            if one.notice:
                plain(console, one.notice, "yellow", wrap=True)
            for block in one.blocks:
                for group in block.groups:
                    console.print(f"{block.title}{group.title}", style="bold", highlight=False)
                    print_columns(console, block.names, group.columns, block.styles)
            for remark in one.remarks:
                plain(console, remark, "dim", wrap=True)
            if one.missing:
                plain(console, f"Missing: {one.missing}", "yellow", wrap=True)
                plain(console, f"  {one.command}")
                if one.typed_before:
                    plain(
                        console, "with the flags of those that are here, which were run by", "dim", wrap=True
                    )
                    plain(console, f"  {one.typed_before}")
        for figure in self.figures:
            console.print(f"\n[bold]{figure.title}[/bold]", highlight=False)
            print_columns(console, figure.names, figure.columns, [""] * len(figure.names.cells))
            plain(console, figure.remark, "dim", wrap=True)
        for note in self.notes:
            plain(console, note, wrap=True)

    def write(self, folder: Path, beside: Path) -> None:
        """Write paper.csv (one line per published number, unrounded), paper.md and paper.tex."""
        records = [_record(one, line, q) for one in self.views for line, q in _places(one.view)]
        frame = pd.DataFrame(records, columns=COLUMNS)
        write_atomically(
            folder / "paper.csv", frame.to_csv(index=False, float_format="%.8g", lineterminator="\n")
        )
        write_atomically(folder / "paper.md", self.markdown() + "\n")
        write_atomically(folder / "paper.tex", self._latex())

    def markdown(self) -> str:
        """Every table with its remarks and what is missing."""
        text = ["# Beside the RLR paper"]
        for one in self.views:
            text += [f"## {one.view.title}", *filter(None, [one.notice]), *(_titled(b) for b in one.blocks)]
            text.append("\n".join(f"- {remark}" for remark in one.remarks))
            if one.missing:
                before = f"\n    # with the flags of: {one.typed_before}" if one.typed_before else ""
                text.append(f"Missing: {one.missing}\n\n    {one.command}{before}")
        for figure in self.figures:
            text += [f"## {figure.title}", as_text([figure.names, *figure.columns]), figure.remark]
        return "\n\n".join([*text, *self.notes])

    def _latex(self) -> str:
        parts = []
        for one in self.views:
            for block in one.blocks:
                comment = f"% {one.view.title}{f', {block.title}' if block.title else ''}".rstrip(", ")
                parts.append(f"{comment}\n{as_text([block.names, *block.columns], 'latex_booktabs')}\n")
        return "\n".join(parts)


def _titled(block: paper_columns.Block) -> str:
    table = as_text([block.names, *block.columns])
    return f"**{block.title.rstrip(', ')}**\n\n{table}" if block.title else table


FILES = ("paper.csv", "paper.md", "paper.tex")
COLUMNS = (
    *("table", "line", "model", "stands_in", "quantity", "reward", "prompts", "state", "seeds", "cells"),
    *("ours", "ours_low", "ours_high", "theirs", "difference", "difference_low", "difference_high"),
    *("our_gain", "our_gain_low", "our_gain_high", "their_gain", "settings_not_the_papers"),
)


def _places(view: View) -> list[tuple[ViewLine, Quantity]]:
    """Every number of a table, and a line more for each further setting that has it."""
    shown = [(line, q) for line in view.lines for q in view.table.quantities]
    measured = {(line.line.label, q.column) for line, q in shown if q.column in line.entries}
    first = {line.line.label: line for line in reversed(view.lines)}
    return [
        (line, q)
        for line, q in shown
        if q.column in line.entries
        or ((line.line.label, q.column) not in measured and line is first[line.line.label])
    ]


def _record(one: PaperView, line: ViewLine, quantity: Quantity) -> dict[str, object]:
    """One line of paper.csv; what is not known is left empty."""
    view = one.view
    entry = line.entries.get(quantity.column)
    states = {m.state for m in view.missing if (m.line, m.quantity) == (line.line, quantity)}
    named = view.stand_in.of if view.stand_in else str
    return {
        "table": view.table.name,
        "line": line.label,
        "model": view.stand_in.model if view.stand_in else line.line.model,
        "stands_in": "yes" if view.stand_in else "no",
        "quantity": quantity.column,
        "reward": named(quantity.reward),
        "prompts": named(quantity.prompts),
        "state": "done" if entry else next(iter(states), "") or "missing",
        "theirs": number(view.table, line.line, quantity),
        "their_gain": their_gain(view.table, line.line, quantity),
        "settings_not_the_papers": "; ".join(line.differing),
        **(_numbers(entry) if entry else {}),
    }


def _numbers(entry: Entry) -> dict[str, object]:
    found: dict[str, object] = {
        "seeds": len(_seeds(entry.cells)) or None,
        "cells": " ".join(cell.id for cell in entry.cells),
    }
    for name, own in (("ours", entry.ours), ("difference", entry.difference), ("our_gain", entry.gain)):
        known = own.units > 0
        found |= {
            name: own.mean if known else math.nan,
            f"{name}_low": own.low if known else math.nan,
            f"{name}_high": own.high if known else math.nan,
        }
    return found


def _seeds(cells: Sequence[CellResults]) -> list[int]:
    return [cell.seed for cell in cells if cell.seed is not None]
