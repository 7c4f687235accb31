"""What single cells of a table of scores say: numbers, their unit and precision, and notes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from bench.base.errors import BenchError
from bench.measure.vbench.dimensions import DIMENSIONS, canonical

Unit = Literal["auto", "percent", "fraction"]
NOTHING = ("", "-", "–", "—", "n/a", "na", "nan", "none", "null")


def plain(value: Any) -> str:
    """A cell as text; empty if there is none."""
    return "" if value is None else str(value).strip()


def numerals(path: Path, record: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """Dimension or printed aggregate → what a row has there, where it has something.

    known: column → dimension or aggregate. Raises BenchError for lists and objects.
    """
    found: dict[str, str] = {}
    for column, value in record.items():
        if column not in known or plain(value).lower() in NOTHING:
            continue
        if isinstance(value, list | dict):
            raise BenchError(
                f"{path}: {column} is {json.dumps(value)[:40]} where a number is expected: mixed forms are "
                "not supported. Give every score as a number, or every one as VBench's [score, videos]"
            )
        found[known[column]] = str(value)
    return found


def number(path: Path, key: str, text: str) -> float:
    """What a cell's text says, as it stands. Raises BenchError if that is no finite number."""
    try:
        found = float(text.strip().removesuffix("%"))
    except ValueError:
        raise BenchError(f"{path}: {key} is '{text}', not a number") from None
    if not math.isfinite(found):
        raise BenchError(f"{path}: {key} is {text}")
    return found


def is_percent(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a file's numbers are percent. names: of the rows. Raises BenchError if they disagree."""
    if not any("%" in text or number(path, key, text) > 1 for row in rows for key, text in row.items()):
        return False
    for name, row in zip(names, rows, strict=True):
        for key, text in row.items():
            if "%" not in text and 0 < number(path, key, text) <= 1:
                raise BenchError(
                    f"{path}: {key} of {name} is {text}, which looks like a fraction, and others are "
                    "percent: write all of them in one unit, or say --unit"
                )
    return True


def half_units(rows: Sequence[Mapping[str, str]], kept_zeros: bool) -> dict[str, float]:
    """Dimension or printed aggregate → half the unit of the last digit that its column shows.

    kept_zeros: whether 92.40 is written so; if not, dimensions are all as exact as the most exact one.
    """
    digits: dict[str, int] = {}
    for row in rows:
        for key, text in row.items():
            digits[key] = max(_decimals(text), digits.get(key, 0))
    longest = max((n for key, n in digits.items() if key in DIMENSIONS), default=0)
    if not kept_zeros:
        digits |= {key: longest for key in digits if key in DIMENSIONS}
    return {key: 0.5 * 10.0**-n for key, n in digits.items()}


def _decimals(text: str) -> int:
    """Digits after the point of a number, which may be written as 1e-05."""
    digits, _, exponent = text.strip().removesuffix("%").lower().partition("e")
    return max(0, len(digits.strip().partition(".")[2]) - int(exponent or 0))


def field(record: Mapping[str, Any], name: str) -> str:
    """What a column that is no score says; empty without one."""
    return next((plain(value) for column, value in record.items() if canonical(column) == name), "")


def stated_unit(records: Sequence[Mapping[str, Any]]) -> Unit:
    """The unit that the rows' own column `unit` gives, if they agree."""
    found = {field(record, "unit").lower() for record in records}
    if found == {"percent"}:
        return "percent"
    return "fraction" if found == {"fraction"} else "auto"


def write_notes(notes: Mapping[str, str]) -> str:
    """`dimension: why; dimension: why`, the text of a column `notes`."""
    return "; ".join(f"{name}: {why}" for name, why in notes.items())


def read_notes(record: Mapping[str, Any]) -> dict[str, str]:
    """A row's notes as `write_notes` wrote them. Words before the first dimension are its author's own."""
    found: dict[str, str] = {}
    last = None
    for part in field(record, "notes").split(";"):
        name, colon, why = part.partition(":")
        if colon and canonical(name) in DIMENSIONS:
            last = canonical(name)
            found[last] = why.strip()
        elif last is not None:
            found[last] += f";{part}"
    return found
