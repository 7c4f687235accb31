"""How trials and final runs end: done, as a miss, or by a failure that somebody has to mend.

A miss is the method's own: its training left the finite numbers, or memory did not hold it. What was killed,
or lost its node, is still to be done. Anything else, such as an error in a plugin's code or a full disk, says
nothing of the method: it ends in an error, and not in a record.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.base.errors import BenchError
from bench.run.store import Cause, CellDir, Status, WorkState

MISSES = (Cause.NOT_FINITE, Cause.OUT_OF_MEMORY)


def has_ended(status: Status) -> bool:
    """Whether it is done, or a miss."""
    missed = status.state is WorkState.FAILED and status.cause in MISSES
    return status.state is WorkState.DONE or missed


def failed(status: Status) -> bool:
    """Whether it failed in a way that is no miss, and that the same command would only repeat."""
    return status.state is WorkState.FAILED and status.cause is None


def check_failures(cells: Iterable[tuple[str, CellDir]]) -> None:
    """Raise BenchError for those that failed and are no misses: the first of each message, and what to do.

    cells: what messages call them, and where they are.
    """
    found: dict[str, list[tuple[str, CellDir]]] = {}
    for name, cell in cells:
        if failed(status := cell.status()):
            found.setdefault(status.message or "no message", []).append((name, cell))
    if not found:
        return
    lines: list[str] = []
    places = dict.fromkeys(cell.path.parents[1] for some in found.values() for _, cell in some)
    for message, ((name, cell), *others) in found.items():
        more = f" (and {len(others)} more)" if others else ""
        lines.append(f"{name}{more}: {message}\n  see {cell.path}")
    raise BenchError(
        "what failed is no miss of a method, as its training neither diverged nor ran out of memory:\n"
        + "\n".join(lines)
        + "\nMend it, and give the same command again. What ran on SLURM has to be sent again first:\n"
        + "\n".join(f"  python -m bench retry {place}" for place in places)
    )
