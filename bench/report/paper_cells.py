"""The cells that published numbers of the RLR paper may belong to.

A model that the paper does not have may stand in, with rewards and prompts of its own where its file says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.base.layers import shipped
from bench.experiment.identity import essential
from bench.experiment.model_files import RANDOM, model_file
from bench.report.groups import Contest, Group, contests
from bench.report.load import BASE, CellResults, Results
from bench.report.paper_tables import PaperLine, PaperTable, Quantity

WITH_RANDOM = " with random weights"


@dataclass(frozen=True, eq=False)
class Candidate:
    """The seeds of one setting, or a base model, and the contest that they are in."""

    contest: Contest
    group: Group

    @property
    def cells(self) -> tuple[CellResults, ...]:
        """All of them, whether they count or not."""
        return (*self.group.cells, *self.group.left_out)

    @property
    def config(self) -> dict[str, Any]:
        """The settings of one of its cells; they differ in their seeds alone."""
        return self.cells[0].config

    @property
    def finished(self) -> bool:
        """Whether a seed is; those that are not do not count then."""
        return bool(self.group.cells) and all(cell.done for cell in self.group.cells)

    @property
    def model(self) -> str:
        """Its model's name; another one where weights of it or of a reward are random numbers."""
        drawn = any(str(digest).startswith(f"{RANDOM}:") for digest in self.config["digests"].values())
        return self.config["model"]["name"] + (WITH_RANDOM if drawn else "")

    @property
    def setting(self) -> dict[str, Any]:
        """What tells two candidates for one published number apart."""
        tree = essential(self.config)
        training = tree["training"] or {}
        kept = {key: training[key] for key in ("method", "train") if key in training}
        return {**kept, "model": tree["model"]["config"], "eval": tree["eval"]}


@dataclass(frozen=True)
class Models:
    """The models whose cells a table stands beside: the paper's own, or one that stands in for them.

    stand_in: its name, empty for the paper's own. names: the paper's rewards and prompts → those of the
    stand-in.
    """

    stand_in: str
    names: Mapping[str, str]

    def of(self, name: str) -> str:
        """The reward or prompts of its cells for the paper's."""
        return self.names.get(name, name)

    def model(self, line: PaperLine) -> str:
        """The model of its cells for a line."""
        return self.stand_in or line.model

    @property
    def flags(self) -> str:
        """What `bench run` is told to take the stand-in."""
        name = self.stand_in.removesuffix(WITH_RANDOM)
        return f"--model {shlex.quote(name)}" + ("" if name == self.stand_in else f" --weights {RANDOM}")


def made_for(cells: Sequence[CellResults]) -> set[str]:
    """Names of the experiments that cells were run with, by the command that each recorded."""
    commands = [str(cell.env.get("command", "")).replace("--config=", "--config ") for cell in cells]
    words = [word for command in commands for word in shlex.split(command)]
    return {Path(value).stem for option, value in pairwise(words) if option == "--config"}


def candidates(results: Results) -> list[Candidate]:
    """All groups of a results directory, each base model once."""
    bases: dict[str, Candidate] = {}
    groups: list[Candidate] = []
    for contest in contests(results):
        groups += [Candidate(contest, group) for group in contest.groups]
        if contest.base is not None:
            base = Candidate(contest, contest.base)
            bases.setdefault(base.cells[0].id, base)
    return [*bases.values(), *groups]


def models(table: PaperTable, found: Sequence[Candidate]) -> Iterator[Models]:
    """The paper's own models if one of them was trained, and each other one that was."""
    own = {line.model for line in table.lines}
    names = dict.fromkeys(candidate.model for candidate in found if candidate.group.method != BASE)
    if own & set(names):
        yield Models("", {})
    for name in names:
        if name not in own:
            plain = name.removesuffix(WITH_RANDOM)
            yield Models(name, model_file(plain)[1].stand_ins if plain in shipped("models") else {})


def matching(
    table: PaperTable, line: PaperLine, quantity: Quantity, beside: Models, found: Sequence[Candidate]
) -> list[Candidate]:
    """The cells that a number belongs to: those run for its table, if there are any, else all that agree."""
    if quantity.measure != "score" and not line.methods:
        return []
    agree = [candidate for candidate in found if _agrees(candidate, line, quantity, beside)]
    own = [candidate for candidate in agree if table.experiment in made_for(candidate.cells)]
    return own or agree


def _agrees(candidate: Candidate, line: PaperLine, quantity: Quantity, beside: Models) -> bool:
    config, contest, method = candidate.config, candidate.contest, candidate.group.method
    reward = beside.of(quantity.reward)
    return (
        (method in line.methods if line.methods else method == BASE)
        and (reward == contest.reward if line.methods else reward in contest.rewards)
        and candidate.model == beside.model(line)
        and config["prompts"] == beside.of(quantity.prompts)
        and (config.get("dcot") is not None) == line.dcot
        and all(value_of(config, key) == value for key, value in line.settings.items())
    )


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """A setting by its dotted key; None where there is none."""
    tree: Any = config
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
