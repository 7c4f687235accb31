"""Which runs belong together: seeds of one setting form a group, groups on the same pictures a contest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from bench.base.labels import told_apart
from bench.data.prompts.dcot import THIRDS
from bench.experiment.identity import essential
from bench.report.load import BASE, CellResults, Results
from bench.report.over_optimised import distances
from bench.report.stats import NOTHING, Estimate, by_picture, estimate, side_by_side
from bench.run.store import WorkState

NULL = "random-direction"  # the method whose gains are chance


@dataclass(frozen=True, eq=False)
class Group:
    """One method with one setting. cells: seeds that count; left_out: seeds that failed or are not there yet.

    A group of which no seed is finished counts the unfinished ones, at their latest evaluation.
    """

    label: str
    method: str
    cells: tuple[CellResults, ...]
    left_out: tuple[CellResults, ...]

    @property
    def finished(self) -> bool:
        """Whether every seed is."""
        return not self.left_out and all(c.done for c in self.cells)

    @property
    def status(self) -> str:
        """`done`, or in a few words what is the matter: `failed`, `running @20`, `1/2 seeds`."""
        everyone = [*self.cells, *self.left_out]
        if not self.cells:
            return ", ".join(sorted({c.status for c in everyone}))
        if all(c.done for c in self.cells):
            return "done" if not self.left_out else f"{len(self.cells)}/{len(everyone)} seeds"
        steps = sorted({c.eval_steps[-1] for c in self.cells})
        return f"{', '.join(sorted({c.status for c in self.cells}))} @{'–'.join(map(str, steps))}"

    def by_seed(self, reward: str, rank: int = -1) -> dict[int | None, pd.Series]:
        """Seed → the scores by picture at the rank-th evaluation (-1: the latest); None: the base model."""
        rows = {cell.seed: cell.scored(reward, cell.eval_steps[rank]) for cell in self.cells}
        return {seed: by_picture(found) for seed, found in rows.items() if not found.empty}

    def scores(self, reward: str, rank: int = -1) -> list[pd.Series]:
        """Those of all seeds."""
        return list(self.by_seed(reward, rank).values())


@dataclass(frozen=True, eq=False)
class Contest:
    """Groups that draw the same pictures with one model and train on one reward, and the base model.

    setting: what the pictures depend on besides, as in config.yaml.
    """

    title: str
    model: str
    reward: str
    setting: dict[str, Any]
    base: Group | None
    groups: tuple[Group, ...]

    @cached_property
    def rewards(self) -> tuple[str, ...]:
        """Scored rewards, the trained one first."""
        members = [*self.groups, *([self.base] if self.base else [])]
        names = {self.reward} | {str(r) for g in members for c in g.cells for r in c.evals["reward"].unique()}
        return tuple(sorted(names, key=lambda name: (name != self.reward, name)))

    def base_scores(self, reward: str) -> pd.Series | None:
        """The untuned model's scores by picture."""
        found = self.base.scores(reward) if self.base else []
        return found[0] if found else None

    @property
    def base_cell(self) -> CellResults | None:
        """The untuned model's cell, if it was evaluated."""
        return self.base.cells[0] if self.base and self.base.cells else None

    def score(self, group: Group, reward: str, rank: int = -1) -> Estimate:
        """Mean held-out score of a group."""
        runs = group.scores(reward, rank)
        return estimate(side_by_side(runs), interval=False) if runs else NOTHING

    def gain(self, group: Group, reward: str, rank: int = -1, interval: bool = True) -> Estimate:
        """Mean difference to the base model on the same pictures."""
        runs, base = group.scores(reward, rank), self.base_scores(reward)
        return estimate(side_by_side(runs, base), interval) if runs and base is not None else NOTHING

    def distance(self, group: Group) -> Estimate:
        """Mean distance of a group's pictures from the base model's of the same prompt and noise."""
        base = self.base_cell
        tables = [distances(cell, base, cell.eval_steps[-1]) for cell in group.cells] if base else []
        runs = [by_picture(rows) for rows in tables if not rows.empty]
        return estimate(side_by_side(runs), interval=False) if runs else NOTHING

    @cached_property
    def null(self) -> Group | None:
        """The null row: the group of random directions with the most seeds."""
        found = [group for group in self.groups if group.method == NULL and group.cells]
        return max(found, key=lambda group: len(group.cells), default=None)

    def difference(self, group: Group, other: Group, reward: str) -> Estimate:
        """Mean of the scores of a group minus those of another, on the same pictures, seed by seed."""
        left, right = group.by_seed(reward), other.by_seed(reward)
        runs = [left[seed].sub(right[seed]).dropna() for seed in left if seed in right]
        return estimate(side_by_side(runs)) if runs else NOTHING

    def ranked(self) -> list[Group]:
        """Groups from the highest held-out reward down; those without an evaluation last."""
        means = {g.label: self.score(g, self.reward).mean for g in self.groups}
        return sorted(self.groups, key=lambda g: (means[g.label] != means[g.label], -means[g.label], g.label))


def contests(results: Results) -> list[Contest]:
    """All contests of a results directory, in order of their titles."""
    known = [c for c in results.cells if c.config]
    trained = [c for c in known if c.training]
    bases = {pictures_key(c): c for c in known if not c.training}
    settings: dict[tuple[str, str], list[CellResults]] = {}
    for cell in trained:
        settings.setdefault((pictures_key(cell), _text(cell.training["reward"])), []).append(cell)
    alone = [key for key in bases if all(key != pictures for pictures, _ in settings)]
    found = [_contest(cells, bases.get(key)) for (key, _), cells in settings.items()]
    found += [_contest([], bases[key]) for key in alone]
    return sorted(_titled(found), key=lambda c: c.title)


def _titled(found: Sequence[Contest]) -> list[Contest]:
    """Contests of one title get what they differ in behind it, or a number."""
    titled: list[Contest] = []
    for title in dict.fromkeys(c.title for c in found):
        same = [c for c in found if c.title == title]
        labels = told_apart(title, [c.setting for c in same])
        if len(set(labels)) < len(labels):
            labels = [f"{title} ({n + 1})" for n in range(len(same))]
        titled += [replace(c, title=label) for c, label in zip(same, labels, strict=True)]
    return titled


def _contest(cells: list[CellResults], base: CellResults | None) -> Contest:
    some = cells[0] if cells else base
    assert some is not None  # called with at least one cell
    model = some.config["model"]["name"]
    reward = (some.training["reward"] if cells else some.config["eval_rewards"][0])["name"]
    title = f"{model}, trained on {reward}" if cells else f"{model}, not trained"
    groups = _groups(cells)
    setting = {key: some.config[key] for key in ("prompts", "eval")}
    setting |= {"dcot": _dcot(some.config), "model": essential(some.config)["model"]["config"]}
    return Contest(title, model, reward, setting, _group(BASE, [base]) if base else None, groups)


def _dcot(config: dict[str, Any]) -> str:
    """`off`, `on`, or where its parts of the chain end if not at thirds."""
    if "dcot" not in config or config["dcot"] is None:
        return "off"
    ends = tuple(config["dcot"]["boundaries"])
    return "on" if ends == THIRDS else " and ".join(f"{end:g}" for end in ends)


def _groups(cells: Sequence[CellResults]) -> tuple[Group, ...]:
    """One group per setting. A method that occurs with several settings is labelled with what differs."""
    by_setting: dict[str, list[CellResults]] = {}
    for cell in cells:
        by_setting.setdefault(_text(setting_of(cell)), []).append(cell)
    by_method: dict[str, list[list[CellResults]]] = {}
    for seeds in by_setting.values():
        by_method.setdefault(seeds[0].method, []).append(seeds)
    found = []
    for method, variants in sorted(by_method.items()):
        labels = told_apart(method, [setting_of(seeds[0]) for seeds in variants])
        found += [_group(label, seeds) for label, seeds in zip(labels, variants, strict=True)]
    return tuple(sorted(found, key=lambda g: g.label))


def setting_of(cell: CellResults) -> dict[str, Any]:
    """What runs of one group have in common besides their pictures."""
    return {**essential(cell.config)["training"], "seed": None}


def _group(label: str, seeds: Sequence[CellResults]) -> Group:
    done = tuple(c for c in seeds if c.done and not c.evals.empty)
    counted = done or tuple(c for c in seeds if c.status != WorkState.FAILED and not c.evals.empty)
    return Group(label, seeds[0].method, counted, tuple(c for c in seeds if c not in counted))


def pictures_key(cell: CellResults) -> str:
    """What decides which pictures are drawn and how they are scored: cells that agree on it can be paired."""
    tree = essential(cell.config)
    keys = ("model", "eval", "eval_rewards", "digests", "dcot")
    return _text([cell.config["model"]["name"], *(tree[key] for key in keys if key in tree)])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
