"""After a submission: cancel, choose what to try again, read logs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError, did_you_mean
from bench.run import claims
from bench.run.slurm import record, scheduler
from bench.run.slurm.settle import UNFINISHED, settle
from bench.run.slurm.status import Standing, standings
from bench.run.store import Cause, CellDir, CellInUse, ResultsDir, WorkState

STOP_SECONDS = 90.0  # for running cells to write a checkpoint; SLURM's KillWait is 30 s by default
TAIL_LINES = 40
FAILED, TIMEOUT, ALL = "failed", "timeout", "all"  # what `retry` sends again
STATES = {
    FAILED: (WorkState.FAILED, WorkState.RUNNING),
    TIMEOUT: (WorkState.TIMEOUT,),
    ALL: tuple(WorkState),
}


def cancel(console: Console, results: ResultsDir, names: Sequence[str]) -> int:
    """Take cells out of the queue, and stop running ones with a checkpoint. Returns the exit code."""
    cells = [find(results, name) for name in names] if names else results.cells()
    queue = settle(results, cells)
    jobs: dict[str, CellDir] = {}
    local: list[str] = []
    for cell in cells:
        held = claims.read(cell)
        job = None if held is None else queue.job_id(cell, held[0])
        if held is not None and job is not None:
            claims.release(cell, held[0].token)  # a job that finds its cell free ends at once
            jobs[job] = cell
        elif held is not None and queue.alive(cell, *held):
            local.append(f"{cell.id} {queue.describe(cell, held[0])}")
    for text in local:
        plain(console, f"{text}: stop it there", "yellow")
    if not jobs:
        console.print("no cell has a SLURM job: nothing to cancel")
        return 1 if local else 0
    reports = [found.report for found in record.submissions(results).values() if found.report and not names]
    scheduler.cancel([*jobs, *reports])
    _wait_until_over(jobs)
    stopped = sum(_record(cell) for cell in jobs.values())
    console.print(f"cancelled {len(jobs)} cells, {stopped} of them had begun and continue where they stopped")
    return 1 if local else 0


def _wait_until_over(jobs: dict[str, CellDir]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        known = scheduler.ask(jobs)
        if all(job not in known or known[job].over for job in jobs):
            return
        time.sleep(0.5)


def _record(cell: CellDir) -> bool:
    """Say of a cell that it was cancelled, unless it ended otherwise; whether it had begun."""
    try:
        with cell.locked():
            status = cell.status()
            if status.state in UNFINISHED:
                message = f"cancelled at step {status.step}"
                cell.write_status(WorkState.PREEMPTED, message=message, cause=Cause.CANCELLED)
            return status.step > 0
    except CellInUse as error:
        raise BenchError(f"{cell.id} did not stop within {STOP_SECONDS:.0f} s: {error}") from error


def to_retry(results: ResultsDir, which: str) -> list[CellDir]:
    """Cells that ended badly: `failed`, out of time (`timeout`), `all` that are not done and free."""
    free = [one for one in standings(results) if one.state != "done" and not one.active]
    cells = [results.cell(one.cell) for one in free]
    return [cell for cell in cells if cell.status().state in STATES[which]]


def find(results: ResultsDir, name: str) -> CellDir:
    """A cell by its id, or by a part of it that only it has. Raises BenchError."""
    ids = [cell.id for cell in results.cells()]
    found = [one for one in ids if one == name] or [one for one in ids if name in one]
    if len(found) == 1:
        return results.cell(found[0])
    if found:
        some = "\n  ".join(found[:10])
        raise BenchError(f"'{name}' is a part of {len(found)} cells' names:\n  {some}")
    raise BenchError(f"{results.path} has no cell '{name}'.{did_you_mean(name, ids)}")


def logs(console: Console, results: ResultsDir, name: str, follow: bool) -> None:
    """What a cell's process printed, its traceback, and what SLURM and submitit said in its newest job."""
    cell = find(results, name)
    for path in log_files(results, cell):
        if path.is_file() and path.stat().st_size:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            left_out = f" (the last {TAIL_LINES} of {len(lines)} lines)" if len(lines) > TAIL_LINES else ""
            plain(console, f"── {path}{left_out}", "bold")
            for line in lines[-TAIL_LINES:]:
                plain(console, line)
    if follow:
        _follow(console, results, cell)


def log_files(results: ResultsDir, cell: CellDir) -> list[Path]:
    """Of SLURM and submitit, of the cell's process, the traceback."""
    newest = [found for found in record.submissions(results).values() if cell.id in found.jobs][-1:]
    ours = [path for found in newest for path in record.log_files(results, found.name, found.jobs[cell.id])]
    return [*ours, cell.path / "output.txt", cell.path / "traceback.txt"]


def _follow(console: Console, results: ResultsDir, cell: CellDir) -> None:
    """Print what is added, until nobody works on the cell."""
    path = cell.path / "output.txt"
    offset = path.stat().st_size if path.exists() else 0
    while True:
        one: Standing = next(found for found in standings(results) if found.cell == cell.id)
        if path.exists():
            with path.open("rb") as stream:
                stream.seek(offset)
                added = stream.read()
            offset += len(added)
            console.print(added.decode(errors="replace"), end="", markup=False, highlight=False)
        if not one.active:
            return
        time.sleep(1.0)
