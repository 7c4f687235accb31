"""How tables of scores write what they say: numbers, their unit and precision, and notes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bench.base.errors import BenchError
from bench.measure.vbench.dimensions import DIMENSIONS, canonical

Unit = Literal["auto", "percent", "fraction"]
NOTHING = ("", "-", "–", "—", "n/a", "na", "nan", "none", "null")


class Numeral(NamedTuple):
    """A number as it stands in a file, and how it is written there."""

    value: float
    text: str

    @property
    def signed(self) -> bool:
        """Whether it has a percent sign."""
        return "%" in self.text

    @property
    def decimals(self) -> int:
        """How many digits after the point it shows; it may be written as 1e-05."""
        digits, _, exponent = self.text.strip().removesuffix("%").lower().partition("e")
        return max(0, len(digits.strip().partition(".")[2]) - int(exponent or 0))


def plain(value: Any) -> str:
    """What stands in a table, as text; empty for nothing."""
    return "" if value is None else str(value).strip()


def numerals(path: Path, record: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Numeral]:
    """Dimension or printed aggregate → the number that a row has there, where it has one.

    known: column → dimension or aggregate. Raises BenchError for what is no finite number.
    """
    return {
        known[column]: _numeral(path, column, known[column], value)
        for column, value in record.items()
        if column in known and plain(value).lower() not in NOTHING
    }


def _numeral(path: Path, column: str, key: str, value: Any) -> Numeral:
    if isinstance(value, list | dict):
        raise BenchError(
            f"{path}: {column} is {json.dumps(value)[:40]} where a number is expected: mixed forms are "
            "not supported. Give every score as a number, or every one as VBench's [score, videos]"
        )
    text = str(value)
    try:
        found = float(text.strip().removesuffix("%"))
    except ValueError:
        raise BenchError(f"{path}: {key} is '{text}', not a number") from None
    if not math.isfinite(found):
        raise BenchError(f"{path}: {key} is {text}")
    return Numeral(found, text)


def is_percent(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Numeral]]) -> bool:
    """Whether a file's numbers are percent. names: of the rows. Raises BenchError if they disagree."""
    if not any(number.signed or number.value > 1 for row in rows for number in row.values()):
        return False
    for name, row in zip(names, rows, strict=True):
        for key, number in row.items():
            if not number.signed and 0 < number.value <= 1:
                raise BenchError(
                    f"{path}: {key} of {name} is {number.text}, which looks like a fraction, and others are "
                    "percent: write all of them in one unit, or say --unit"
                )
    return True


def half_units(rows: Sequence[Mapping[str, Numeral]], kept_zeros: bool) -> dict[str, float]:
    """Dimension or printed aggregate → half the unit of the last digit that its column shows.

    kept_zeros: whether 92.40 is written so; if not, dimensions are all as exact as the most exact one.
    """
    digits: dict[str, int] = {}
    for row in rows:
        for key, number in row.items():
            digits[key] = max(number.decimals, digits.get(key, 0))
    if not kept_zeros:
        dimensions = digits.keys() & DIMENSIONS.keys()
        digits |= dict.fromkeys(dimensions, max((digits[key] for key in dimensions), default=0))
    return {key: 0.5 * 10.0**-n for key, n in digits.items()}


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
