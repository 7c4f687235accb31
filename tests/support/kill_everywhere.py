"""Kill a cell with SIGKILL at every one of its writes, run it again, compare with a cell that was left alone.

    python -m tests.support.kill_everywhere CELL_DIRECTORY

A script of its own, because it forks: torch is imported once, and each run costs a fraction of a second.
Before every write, between a temporary file and its rename, after the rename, in the middle of a log line.
"""

import gc
import io
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from bench.base import files
from bench.run import train
from bench.run.cell import run_cell
from bench.run.store import CellDir
from tests.support.running import numbers


class Killer:
    """Counts the instants at which a process could die, and dies at the chosen one."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def instant(self) -> bool:
        """Whether this is the one."""
        self.count += 1
        return self.count == self.at

    def die(self) -> None:
        """As kill -9."""
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self, worker: Any) -> None:
        """Put the instants into everything that changes files. worker: the module that appends to logs."""
        replace, unlink, fsync, append = Path.replace, Path.unlink, os.fsync, files.append_rows

        def dying(function: Any) -> Any:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                if self.instant():
                    self.die()
                result = function(*arguments, **options)
                if self.instant():
                    self.die()
                return result

            return wrapper

        def half_append(path: Path, rows: Any) -> None:
            rows = list(rows)
            if self.instant():
                before = path.stat().st_size if path.exists() else 0
                append(path, rows)
                written = path.stat().st_size - before
                os.truncate(path, before + written // 2)
                self.die()
            append(path, rows)

        Path.replace, Path.unlink, os.fsync = dying(replace), dying(unlink), dying(fsync)  # type: ignore[method-assign]
        worker.append_rows = half_append


def run(cell: CellDir, killer: Killer | None) -> int:
    """Run the cell in a fork; its wait status."""
    child = os.fork()
    if child == 0:
        if killer is not None:
            killer.install(train)
        sys.stdout = io.StringIO()
        code = run_cell(cell, None)
        os._exit(int(code))
    return os.waitpid(child, 0)[1]


def main(planned: Path) -> None:
    """planned: a cell directory with a config.yaml and nothing run yet."""
    whole = CellDir(planned.parent / "whole")
    shutil.copytree(planned, whole.path)
    assert run_cell(whole, None) == 0  # in this process: what it imports and remembers, no copy need do again
    gc.freeze()  # else every fork begins with a second of looking through torch's modules
    wanted = numbers(whole)
    at = 0
    while True:
        at += 1
        cell = CellDir(planned.parent / f"killed-{at}")
        shutil.copytree(planned, cell.path)
        died = os.WIFSIGNALED(run(cell, Killer(at)))
        assert run(cell, None) == 0
        assert numbers(cell) == wanted, f"killed at instant {at}: numbers differ"
        shutil.rmtree(cell.path)
        if not died:
            break
    print(f"killed at {at - 1} instants")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
