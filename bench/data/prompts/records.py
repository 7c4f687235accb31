"""Files of records, one for each prompt: JSON lines, a JSON list, or a CSV table with a header.

What else looks like a table or like structured text is refused rather than read as lines of text.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.base.errors import BenchError

SUFFIXES = (".jsonl", ".json", ".csv")
TEXT = (".txt", "")
HEADERS = re.compile(r"(prompt|caption)s?(_en)?:?", re.IGNORECASE)


class Row(NamedTuple):
    """One record, and where it stands: `FILE: line 3`, or `FILE: entry 3`."""

    where: str
    values: dict[str, Any]


def read(path: Path) -> list[Row]:
    """The records of a JSON list (.json), a table (.csv) or, by any other name, of lines of JSON. A text in
    place of an object is {"prompt": text}.

    Raises BenchError, naming the place, if one is malformed or says something twice.
    """
    text, suffix = text_of(path), path.suffix.lower()
    if suffix == ".csv":
        return _csv(path, text)
    if suffix != ".json":
        places = [(f"{path}: line {number}", line) for number, line in numbered(text)]
        return [_row(where, parse_json(where, line)) for where, line in places]
    tree = parse_json(str(path), text)
    if not isinstance(tree, list):
        raise BenchError(f'{path}: expected a list: ["a red cube", …] or [{{"prompt": "a red cube"}}, …]')
    return [_row(f"{path}: entry {n}", entry) for n, entry in enumerate(tree, start=1)]


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, with their numbers from 1.

    Raises BenchError for a file that is another kind's by its name or by what is in it.
    """
    if path.suffix.lower() not in TEXT:
        known = ", ".join((".txt with a prompt in each line", *SUFFIXES))
        raise BenchError(f"{path}: files like {path.suffix} are not read as prompts. Known: {known}")
    found = numbered(text_of(path))
    if found:
        _check_is_text(path, found)
    return found


def _check_is_text(path: Path, found: Sequence[tuple[int, str]]) -> None:
    number, first = found[0]
    if first[0] in "[{":
        kind = "JSON: call the file .json, or .jsonl if each line is an object"
    elif any("\t" in line for _, line in found):
        number = next(number for number, line in found if "\t" in line)
        kind = "a table with tabs: keep the prompts alone, or make it a .csv with a column `prompt`"
    elif _is_header(first):
        kind = "the header of a table: call the file .csv, or remove the line"
    elif len(found) > 1 and all(line.startswith("- ") for _, line in found):
        kind = "a list of YAML or Markdown: remove the dashes"
    else:
        return
    raise BenchError(f"{path}: line {number} is no prompt but looks like {kind}")


def _is_header(line: str) -> bool:
    """Whether a line names columns, prompts among them: `prompt`, `id,prompt`, `"prompt";"split"`."""
    cells = [cell.strip().strip("\"'") for cell in re.split(r"[,;|]", line)]
    named = any(HEADERS.fullmatch(cell) for cell in cells)
    return named and not any(" " in cell for cell in cells)


def text_of(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark. Raises BenchError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such prompt file") from error
    except OSError as error:
        raise BenchError(f"{path}: cannot read the prompt file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not UTF-8 text (byte {error.start}): {error.reason}") from error


def numbered(text: str) -> list[tuple[int, str]]:
    """Stripped lines that are not blank, with their numbers from 1."""
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in stripped if line]


def _row(where: str, value: Any) -> Row:
    if isinstance(value, str):
        return Row(where, {"prompt": value})
    if not isinstance(value, dict):
        raise BenchError(f'{where} is not an object; expected one such as {{"prompt": "a red cube"}}')
    return Row(where, value)


def parse_json(where: str, text: str) -> Any:
    """A JSON value. Raises BenchError for what is none, and for an object that says a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := next((name for n, name in enumerate(names) if name in names[:n]), None):
            raise BenchError(f"{where}: '{twice}' is twice in one object; keep one")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        raise BenchError(f"{where} is not JSON: {error}") from error


def _csv(path: Path, text: str) -> list[Row]:
    """The lines of a table by the names of its columns."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        table = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise BenchError(f"{path}: line {reader.line_num}: not a CSV table: {error}") from error
    (_, header), *rest = [one for one in table if any(one[1])] or [(1, [])]
    if "prompt" not in header or len(set(header)) < len(header):
        said = ", ".join(header) or "nothing"
        raise BenchError(f"{path}: the first line must name the columns, `prompt` once; it has: {said}")
    for number, cells in rest:
        if len(cells) != len(header):
            raise BenchError(
                f"{path}: line {number} has {len(cells)} cells, the header {len(header)}: put prompts with "
                "commas in double quotes"
            )
    return [Row(f"{path}: line {n}", dict(zip(header, cells, strict=True))) for n, cells in rest]
