"""Prompts in the formats that their authors publish them in: files in, texts out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from bench.base.errors import BenchError
from bench.data.prompts.records import parse_json, text_of


def distinct(prompts: Iterable[str]) -> tuple[str, ...]:
    """The prompts in their order, without empty ones and without repetitions.

    Runs of white space become one space, and texts that differ only in white space or in capital letters are
    one prompt, the first: what is held out must not be seen in training with another capital.
    """
    first: dict[str, str] = {}
    for prompt in prompts:
        text = " ".join(prompt.split())
        if text:
            first.setdefault(text.casefold(), text)
    return tuple(first.values())


def json_texts(path: Path) -> list[str]:
    """A JSON list of texts (HPDv2's benchmark files)."""
    value = parse_json(str(path), text_of(path))
    if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
        raise BenchError(f"{path}: expected a JSON list of texts")
    return value


def json_field(path: Path, field: str) -> list[str]:
    """One field of a JSON list of objects (VBench's suite)."""
    value = parse_json(str(path), text_of(path))
    if not isinstance(value, list):
        raise BenchError(f"{path}: expected a JSON list of objects")
    for place, record in enumerate(value):
        if not isinstance(record, dict) or field not in record or not isinstance(record[field], str):
            raise BenchError(f"{path}: entry {place} has no text '{field}'")
    return [record[field] for record in value]


def table_column(path: Path, column: str, dialect: str) -> list[str]:
    """One column of a table whose first line has the names of the columns.

    dialect: `csv`, comma-separated with quotes where needed (DrawBench), or `tsv`, tab-separated, where a
    quotation mark is a character like others (PartiPrompts).
    """
    text = io.StringIO(text_of(path), newline="")
    if dialect == "tsv":
        rows = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if column not in header:
            raise BenchError(f"{path}: no column '{column}', but {', '.join(header) or 'nothing'}")
        place = header.index(column)
        return [row[place] for row in rows if len(row) > place]
    except csv.Error as error:
        raise BenchError(f"{path}: not a {dialect} table: {error}") from error


def parquet_column(path: Path, column: str) -> list[str]:
    """One column of a parquet file (Pick-a-Pic), without its nulls."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BenchError(f"{path}: reading parquet needs pyarrow: pip install pyarrow") from error
    try:
        table = parquet.read_table(path, columns=[column])
    except (pyarrow.ArrowException, OSError) as error:
        raise BenchError(f"{path}: cannot be read as parquet: {error}") from error
    if column not in table.column_names:
        raise BenchError(f"{path}: no column '{column}'")
    return [value for value in table.column(column).to_pylist() if value is not None]
