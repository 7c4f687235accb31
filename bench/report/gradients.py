"""The gradient profiles' part of the report: tables, figures, settings, and what is not done.

Imports torch, which the profiles' sums are stored with; the rest of the report does without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.base.console import plain
from bench.base.files import write_atomically
from bench.base.labels import listed
from bench.base.style import Drawing, write_drawings
from bench.measure.gradients.profiles import ProfileRow, UnfinishedProfile, profile_tables, read_profiles
from bench.measure.gradients.show import HEADERS, LEFT, NOTE, cells, markdown, print_profiles, title
from bench.measure.gradients.store import FOLDER, ProbeDir
from bench.measure.gradients.table import curves, frame, parts, write
from bench.measure.gradients.verdict import Verdict
from bench.report.gradient_figures import gradient_figures
from bench.report.load import Results, one_of
from bench.report.section import Section
from bench.run import twins

TONES = {Verdict.UNBIASED: "up", Verdict.BIASED: "down", Verdict.UNDECIDED: "pale"}
HEADINGS = tuple({"left": k in LEFT, "text": text} for k, text in enumerate(HEADERS))


@dataclass(frozen=True, eq=False)
class Table:
    """Profiles that may be compared: one model, reward, θ and seed. suffix: of its figures' file names."""

    title: str
    suffix: str
    rows: Sequence[ProfileRow]

    @cached_property
    def figures(self) -> list[Drawing]:
        """The figures of this table's profiles."""
        return gradient_figures(frame(self.rows), parts(self.rows, by_step=True), curves(self.rows))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The texts of every row, and the colour of its verdict."""
        return [{"cells": cells(row), "tone": TONES[row.own.verdict]} for row in self.rows]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """Every method and its own settings as text."""
        return [(row.label, listed(row.config.method.config)) for row in self.rows]

    @property
    def shared(self) -> list[tuple[str, str]]:
        """What all rows have in common."""
        config = self.rows[0].config
        sampling = config.model_dump(
            mode="json", include={"prompts_per_step", "samples_per_prompt", "micro_batch", "seed"}
        )
        return [
            ("model", f"{config.model.name} ({listed(config.model.config.model_dump(mode='json'))})"),
            ("θ", config.at),
            ("prompts", config.prompts),
            ("batch", listed(sampling)),
            ("reward", f"{config.reward.name} ({listed(config.reward.config) or 'defaults'})"),
            ("intervals", f"{self.rows[0].level:.2%} each, 95 % for all rows of the table together"),
            ("threads", ", ".join(sorted({str(row.config.threads) for row in self.rows}))),
            ("digests", listed(config.digests)),
        ]


def section(results: Results) -> Gradients:
    """All gradient profiles of the results directories; one that lies in several is shown once."""
    every = twins.by_id(results.directories, FOLDER).values()
    places = [ProbeDir(one_of(same, []).path) for same in every]  # `load` has said what is to be said of it
    found, unfinished = read_profiles([place for place in places if (place.path / "config.yaml").exists()])
    together = profile_tables(found)
    tables = [
        Table(title(group), suffix, group)
        for group, suffix in zip(together, _suffixes(together), strict=True)
    ]
    return Gradients(tables, unfinished, [one.env for one in found])


class Gradients(Section):
    """A table and figures for all profiles that may be compared, and what is not done."""

    template = "gradients.html.j2"
    note, headings = NOTE, HEADINGS

    def __init__(
        self,
        tables: Sequence[Table],
        unfinished: Sequence[UnfinishedProfile],
        environments: Sequence[dict[str, Any]],
    ) -> None:
        self.tables, self.unfinished, self._environments = tables, unfinished, environments
        self.has_results = bool(tables)

    @property
    def rows(self) -> list[ProfileRow]:
        """The rows of all tables."""
        return [row for table in self.tables for row in table.rows]

    @property
    def count(self) -> str:
        """The number of profiles."""
        return f"{len(self.rows)} gradient profiles"

    @property
    def environments(self) -> Sequence[dict[str, Any]]:
        """What env.json of every profile says."""
        return self._environments

    def show(self, console: Console) -> None:
        """Print the tables, and a line for each profile that is not done."""
        if self.tables:
            print_profiles([table.rows for table in self.tables], console)
        for one in self.unfinished:
            reason = f": {one.reason}" if one.reason else ""
            plain(console, f"{one.id} {one.state} after {one.draws} draws{reason}", "red")

    def write(self, folder: Path, beside: Path) -> None:
        """Write gradients*.csv, gradients.md and the figures."""
        if self.tables:
            write(beside, self.rows)
        text = [f"## {table.title}\n\n{markdown(table.rows)}" for table in self.tables]
        write_atomically(folder / "gradients.md", "\n".join([*text, NOTE, ""]))
        for table in self.tables:
            write_drawings(folder, table.figures, table.suffix)


def _suffixes(together: Sequence[list[ProfileRow]]) -> list[str]:
    """What tells the tables' files apart: nothing for a single one, else model, reward, θ, seed where they
    differ."""
    keys = [
        (g[0].config.model.name, g[0].config.reward.name, g[0].at, f"s{g[0].config.seed}") for g in together
    ]
    differing = [k for k in range(4) if len({key[k] for key in keys}) > 1]
    names = ["-".join(re.sub(r"\W+", "_", key[k]) for k in differing) for key in keys]
    return [
        "" if len(keys) == 1 else f"-{name}" if names.count(name) == 1 else f"-{name}{n}"
        for n, name in enumerate(names, start=1)
    ]
