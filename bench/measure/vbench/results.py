"""Scores from files: VBench's own result files, tables (CSV), and JSON as leaderboards have it.

Every reader gives rows: one model each, dimension → fraction. A file's numbers are percent if one of them has
a percent sign or is above 1, else fractions; its column `unit` overrides that, and the option `unit` both.
Its column `notes` says which scores are not official, as `vbench table` writes it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError
from bench.measure.vbench import notation
from bench.measure.vbench.dimension_status import read_status
from bench.measure.vbench.dimensions import DIMENSIONS, canonical
from bench.measure.vbench.notation import Unit
from bench.measure.vbench.own_videos import disagreement

PRINTED = {
    "quality_score": "quality",
    "semantic_score": "semantic",
    "total_score": "total",
    "weighted_average": "weighted_average",
}
SUFFIX = "_eval_results.json"
NAMES = ("method", "model", "name")  # beginnings of the column that names a row


@dataclass(frozen=True)
class ScoreRow:
    """One model. scores: dimension → fraction. printed: aggregates that the file states, fractions.

    half_units: dimension or printed aggregate → half the unit of the last digit that its column shows, as a
    fraction; none for full precision.
    notes: dimension → why its score is not the official one. whole: all dimensions were to be scored, so that
    those without a score are missing.
    """

    name: str
    scores: dict[str, float]
    printed: dict[str, float] = field(default_factory=dict)
    half_units: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    whole: bool = False


def read(paths: Sequence[Path], unit: Unit = "auto") -> list[ScoreRow]:
    """The rows of files and of `vbench score`'s directories, names made unique. Raises BenchError."""
    found: dict[str, ScoreRow] = {}
    for row in (row for path in paths for row in _read(path, unit)):
        names = (row.name, *(f"{row.name} ({number})" for number in range(2, len(found) + 3)))
        name = next(name for name in names if name not in found)
        found[name] = replace(row, name=name)
    return list(found.values())


def _read(path: Path, unit: Unit) -> list[ScoreRow]:
    if path.is_dir():
        return [_directory(path)]
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in (".csv", ".json") and not text.strip():
            raise BenchError(f"{path}: empty. Leave the file out")
        if path.suffix.lower() == ".csv":
            return _table(path, _csv(path, text), unit)
        if path.suffix.lower() == ".json":
            return _json(path, json.loads(text, object_pairs_hook=lambda pairs: _object(path, pairs)), unit)
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read: {error}") from error
    except (ValueError, csv.Error) as error:
        raise BenchError(f"{path}: not valid {path.suffix[1:]}: {error}") from error
    raise BenchError(f"{path}: expected a .csv or .json file, or a directory that `vbench score` wrote")


def _directory(path: Path) -> ScoreRow:
    """All result files of a model as one row."""
    scores = path / "scores" if (path / "scores").is_dir() else path
    files = sorted(scores.glob(f"*{SUFFIX}"))
    if not files:
        ask = f"python -m bench vbench score {path}/videos"
        raise BenchError(f"{path}: no *{SUFFIX} in it. Score its videos:  {ask}")
    model = scores.absolute().parent if scores.name == "scores" else scores.absolute()
    row, origin = ScoreRow(model.name, {}, whole=True), dict[str, Path]()
    for file in files:
        (one,) = _read(file, "auto")
        for name, value in one.scores.items():
            if name in origin:
                raise BenchError(f"{name} is in {origin[name]} and in {file}: remove one, or name the other")
            origin[name], row.scores[name] = file, value
        row.notes.update(one.notes)
    for name, status in read_status(scores).items():
        if name in row.scores and status.partial:
            row.notes[name] = ", ".join(filter(None, (status.partial, row.notes.get(name))))
    return row


def _csv(path: Path, text: str) -> list[dict[str, Any]]:
    """The lines that are not empty, by the header's names."""
    header, *lines = [line for line in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, line))]
    if not lines:
        raise BenchError(f"{path}: empty: there is no line under the header. Leave the file out")
    _once(path, header)
    for n, line in enumerate(lines, 1):
        if any(map(str.strip, line[len(header) :])):
            raise BenchError(
                f"{path}: model {n} ({line[0]}) has {len(line)} cells, the header {len(header)}: put text "
                "with commas in quotes, or add the columns"
            )
    return [dict(zip(header, line, strict=False)) for line in lines]


def _object(path: Path, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which nothing is said twice."""
    names = [name for name, _ in pairs]
    _once(path, names)
    for n, name in enumerate(names):
        if name in names[:n]:
            raise BenchError(f"{path}: '{name}' is twice in one object: keep one")
    return dict(pairs)


def _once(path: Path, columns: Sequence[str]) -> None:
    """Raise BenchError if two columns are of one dimension or aggregate."""
    found: dict[str, str] = {}
    for column in columns:
        name = canonical(column)
        if name in found:
            raise BenchError(f"{path}: '{found[name]}' and '{column}' are both {name}: keep one of them")
        if name in DIMENSIONS or name in PRINTED:
            found[name] = column


def _json(path: Path, tree: Any, unit: Unit) -> list[ScoreRow]:
    """VBench's {dimension: [score, videos]}, {dimension: score}, {model: {dimension: score}}, or rows."""
    stem = path.name.removesuffix(".json").removesuffix(SUFFIX.removesuffix(".json"))
    if isinstance(tree, list) and tree and all(isinstance(entry, dict) for entry in tree):
        return _table(path, tree, unit)
    if not isinstance(tree, dict) or not tree:
        raise BenchError(f"{path}: expected VBench's results, or numbers by dimension, or those by model")
    if all(isinstance(value, list) and value for value in tree.values()):
        flat = {name: value[0] for name, value in tree.items()}
        (row,) = _table(path, [{"name": stem, **flat}], "fraction")
        said = {canonical(name): value for name, value in tree.items() if canonical(name) in DIMENSIONS}
        told = {name: disagreement(path, name, value) for name, value in said.items()}
        return [replace(row, notes={name: why for name, why in told.items() if why})]
    for name, value in tree.items():
        if isinstance(value, dict) and canonical(name) in (*PRINTED, *PRINTED.values()):
            raise BenchError(
                f"{path}: '{name}' groups dimensions, which is not supported: put the dimensions of all "
                "groups side by side in one object"
            )
    if all(isinstance(value, dict) for value in tree.values()):
        return _table(path, [{**values, "name": name} for name, values in tree.items()], unit)
    return _table(path, [{"name": stem, **tree}], unit)


def _table(path: Path, records: Sequence[Mapping[str, Any]], unit: Unit) -> list[ScoreRow]:
    columns = list(dict.fromkeys(str(key) for record in records for key in record))
    known = _columns(path, columns)
    label = next((c for c in columns if canonical(c).startswith(NAMES) and c not in known), None)
    if label is None:
        raise BenchError(f"{path}: no column says whose scores these are: call one `method`")
    names = [_unlinked(notation.plain(record.get(label))) for record in records]
    if "" in names:
        n = names.index("") + 1
        raise BenchError(f"{path}: model {n} of {len(names)} has no name: write one under '{label}'")
    numbers = [notation.numerals(path, record, known) for record in records]
    if not any(row.keys() & DIMENSIONS.keys() for row in numbers):
        raise BenchError(f"{path}: no score in it: every row is empty. Leave the file out")
    unit = notation.stated_unit(records) if unit == "auto" else unit
    percent = unit == "percent" or (unit == "auto" and notation.is_percent(path, names, numbers))
    factor, kind = (0.01, "percent") if percent else (1.0, "fractions")
    as_text = not any(isinstance(record.get(column), int | float) for record in records for column in known)
    units = notation.half_units(numbers, kept_zeros=as_text)
    half_units = {PRINTED.get(key, key): factor * half for key, half in units.items()}
    rows: list[ScoreRow] = []
    for name, record, row in zip(names, records, numbers, strict=True):
        scaled = {key: factor * number.value for key, number in row.items()}
        for key, value in scaled.items():
            if not -1.0 <= value <= 1 + 1e-9:  # some are cosines
                raise BenchError(f"{path}: {key} is {row[key].value:g}, not a score (read as {kind})")
        scores = {key: value for key, value in scaled.items() if key in DIMENSIONS}
        printed = {PRINTED[key]: value for key, value in scaled.items() if key in PRINTED}
        notes = {key: why for key, why in notation.read_notes(record).items() if key in scores}
        rows.append(ScoreRow(name, scores, printed, half_units, notes))
    return rows


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


def _unlinked(name: str) -> str:
    """`[LaVie](https://…)` → `LaVie`."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", name).strip()
