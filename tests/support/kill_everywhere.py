"""Kill a cell with SIGKILL at its writes, run it again, compare with a cell that was left alone.

It forks, in a process that has imported torch: each run costs a fraction of a second. Between a temporary
file and its rename, after the rename, before and after a removal, in the middle of a log line; at the first
and at the last of each kind of write.
"""

import gc
import io
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from bench.base import files
from bench.run import session, train
from bench.run.cell import run_cell
from bench.run.store import CellDir
from tests.support.running import numbers


class Killer:
    """Notes the instants at which a process could die, each as its kind, and dies at the chosen one."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.kinds = at, list[str]()

    def instant(self, kind: str) -> bool:
        """Whether this is the one."""
        self.kinds.append(kind)
        return len(self.kinds) == self.at

    def die(self) -> None:
        """As kill -9."""
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self, *workers: Any) -> None:
        """Put the instants into everything that changes files. workers: the modules that append to logs."""
        replace, unlink, append = Path.replace, Path.unlink, files.append_rows

        def dying(function: Any) -> Any:
            def wrapper(path: Path, *arguments: Any, **options: Any) -> Any:
                kind = f"{function.__name__} {_kind(path)}"
                if self.instant(f"before {kind}"):
                    self.die()
                result = function(path, *arguments, **options)
                if self.instant(f"after {kind}"):
                    self.die()
                return result

            return wrapper

        def half_append(path: Path, rows: Any) -> None:
            rows = list(rows)
            if self.instant(f"in append {_kind(path)}"):
                before = path.stat().st_size if path.exists() else 0
                append(path, rows)
                written = path.stat().st_size - before
                os.truncate(path, before + written // 2)
                self.die()
            append(path, rows)

        Path.replace, Path.unlink = dying(replace), dying(unlink)  # type: ignore[method-assign]
        for worker in workers:
            worker.append_rows = half_append


def _kind(path: Path) -> str:
    """Its name and its directory's, without the numbers that tell it from its like."""
    return re.sub(r"-[0-9a-f]{8,}|\d+", "#", f"{path.parent.name}/{path.name}")


def run(cell: CellDir, killer: Killer | None = None) -> int:
    """Run the cell in a fork; its wait status. A killer's instants are on record beside the cell."""
    child = os.fork()
    if child == 0:
        try:
            _run_here(cell, killer)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def _run_here(cell: CellDir, killer: Killer | None) -> NoReturn:
    """Run the cell; ends this process with its exit code."""
    if killer is not None:
        killer.install(train, session)
    sys.stdout = io.StringIO()
    code = run_cell(cell, None)
    if killer is not None:
        _instants(cell).write_text(json.dumps(killer.kinds))
    os._exit(int(code))


def _instants(cell: CellDir) -> Path:
    return cell.path.with_suffix(".json")


def chosen(kinds: list[str]) -> list[int]:
    """The first and the last instant of each kind, counted from 1."""
    first = {kind: n for n, kind in reversed(list(enumerate(kinds, start=1)))}
    last = {kind: n for n, kind in enumerate(kinds, start=1)}
    return sorted({*first.values(), *last.values()})


def kill_everywhere(planned: Path) -> list[str]:
    """planned: a cell directory with a config.yaml and nothing run yet. Returns the kinds of all writes."""
    whole, watched = (CellDir(planned.parent / name) for name in ("whole", "watched"))
    shutil.copytree(planned, whole.path)
    assert run_cell(whole, None) == 0  # in this process: what it imports and remembers, no copy need do again
    gc.freeze()  # else every fork begins with a second of looking through torch's modules
    wanted = numbers(whole)
    shutil.copytree(planned, watched.path)
    assert run(watched, Killer()) == 0
    kinds = json.loads(_instants(watched).read_text())
    for at in chosen(kinds):
        cell = CellDir(planned.parent / f"killed-{at}")
        shutil.copytree(planned, cell.path)
        assert os.WIFSIGNALED(run(cell, Killer(at)))
        assert run(cell) == 0
        assert numbers(cell) == wanted, f"killed at instant {at}, {kinds[at - 1]}: numbers differ"
        shutil.rmtree(cell.path)
    return kinds
