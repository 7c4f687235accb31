"""The gradient profiles' part of the report: tables, figures, settings, and what is not done.

Imports torch, which the profiles' sums are stored with; the rest of the report does without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.base.labels import listed
from bench.base.style import Drawing
from bench.measure.gradients.rows import Row, analysed, groups
from bench.measure.gradients.show import HEADERS, LEFT, NOTE, cells, markdown, title
from bench.measure.gradients.survey import Unfinished, survey
from bench.measure.gradients.table import curves, frame, parts
from bench.measure.gradients.verdict import Verdict
from bench.report.gradient_figures import gradient_figures

TONES = {Verdict.UNBIASED: "up", Verdict.BIASED: "down", Verdict.UNDECIDED: "pale"}
HEADINGS = tuple({"left": k in LEFT, "text": text} for k, text in enumerate(HEADERS))


@dataclass(frozen=True)
class Table:
    """Profiles that may be compared: one model, reward, θ and seed. suffix: of its figures' file names."""

    title: str
    suffix: str
    rows: Sequence[Row]
    figures: Sequence[Drawing]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The texts of every row, and the colour of its verdict."""
        return [{"cells": cells(row), "tone": TONES[row.own.verdict]} for row in self.rows]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """Every method's own."""
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


@dataclass(frozen=True)
class Profiles:
    """All there is. envs: what env.json of every profile says."""

    tables: Sequence[Table]
    unfinished: Sequence[Unfinished]
    envs: Sequence[dict[str, Any]]
    note: str = NOTE
    headings: Sequence[dict[str, Any]] = HEADINGS

    @property
    def rows(self) -> list[Row]:
        """Of all tables."""
        return [row for table in self.tables for row in table.rows]

    @property
    def markdown(self) -> str:
        """The tables to paste."""
        text = [f"## {table.title}\n\n{markdown(table.rows)}" for table in self.tables]
        return "\n".join([*text, NOTE, ""])


def load_profiles(results: Path) -> Profiles:
    """Read all profiles of a results directory and draw their figures."""
    found, unfinished = survey(results)
    together = groups(analysed(found))
    tables = [
        Table(title(group), suffix, group, _figures(group))
        for group, suffix in zip(together, _suffixes(together), strict=True)
    ]
    return Profiles(tables, unfinished, [one.env for one in found])


def _figures(group: list[Row]) -> list[Drawing]:
    return gradient_figures(frame(group), parts(group, by_step=True), curves(group))


def _suffixes(together: Sequence[list[Row]]) -> list[str]:
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
