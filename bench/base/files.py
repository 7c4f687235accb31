"""Files that are whole or not there, and logs of one JSON object per line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.base.errors import BenchError, Damaged

Record = dict[str, Any]  # a line of a log
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def existing(place: Path) -> Path:
    """The place itself, absolute, or the nearest directory above it that exists."""
    place = place.expanduser().absolute()
    while not place.exists():
        place = place.parent
    return place


def write_atomically(path: Path, data: bytes | str) -> None:
    """Put a whole file in place, or leave what was there. Raises BenchError when the disk is full."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # where the directory is a file, this fails, too
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> BenchError:
    if error.errno in FULL:
        return BenchError(
            f"no space left to write {path}. What was written before is intact: free some space, "
            "then give the same command again."
        )
    return BenchError(f"cannot write {path}: {error.strerror}")


def append_rows(path: Path, rows: Iterable[Record]) -> None:
    """Add lines to a log in one write."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    try:
        with path.open("ab", buffering=0) as stream:
            data = memoryview(text.encode())
            while data:
                data = data[stream.write(data) :]
    except OSError as error:
        raise _cannot_write(path, error) from error


def read_rows(path: Path, most: int | None = None) -> list[Record]:
    """The complete lines of a log; a line that a kill cut short is not one. No file: no lines.

    most: stop after so many. Raises Damaged for a line that is no JSON object.
    """
    if not path.exists():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    return [_row(path, n, line) for n, line in enumerate(lines[:most], start=1)]


def _row(path: Path, number: int, line: bytes) -> Record:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Damaged(f"{path}:{number}", error) from error
    if not isinstance(row, dict):
        raise Damaged(f"{path}:{number}", "no JSON object")
    return row


def read_json(path: Path) -> Record | None:
    """The JSON object in a file; None if there is no file. Raises Damaged for anything else."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Damaged(path, error) from error
    if not isinstance(content, dict):
        raise Damaged(path, "no JSON object")
    return content


def cut_rows(path: Path, step: int) -> None:
    """Drop the lines of a log that lie after a step."""
    if path.exists():
        write_rows(path, [row for row in read_rows(path) if row["step"] <= step])


def write_rows(path: Path, rows: Iterable[Record]) -> None:
    """Put a log with these lines in place of what was there."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
