"""report.html: one file that opens anywhere, offline, with everything in it."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bench.base.labels import flat, listed
from bench.base.style import Drawing
from bench.report.groups import Contest
from bench.report.load import Experiment
from bench.report.overview import TITLE, Overview
from bench.report.sheet import Sheet
from bench.report.summary import Row
from bench.report.tables import headline, legend, sections

if TYPE_CHECKING:
    from bench.report.gradients import Profiles

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Part:
    """Everything the page shows of one contest."""

    contest: Contest
    rows: Sequence[Row]
    comparison: pd.DataFrame
    figures: Sequence[Drawing]
    sheets: Sequence[Sheet]


def render_page(
    experiment: Experiment, parts: Sequence[Part], profiles: Profiles | None, overview: Overview | None
) -> str:
    """The page as text, the same for the same results. profiles: of gradients, if there are any."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    env.filters["base64"] = _base64
    unfinished = experiment.unfinished()
    envs = [*(cell.env for cell in experiment.cells), *(profiles.envs if profiles else ())]
    return env.get_template("report.html.j2").render(
        name=experiment.path.resolve().name,
        counts=_counts(experiment, profiles),
        total=len(experiment.cells),
        unfinished=unfinished,
        notes=experiment.notes,
        parts=[_part(part) for part in parts],
        profiles=profiles,
        overview=overview,
        overview_title=TITLE,
        command=_command(experiment.request, envs),
        environment=environment(envs),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _counts(experiment: Experiment, profiles: Profiles | None) -> str:
    states = [cell.status for cell in experiment.cells]
    of_each = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(sorted(states)))
    found = [f"{len(states)} cells: {of_each}"] if states else []
    if profiles:
        found.append(f"{len(profiles.rows)} gradient profiles")
    return "; ".join(found)


def _part(part: Part) -> dict[str, Any]:
    names, columns = sections(part.rows)
    seeds = {len(row.group.cells) for row in part.rows}
    return {
        "title": part.contest.title,
        "reward": part.contest.reward,
        "headline": headline(part.rows),
        "legend": legend(part.rows),
        "rows": part.rows,
        "names": names,
        "tables": [group for group in (columns[:-1], columns[-1:]) if group],
        "figures": part.figures,
        "sheets": part.sheets,
        "clips": any(sheet.narrow for sheet in part.sheets),
        "grid_note": " Of several seeds the first one is shown." if max(seeds) > 1 else "",
        "matrix": _matrix(part.comparison),
        "settings": [_settings(row) for row in part.rows if not row.is_base],
        "shared": _shared(part.contest),
    }


def _matrix(comparison: pd.DataFrame) -> dict[str, Any]:
    """Labels and rows of coloured cells from the list of pairs."""
    found = {(pair["method"], pair["other"]): pair for pair in comparison.to_dict("records")}
    labels = list(dict.fromkeys(a for a, _ in found))
    rows = [
        {"label": a, "cells": [_pair_cell(found[a, b]) if a != b else _NO_PAIR for b in labels]}
        for a in labels
    ]
    return {"labels": labels, "rows": rows}


_NO_PAIR = {"text": "", "colour": "#f6f7f8", "title": ""}


def _pair_cell(pair: Mapping[Any, Any]) -> dict[str, str]:
    """Blue where the row wins, orange where it loses, white at one half."""
    p = float(pair["probability"])
    if math.isnan(p):
        return {"text": "–", "colour": "none", "title": "no common pictures"}
    rgb = "0, 114, 178" if p > 0.5 else "230, 159, 0"
    return {
        "text": f"{p:.0%}",
        "colour": f"rgba({rgb}, {abs(p - 0.5):.2f})",
        "title": f"95 % interval {pair['low']:.0%} to {pair['high']:.0%}",
    }


def _settings(row: Row) -> dict[str, str]:
    cell = next(iter([*row.group.cells, *row.group.left_out]))
    return {
        "label": row.group.label,
        "method": listed(cell.training["method"]["config"]),
        "train": listed(cell.training["train"]),
    }


def _shared(contest: Contest) -> list[tuple[str, str]]:
    """What all cells of a contest have in common."""
    members = [*([contest.base] if contest.base else []), *contest.groups]
    config = next(c.config for g in members for c in [*g.cells, *g.left_out])
    rewards = [f"{r['name']} ({listed(r['config']) or 'defaults'})" for r in config["eval_rewards"]]
    return [
        ("model", f"{config['model']['name']} ({listed(config['model']['config'])})"),
        ("prompts", str(config["prompts"])),
        ("evaluation", listed(config["eval"])),
        ("rewards", "; ".join(rewards)),
        ("threads per cell", str(config["threads"])),
        ("digests", listed(config["digests"])),
    ]


def _command(request: Mapping[str, Any], envs: Sequence[Mapping[str, Any]]) -> str:
    """What was typed, as recorded, and the commit it ran on above it."""
    recorded = [request, *envs]
    commands = list(dict.fromkeys(str(r["command"]) for r in recorded if "command" in r))
    states = [env["git"] for env in envs if env.get("git")]
    commits = list(dict.fromkeys(str(state["commit"]) for state in states))
    lines = [f"git checkout {commits[0]}"] if len(commits) == 1 else [f"# some of it: {c}" for c in commits]
    if any(state["dirty"] for state in states):
        lines.append("# there were uncommitted changes")
    return "\n".join([*lines, *(commands or ["(no command was recorded)"])])


def environment(envs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Keys of env.json and the values that occur; several, where cells ran in different places."""
    recorded = [flat({k: v for k, v in env.items() if k != "command"}) for env in envs if env]
    keys = dict.fromkeys(key for env in recorded for key in env)
    return [(key, "; ".join(dict.fromkeys(env[key] for env in recorded if key in env))) for key in keys]
