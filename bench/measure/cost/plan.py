"""A request for profiles → the cells to profile, and how."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.base.errors import BenchError
from bench.base.layers import Tree
from bench.experiment.overrides import Override
from bench.experiment.request import Experiment
from bench.experiment.resolve import Cell, only_trained, resolve_all

Mode = Literal["measured", "simulated"]


@dataclass(frozen=True)
class PlannedCosts:
    """A checked request. everything: all methods were asked for, so that some may be left out."""

    out: Path
    cells: list[Cell]
    mode: Mode
    everything: bool


def plan(
    experiment: Experiment, measured: bool | None, batch: int | None, graphs: str | None
) -> PlannedCosts:
    """Resolve the cells. Raises BenchError.

    measured: None decides: the embedded model is, larger ones are simulated, without any of their weights.
    batch: samples of the step, all at once through the network. graphs: `staged` or `joint`.
    """
    typed = _layers(batch, graphs)
    parts = [replace(part, overrides=(*part.overrides, *typed)) for part in experiment.combinations]
    everything = any(part.methods is None for part in parts)
    cells = only_trained(resolve_all(parts, fetch=False), named=not everything)
    if measured is None:
        measured = all((cell.config.model.config.source or "").startswith("embedded:") for cell in cells)
    if measured:
        cells = only_trained(resolve_all(parts), named=not everything)
    return PlannedCosts(experiment.out, cells, "measured" if measured else "simulated", everything)


def varied(settings: Sequence[str]) -> list[list[str]]:
    """Every combination of `KEY=A,B,…`, as --set takes them. Raises BenchError for one without values."""
    choices = []
    for text in settings:
        key, _, values = text.partition("=")
        if not key or not values:
            raise BenchError(f"--vary {text}: expected SECTION.KEY=VALUE,VALUE…")
        choices.append([f"{key}={value}" for value in values.split(",")])
    return [list(combination) for combination in itertools.product(*choices)]


def merged(found: Sequence[PlannedCosts]) -> PlannedCosts:
    """All their cells, each once; a setting need not concern every method."""
    cells = {cell.id: cell for planned in found for cell in planned.cells}
    return replace(found[0], cells=list(cells.values()))


def _layers(batch: int | None, graphs: str | None) -> list[Override]:
    train: Tree = {}
    if graphs is not None:
        if graphs not in ("staged", "joint"):
            raise BenchError(f"--graphs {graphs}: expected staged or joint")
        train["graphs"] = graphs
    if batch is not None:
        train |= {"batch_size": batch, "micro_batch": batch}
        if batch % 2:
            train["samples_per_prompt"] = 1
    return [Override("--batch and --graphs", {"train": train})] if train else []
