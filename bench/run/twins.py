"""One piece of work that lies in several results directories: whether it has the same numbers there.

The id covers what changes numbers (docs/results.md), so the same cell has the same ones wherever the same
program ran it, as far as both got; other versions of packages and other processors round otherwise. No torch
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.base.files import Record, read_rows
from bench.run.checkpoints import Checkpoints
from bench.run.store import WorkDir, WorkState

LOGS = ("eval.jsonl", "metrics.jsonl", "inference.jsonl", "draws.jsonl")
FOLDERS = ("cells", "gradients")
# What differs from run to run (docs/results.md), or depends on free memory.
OF_A_RUN = frozenset({"seconds", "compile_seconds", "drawing", "memory", "graphs_kept", "micro_batch"})


@dataclass(frozen=True)
class Chosen:
    """Which directory of work stands for all of its id.

    others: where the same numbers lie, as far as they go. conflicts: where others lie, and the first of them.
    """

    directory: WorkDir
    others: tuple[WorkDir, ...]
    conflicts: tuple[tuple[WorkDir, str], ...]


def by_id(results: Iterable[Path], folder: str) -> dict[str, list[WorkDir]]:
    """Where every piece of work below `folder` lies, in the order of the directories."""
    found: dict[str, list[WorkDir]] = {}
    for place in results:
        for path in sorted((place / folder).glob("*/")):
            found.setdefault(path.name, []).append(WorkDir(path))
    return dict(sorted(found.items()))


def choose(places: Sequence[WorkDir]) -> Chosen:
    """The one that got furthest among those with the numbers of the first. Raises Damaged."""
    best, others, conflicts = places[0], list[WorkDir](), list[tuple[WorkDir, str]]()
    for place in places[1:]:
        if what := differs(best, place):
            conflicts.append((place, what))
        elif _progress(place) > _progress(best):
            best, others = place, [*others, best]
        else:
            others.append(place)
    return Chosen(best, tuple(others), tuple(conflicts))


def differs(one: WorkDir, other: WorkDir) -> str:
    """The first number that differs, in words; empty if one has all numbers of the other. Raises Damaged."""
    compared = False
    for name in LOGS:
        ours, theirs = (read_rows(place.path / name) for place in (one, other))
        compared = compared or bool(ours and theirs)
        for number, (row, twin) in enumerate(zip(ours, theirs, strict=False), start=1):
            if what := _first_difference(row, twin):
                return f"{name}, line {number}: {what}"
    if not compared and _sums(one) and _sums(other) and not set(_sums(one)) & set(_sums(other)):
        return "checkpoint: no file is the same"
    return ""


def _first_difference(row: Record, twin: Record) -> str:
    for key in dict.fromkeys([*row, *twin]):
        if key not in OF_A_RUN and row.get(key) != twin.get(key):
            return f"{key} is {row.get(key)} and {twin.get(key)}"
    return ""


def _sums(place: WorkDir) -> list[str]:
    """The names of its checkpoints, which have the digests of their contents in them."""
    folder = place.path / "checkpoint"
    return [file.name for file in folder.glob("*.pt")] if Checkpoints(folder).steps() else []


def _progress(place: WorkDir) -> tuple[int, bool, int]:
    """How far it got: steps on record, whether it is done, lines of its logs."""
    status = place.status()
    lines = [read_rows(place.path / name) for name in LOGS]
    reached = max((row["step"] for rows in lines for row in rows), default=0)
    return reached, status.state is WorkState.DONE, sum(map(len, lines))
