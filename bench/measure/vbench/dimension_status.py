"""How dimensions stand: `OUT/scores/status/DIMENSION.json`, one for each that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.base.strict import Strict


class DimensionStatus(Strict):
    """How a dimension stands.

    videos: that were given; scored: that VBench has a score of; expected: of the full suite, None for custom
    videos. ways: commands that get missing weights. partial: why the score is not the official one; empty if
    it is. fingerprint: of what was scored. killed: its process was, perhaps for its memory.
    """

    state: Literal["done", "missing", "failed"]
    message: str = ""
    ways: tuple[str, ...] = ()
    score: float | None = None
    videos: int = 0
    scored: int = 0
    expected: int | None = None
    partial: str = ""
    fingerprint: str = ""
    seconds: float = 0.0
    killed: bool = False


def status_file(scores: Path, dimension: str) -> Path:
    """Where a dimension's status is: a file of its own, since several processes may score at once."""
    return scores / "status" / f"{dimension}.json"


def read_status(scores: Path) -> dict[str, DimensionStatus]:
    """How the dimensions stand, by name; nothing if none was ever asked for. Raises BenchError if damaged."""
    names = sorted(path.stem for path in (scores / "status").glob("*.json"))
    return {name: status for name in names if (status := status_of(scores, name)) is not None}


def status_of(scores: Path, dimension: str) -> DimensionStatus | None:
    """How one dimension stands; None if it was never asked for. Raises BenchError if damaged."""
    path = status_file(scores, dimension)
    try:
        return DimensionStatus.model_validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError as error:
        raise BenchError(f"{path}: damaged, or of another version. Remove it to score again") from error


def write_status(scores: Path, dimension: str, status: DimensionStatus) -> None:
    """Record how a dimension stands."""
    write_atomically(status_file(scores, dimension), status.model_dump_json(indent=2) + "\n")
