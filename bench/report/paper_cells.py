"""The cells that published numbers of the RLR paper may belong to.

A model that the paper does not have may stand in, with rewards and prompts of its own where its file says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    def cell(self) -> CellResults:
        """One of its cells; they differ in their seeds alone."""
        return (*self.group.cells, *self.group.left_out)[0]

    @property
    def finished(self) -> bool:
        """Whether a seed is; those that are not do not count then."""
        return bool(self.group.cells) and all(cell.done for cell in self.group.cells)

    @property
    def setting(self) -> dict[str, Any]:
        """What tells two candidates for one published number apart."""
        tree = essential(self.cell.config)
        training = tree["training"] or {}
        kept = {key: training[key] for key in ("method", "train") if key in training}
        return {**kept, "model": tree["model"]["config"], "eval": tree["eval"]}


@dataclass(frozen=True)
class StandIn:
    """A model in the place of the paper's, and which names of rewards and prompts its own stand in for."""

    model: str
    names: Mapping[str, str]

    def of(self, name: str) -> str:
        """Its own reward or prompts for the paper's."""
        return self.names.get(name, name)

    @property
    def flags(self) -> str:
        """What `bench run` is told to take it."""
        name = self.model.removesuffix(WITH_RANDOM)
        return f"--model {shlex.quote(name)}" + ("" if name == self.model else f" --weights {RANDOM}")


def made_for(cells: Sequence[CellResults]) -> set[str]:
    """Names of the experiments that cells were run with, by the command that each recorded."""
    words = [shlex.split(str(cell.env["command"])) for cell in cells if "command" in cell.env]
    options = [f"{a} {b}" for line in words for a, b in zip(line, [*line[1:], ""], strict=True)]
    names = [o.split(" ", 1)[1] for o in options if o.startswith("--config ")]
    names += [
        word.removeprefix("--config=") for line in words for word in line if word.startswith("--config=")
    ]
    return {Path(name).stem for name in names}


def candidates(results: Results) -> list[Candidate]:
    """All groups of a results directory, each base model once."""
    bases: dict[str, Candidate] = {}
    groups: list[Candidate] = []
    for contest in contests(results):
        groups += [Candidate(contest, group) for group in contest.groups]
        if contest.base is not None:
            base = Candidate(contest, contest.base)
            bases.setdefault(base.cell.id, base)
    return [*bases.values(), *groups]


def models(table: PaperTable, found: Sequence[Candidate]) -> Iterator[StandIn | None]:
    """None for the paper's own models if one of them was trained, and each other model that was."""
    own = {line.model for line in table.lines}
    names = dict.fromkeys(model_of(c.cell) for c in found if c.group.method != BASE)
    if own & set(names):
        yield None
    for name in names:
        if name not in own:
            plain = name.removesuffix(WITH_RANDOM)
            yield StandIn(name, model_file(plain)[1].stand_ins if plain in shipped("models") else {})


def model_of(cell: CellResults) -> str:
    """The model's name; another one where weights of it or of a reward are random numbers."""
    drawn = any(str(digest).startswith(f"{RANDOM}:") for digest in cell.config["digests"].values())
    return cell.config["model"]["name"] + (WITH_RANDOM if drawn else "")


def matching(
    table: PaperTable,
    line: PaperLine,
    quantity: Quantity,
    stand_in: StandIn | None,
    found: Sequence[Candidate],
) -> list[Candidate]:
    """The cells that a number belongs to: those run for its table, if there are any, else all that agree."""
    if quantity.measure != "score" and not line.methods:
        return []
    agree = [c for c in found if _agrees(c, line, quantity, stand_in)]
    own = [c for c in agree if table.experiment in made_for([*c.group.cells, *c.group.left_out])]
    return own or agree


def _agrees(candidate: Candidate, line: PaperLine, quantity: Quantity, stand_in: StandIn | None) -> bool:
    config, contest = candidate.cell.config, candidate.contest
    model, reward, prompts = line.model, quantity.reward, quantity.prompts
    if stand_in is not None:
        model, reward, prompts = stand_in.model, stand_in.of(reward), stand_in.of(prompts)
    method = candidate.group.method
    return (
        (method in line.methods if line.methods else method == BASE)
        and (reward == contest.reward if line.methods else reward in contest.rewards)
        and model_of(candidate.cell) == model
        and config["prompts"] == prompts
        and (config.get("dcot") is not None) == line.dcot
        and all(value_of(config, key) == value for key, value in line.settings.items())
    )


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """A setting by its dotted key; None where there is none."""
    tree: Any = config
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
