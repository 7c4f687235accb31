"""What of two sides is compared with what: `bench compare`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.base.errors import BenchError
from bench.base.labels import flat
from bench.protocol.sides import Entry, Field

Names = Sequence[tuple[str, str]]  # (method in A, method in B)

ROUNDING = 1e-5  # of a record's numbers, relative


class Alone(NamedTuple):
    """What only one side has, and so is not compared. side: A or B. method: None for all of a place."""

    side: str
    place: str
    method: str | None


def parse_methods(text: str) -> list[tuple[str, str]]:
    """`full_bp,ddpo:rlr`: (method in A, method in B). Raises BenchError."""
    pairs: list[tuple[str, str]] = []
    for part in re.split(r",(?![^(]*\))", text):  # not in a label's parentheses
        one, colon, other = (piece.strip() for piece in part.partition(":"))
        if not one or (colon and not other):
            raise BenchError(f"--methods {text}: expected NAME, or NAME_IN_A:NAME_IN_B, with commas between")
        pairs.append((one, other or one))
    return list(dict.fromkeys(pairs))


def place(field: Field) -> str:
    """What is compared there: model, reward and prompts."""
    return f"{field.model}, trained on {field.reward}, {field.prompts}"


def fields(a: Sequence[Field], b: Sequence[Field]) -> tuple[list[tuple[str, Field, Field]], list[Alone]]:
    """Fields that belong together, with a name for each: those of the same pictures, then those of one model,
    reward and prompt set where each side has one left. The others are alone."""
    pairs, left, right = list[tuple[Field, Field]](), list(a), list(b)

    def together(ours: Field, theirs: Field) -> None:
        pairs.append((ours, theirs))
        left.remove(ours)
        right.remove(theirs)

    for ours in a:
        same = [f for f in right if place(f) == place(ours) and ours.draws_as(f)]
        if same:
            together(ours, same[0])
    for ours in list(left):
        mine, others = ([f for f in some if place(f) == place(ours)] for some in (left, right))
        if len(mine) == len(others) == 1:
            together(ours, others[0])
    names = [place(ours) for ours, _ in pairs]
    named = [
        (name if names.count(name) == 1 else f"{name} ({ours.title})", ours, theirs)
        for name, (ours, theirs) in zip(names, pairs, strict=True)
    ]
    return named, [*(Alone("A", f.title, None) for f in left), *(Alone("B", f.title, None) for f in right)]


def entries(
    ours: Field, theirs: Field, names: Names | None
) -> tuple[list[tuple[Entry, Entry]], list[tuple[str, Entry]]]:
    """Methods that are compared, and (A or B, method) for those that only one side has.

    names: what to compare; None: every method with itself. Raises BenchError for a name that says too little.
    """
    if names is not None:
        asked = [(_named(ours, one), _named(theirs, other)) for one, other in names]
        return [(one, other) for one, other in asked if one is not None and other is not None], []
    pairs, left, right = list[tuple[Entry, Entry]](), list(ours.entries), list(theirs.entries)
    for equal in (True, False):  # first those of equal settings, then methods that are left once on each side
        for one in list(left):
            mine, others = ([e for e in some if e.method == one.method] for some in (left, right))
            if equal:
                others = [e for e in others if one.settings is not None and e.settings == one.settings]
            if len(others) == 1 and (equal or len(mine) == 1):
                pairs.append((one, others[0]))
                left.remove(one)
                right.remove(others[0])
    pairs.sort(key=lambda pair: ours.entries.index(pair[0]))
    return pairs, [*(("A", entry) for entry in left), *(("B", entry) for entry in right)]


def _named(field: Field, name: str) -> Entry | None:
    """By its label, else a method that has one setting; None if it is not there."""
    found = [e for e in field.entries if e.label == name] or [e for e in field.entries if e.method == name]
    if len(found) > 1:
        known = ", ".join(f"'{entry.label}'" for entry in found)
        raise BenchError(f"--methods: {name} has several settings in {field.title}: name one of {known}")
    return found[0] if found else None


def notes(where: str, ours: Field, theirs: Field) -> list[str]:
    """What a reader has to know of a field's pictures."""
    if not ours.draws_as(theirs):
        what = "; ".join(changes(ours.setting, theirs.setting)) or "other rewards are scored"
        if ours.pictures is None or theirs.pictures is None:
            what = f"the base model's cell is {ours.base_cell} in A, {theirs.base_cell} in B"
        return [f"{where}: A and B do not draw the same pictures, so none are paired ({what})."]
    if math.isclose(ours.base, theirs.base, rel_tol=ROUNDING) or not math.isfinite(ours.base + theirs.base):
        return []
    return [
        f"{where}: the base model itself scores {ours.base:.6g} in A and {theirs.base:.6g} in B, on the same "
        "pictures: evaluation differs, and with it every difference."
    ]


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """`train.lr 0.001 → 0.003` for every setting that differs."""
    one, other = flat(before), flat(after)
    keys = [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]
    return [f"{key} {one.get(key, '–')} → {other.get(key, '–')}" for key in keys]
