"""Scores from files: VBench's own result files, tables (CSV), and JSON as leaderboards have it.

Every reader gives rows: one model each, dimension → fraction. A file's numbers are percent if one of them has
a percent sign or is above 1, else fractions; its column `unit` overrides that, and the option `unit` both. Its
column `notes` says of which scores are not official, as `vbench table` writes it.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from bench.vbench.dimensions import DIMENSIONS, canonical
from bench.vbench.score import read_status

Unit = Literal["auto", "percent", "fraction"]
PRINTED = {
    "quality_score": "quality",
    "semantic_score": "semantic",
    "total_score": "total",
    "weighted_average": "weighted_average",
}
SUFFIX = "_eval_results.json"
NOTHING = ("", "-", "–", "—", "n/a", "na", "nan", "none", "null")
NAMES = ("method", "model", "name")  # beginnings of the column that names a row


@dataclass(frozen=True)
class Row:
    """One model. scores: dimension → fraction. printed: aggregates that the file states, fractions.

    half_unit: half the unit of the last digit of the file's numbers, as a fraction; 0 for full precision.
    notes: dimension → why its score is not the official one. whole: all dimensions were to be scored, so that
    those without a score are missing.
    """

    name: str
    scores: dict[str, float]
    printed: dict[str, float] = field(default_factory=dict)
    half_unit: float = 0.0
    notes: dict[str, str] = field(default_factory=dict)
    whole: bool = False


def read(paths: Sequence[Path], unit: Unit = "auto") -> list[Row]:
    """The rows of files and of `vbench score`'s directories, names made unique. Raises BenchError."""
    rows = [row for path in paths for row in _read(path, unit)]
    found: list[Row] = []
    for row in rows:
        names = {other.name for other in found}
        number, name = 2, row.name
        while name in names:
            number, name = number + 1, f"{row.name} ({number})"
        found.append(replace(row, name=name))
    return found


def _read(path: Path, unit: Unit) -> list[Row]:
    if path.is_dir():
        return [_directory(path)]
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return _table(path, list(csv.DictReader(text.splitlines())), unit)
        if path.suffix.lower() == ".json":
            return _json(path, json.loads(text), unit)
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read: {error}") from error
    except (ValueError, csv.Error) as error:
        raise BenchError(f"{path}: not valid {path.suffix[1:]}: {error}") from error
    raise BenchError(f"{path}: expected a .csv or .json file, or a directory that `vbench score` wrote")


def _directory(path: Path) -> Row:
    """All result files of a model as one row."""
    scores = path / "scores" if (path / "scores").is_dir() else path
    files = sorted(scores.glob(f"*{SUFFIX}"))
    if not files:
        ask = f"python -m bench vbench score {path}/videos"
        raise BenchError(f"{path}: no *{SUFFIX} in it. Score its videos:  {ask}")
    model = scores.absolute().parent if scores.name == "scores" else scores.absolute()
    row, origin = Row(model.name, {}, whole=True), dict[str, Path]()
    for file in files:
        (one,) = _read(file, "auto")
        for name, value in one.scores.items():
            if name in origin:
                raise BenchError(f"{name} is in {origin[name]} and in {file}: remove one, or name the other")
            origin[name], row.scores[name] = file, value
    for name, status in read_status(scores).items():
        if name in row.scores and status.partial:
            row.notes[name] = status.partial
    return row


def _json(path: Path, tree: Any, unit: Unit) -> list[Row]:
    """VBench's {dimension: [score, videos]}, {dimension: score}, {model: {dimension: score}}, or rows."""
    stem = path.name.removesuffix(".json").removesuffix(SUFFIX.removesuffix(".json"))
    if isinstance(tree, list) and tree and all(isinstance(entry, dict) for entry in tree):
        return _table(path, tree, unit)
    if not isinstance(tree, dict) or not tree:
        raise BenchError(f"{path}: expected VBench's results, or numbers by dimension, or those by model")
    if all(isinstance(value, list) and value for value in tree.values()):
        flat = {name: value[0] for name, value in tree.items()}
        return _table(path, [{"name": stem, **flat}], "fraction")
    if all(isinstance(value, dict) for value in tree.values()):
        return _table(path, [{**values, "name": name} for name, values in tree.items()], unit)
    return _table(path, [{"name": stem, **tree}], unit)


def _table(path: Path, records: Sequence[Mapping[str, Any]], unit: Unit) -> list[Row]:
    columns = list(dict.fromkeys(str(key) for record in records for key in record))
    known = _columns(path, columns)
    label = next((c for c in columns if canonical(c).startswith(NAMES) and c not in known), None)
    if label is None:
        raise BenchError(f"{path}: no column says whose scores these are: call one `method`")
    texts = [
        {known[c]: str(record[c]) for c in known if c in record and _text(record[c]) not in NOTHING}
        for record in records
    ]
    if not any(row.keys() & DIMENSIONS.keys() for row in texts):
        raise BenchError(f"{path}: no score in it: every row is empty. Leave the file out")
    numbers = [{key: _number(path, key, text) for key, text in row.items()} for row in texts]
    percent = _percent(path, texts, numbers, _stated(records) if unit == "auto" else unit)
    factor = 0.01 if percent else 1.0
    digits = max((_decimals(text) for row in texts for text in row.values()), default=0)
    half_unit = 0.5 * 10.0**-digits * factor
    rows: list[Row] = []
    for record, values in zip(records, numbers, strict=True):
        scaled = {key: value * factor for key, value in values.items()}
        kind = "percent" if percent else "fractions"
        for key, value in scaled.items():
            if not -1.0 <= value <= 1 + 1e-9:  # some are cosines
                raise BenchError(f"{path}: {key} is {values[key]:g}, not a score (read as {kind})")
        scores = {key: value for key, value in scaled.items() if key in DIMENSIONS}
        printed = {PRINTED[key]: value for key, value in scaled.items() if key in PRINTED}
        notes = {key: why for key, why in read_notes(_field(record, "notes")).items() if key in scores}
        rows.append(Row(_plain(str(record[label])), scores, printed, half_unit, notes))
    return rows


def _field(record: Mapping[str, Any], name: str) -> str:
    """What a column that is no score says; empty without one."""
    return next((str(record[c] or "").strip() for c in record if canonical(c) == name), "")


def _stated(records: Sequence[Mapping[str, Any]]) -> Unit:
    """The unit that the rows' own column `unit` gives, if they agree."""
    found = {_field(record, "unit").lower() for record in records}
    if found == {"percent"}:
        return "percent"
    return "fraction" if found == {"fraction"} else "auto"


def write_notes(notes: Mapping[str, str]) -> str:
    """`dimension: why; dimension: why`, the text of a column `notes`."""
    return "; ".join(f"{name}: {why}" for name, why in notes.items())


def read_notes(text: str) -> dict[str, str]:
    """What `write_notes` wrote. Words before the first dimension are somebody's own and say nothing of one."""
    found: dict[str, str] = {}
    last = None
    for part in text.split(";"):
        name, colon, why = part.partition(":")
        if colon and canonical(name) in DIMENSIONS:
            last = canonical(name)
            found[last] = why.strip()
        elif last is not None:
            found[last] += f";{part}"
    return found


def _columns(path: Path, columns: Sequence[str]) -> dict[str, str]:
    """Column → dimension or printed aggregate. Others are let be, unless they look like one misspelt."""
    names = [*DIMENSIONS, *PRINTED]
    known = {column: canonical(column) for column in columns if canonical(column) in names}
    for column in columns:
        close = get_close_matches(canonical(column), names, n=1, cutoff=0.8)
        if column not in known and close:
            raise BenchError(f"{path}: column '{column}' is none of VBench's. Did you mean '{close[0]}'?")
    if not set(known.values()) & set(DIMENSIONS):
        raise BenchError(f"{path}: none of VBench's dimensions in it. Known: {', '.join(DIMENSIONS)}")
    return known


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip().lower()


def _number(path: Path, key: str, text: str) -> float:
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        raise BenchError(f"{path}: {key} is '{text}', not a number") from None
    if not math.isfinite(number):
        raise BenchError(f"{path}: {key} is {text}")
    return number


def _percent(
    path: Path, texts: Sequence[Mapping[str, str]], numbers: Sequence[Mapping[str, float]], unit: Unit
) -> bool:
    """Whether a file's numbers are percent. Raises BenchError if its rows do not agree on it."""
    if unit != "auto":
        return unit == "percent"
    if any("%" in text for row in texts for text in row.values()):
        return True
    largest = [max(row.values()) for row in numbers if row]
    if any(value > 1 for value in largest) and any(0 < value <= 1 for value in largest):
        raise BenchError(f"{path}: some rows look like percent, others like fractions: say --unit")
    return any(value > 1 for value in largest)


def _decimals(text: str) -> int:
    return len(text.strip().removesuffix("%").partition(".")[2])


def _plain(name: str) -> str:
    """`[LaVie](https://…)` → `LaVie`."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", name).strip()
