"""Several contests at a glance, as in the RLR paper's Table 2: places and methods down, rewards across.

A place is a model with its prompts and whatever else its pictures depend on. Every number is the held-out
score of the reward of its column, by a method that was trained on that reward.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from tabulate import tabulate

from bench.base.columns import Column, print_table, texts
from bench.base.labels import told_apart
from bench.report.groups import Contest
from bench.report.stats import NOTHING
from bench.report.summary import Row
from bench.report.tables import estimates

TITLE = "Held-out score ± SE of the reward that was trained on"


@dataclass(frozen=True)
class Overview:
    """names: place and method of each line; columns: one per reward, as formatted texts."""

    names: Column
    columns: tuple[Column, ...]
    bases: tuple[bool, ...]

    @property
    def header(self) -> list[str]:
        """Headers of all columns."""
        return [self.names.header, *(c.header for c in self.columns)]

    @property
    def lines(self) -> list[list[str]]:
        """Texts of all lines."""
        return [[self.names.cells[n], *(c.cells[n] for c in self.columns)] for n in range(len(self.bases))]


def overview(tables: Sequence[tuple[Contest, Sequence[Row]]]) -> Overview | None:
    """The overview of contests and their rows; None if there is only one."""
    if len(tables) < 2:
        return None
    places = _places([contest for contest, _ in tables])
    rewards = list(dict.fromkeys(contest.reward for contest, _ in tables))
    lines: dict[tuple[str, str], dict[str, Row]] = {}
    for contest, rows in tables:
        for row in rows:
            lines.setdefault((places[_key(contest)], row.group.label), {})[contest.reward] = row
    # A base model scores every reward once per place, a method once for each that it was trained on.
    keys = sorted(lines, key=lambda key: (key[0], not any(r.is_base for r in lines[key].values())))
    columns = [
        estimates(
            reward,
            [lines[key][reward].score if reward in lines[key] else NOTHING for key in keys],
            signed=False,
        )
        for reward in rewards
    ]
    names = texts("model, method", [f"{place}, {label}" for place, label in keys], left=True)
    bases = tuple(any(r.is_base for r in lines[key].values()) for key in keys)
    return Overview(names, tuple(columns), bases)


def show(found: Overview, console: Console) -> None:
    """Print it, in as many tables as the width of the terminal asks for."""
    console.print(f"\n[bold]{TITLE}[/bold]")
    styles = ["dim" if base else "" for base in found.bases]
    print_table(console, found.names, found.columns, styles)


def markdown(found: Overview) -> str:
    """The overview as a GitHub table under its title."""
    return f"## {TITLE}\n\n" + tabulate(found.lines, found.header, "github", disable_numparse=True)


def _key(contest: Contest) -> tuple[str, str]:
    return contest.model, json.dumps(contest.setting, sort_keys=True, default=str)


def _places(contests: Sequence[Contest]) -> dict[tuple[str, str], str]:
    """A label for every model and setting, with what tells the settings of one model apart."""
    settings: dict[str, dict[str, dict[str, Any]]] = {}
    for contest in contests:
        model, text = _key(contest)
        settings.setdefault(model, {})[text] = contest.setting
    return {
        (model, text): label
        for model, found in settings.items()
        for text, label in zip(found, told_apart(model, list(found.values())), strict=True)
    }
