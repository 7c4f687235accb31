"""Several contests at a glance, as in the RLR paper's Table 2: places and methods down, rewards across.

A place is a model with its prompts and whatever else its pictures depend on. Every number is the held-out
score of the reward of its column, by a method that was trained on that reward.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.base.columns import texts
from bench.base.labels import told_apart
from bench.report.groups import Contest
from bench.report.load import Results
from bench.report.section import TableSection
from bench.report.stats import NOTHING
from bench.report.summary import Line, contest_lines
from bench.report.tables import estimates

TITLE = "Held-out score ± SE of the reward that was trained on"


def section(results: Results) -> TableSection | None:
    """The overview of a results directory; None if it holds a single contest."""
    return overview(contest_lines(results))


def overview(tables: Sequence[tuple[Contest, Sequence[Line]]]) -> TableSection | None:
    """The overview of contests and their lines: place and method of each, and a column per reward."""
    if len(tables) < 2:
        return None
    places = _places([contest for contest, _ in tables])
    rewards = list(dict.fromkeys(contest.reward for contest, _ in tables))
    found: dict[tuple[str, str], dict[str, Line]] = {}
    for contest, lines in tables:
        for line in lines:
            found.setdefault((places[_key(contest)], line.group.label), {})[contest.reward] = line
    # A base model scores every reward once per place, a method once for each that it was trained on.
    keys = sorted(found, key=lambda key: (key[0], not any(r.is_base for r in found[key].values())))
    columns = [
        estimates(
            reward,
            [found[key][reward].score if reward in found[key] else NOTHING for key in keys],
            signed=False,
        )
        for reward in rewards
    ]
    names = texts("model, method", [f"{place}, {label}" for place, label in keys], left=True)
    bases = tuple(any(r.is_base for r in found[key].values()) for key in keys)
    return TableSection(TITLE, names, tuple(columns), bases)


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
