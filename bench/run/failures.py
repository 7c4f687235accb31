"""Why one of several processes that share work failed.

Only the first process keeps the work's status, and it may wait for the one that failed until it is killed; so
each of the others leaves a file.
"""

from __future__ import annotations

from bench.base.files import write_atomically
from bench.base.strict import Strict
from bench.run.store import Cause, WorkDir

FILES = "failure-*.json"


class Failure(Strict):
    """failure-<rank>.json."""

    message: str
    cause: Cause | None


def note(directory: WorkDir, rank: int, failure: Failure) -> None:
    """Leave word of it."""
    write_atomically(directory.path / f"failure-{rank}.json", failure.model_dump_json() + "\n")


def first(directory: WorkDir) -> Failure | None:
    """The oldest one: what came after it is its consequence. None: nobody left word."""
    files = sorted(directory.path.glob(FILES), key=lambda file: file.stat().st_mtime_ns)
    return Failure.model_validate_json(files[0].read_bytes()) if files else None


def forget(directory: WorkDir) -> None:
    """Those of an earlier run."""
    for file in directory.path.glob(FILES):
        file.unlink()
