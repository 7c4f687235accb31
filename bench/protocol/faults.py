"""What is against the protocol in a record, in one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GO_ON = "the same `bench suite` command goes on"
ANEW = "let `bench suite` write the record anew, and change nothing in it"


@dataclass(frozen=True)
class Fault:
    """where: a file, with the line if there is one. what: is wrong. do: to mend it.

    missing: it is only not there yet; a leaderboard shows such a record, and marks it.
    """

    where: str
    what: str
    do: str = ANEW
    missing: bool = False

    @property
    def file(self) -> str:
        """`where` without the line, or the place in it."""
        return self.where.partition(":")[0]

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.do}"


def not_yet(where: str, what: str) -> Fault:
    """A fault of something that the suite has still to do."""
    return Fault(where, what, GO_ON, missing=True)


def once(path: Path, name: str, count: int) -> Iterator[Fault]:
    """The fault of a line that is not there once, but `count` times."""
    if count == 0:
        yield not_yet(at(path), f"{name} is not there")
    elif count > 1:
        yield Fault(at(path), f"{name} is there twice")


def told(faults: Sequence[Fault]) -> list[str]:
    """A line for each; of what is only not there yet the first of each file, and how many more there are."""
    missing: dict[str, list[Fault]] = {}
    for fault in faults:
        if fault.missing:
            missing.setdefault(fault.file, []).append(fault)
    lines = [str(fault) for fault in faults if not fault.missing]
    for first, *others in missing.values():
        lines.append(f"{first} ({len(others)} more of this file)" if others else str(first))
    return lines


def at(path: Path, line: int | None = None) -> str:
    """Where something is, as messages say it."""
    return str(path) if line is None else f"{path}:{line}"


def same(left: Any, right: Any) -> bool:
    """Whether two settings are equal; numbers to the six digits that a record has."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-5)
    return left == right
