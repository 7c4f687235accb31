"""Where every cell of a results directory stands: the store's word and, where it can be asked, SLURM's."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bench.base.errors import BenchError, Damaged
from bench.base.files import read_json
from bench.run import claims
from bench.run.claims import Claim
from bench.run.slurm.queue import Queue
from bench.run.slurm.settle import settle
from bench.run.store import CellDir, ResultsDir, Status, WorkState

TAIL = 8192  # bytes of a log that hold its last line
WIDE = 150  # columns of a terminal that has room for log paths
STYLES = {"done": "green", "running": "cyan", "starting": "cyan", "queued": "blue", "pending": "dim"}
ACTIVE = ("running", "starting", "queued", "submitting", "waiting", "unknown")
USUAL = ("", "Priority", "Resources", "JobArrayTaskLimit", "Dependency", "BeginTime", "Cleaning")


@dataclass(frozen=True)
class Standing:
    """One cell, now. eta: seconds of training left. note: what explains the state."""

    cell: str
    state: str
    step: int
    total: int | None
    reward: float | None
    eta: float | None
    node: str
    job: str
    log: str
    note: str

    @property
    def active(self) -> bool:
        """Whether somebody works on it, or is going to."""
        return self.state in ACTIVE


def standings(results: ResultsDir) -> list[Standing]:
    """All cells, in the order of their names. Raises BenchError where there are none."""
    cells = results.cells()
    if not cells:
        raise BenchError(f"{results.path}: no cells here; name the directory that run or submit wrote to")
    queue = settle(results, cells)
    return [_standing_of(cell, queue) for cell in cells]


def _standing_of(cell: CellDir, queue: Queue) -> Standing:
    """Where a cell stands; a damaged file costs this cell alone."""
    try:
        return _standing(cell, queue)
    except Damaged as error:
        step, log = cell.status().step, str(cell.path / "output.txt")
        return Standing(cell.id, str(WorkState.DAMAGED), step, None, None, None, "", "", log, str(error))


def _standing(cell: CellDir, queue: Queue) -> Standing:
    status, held = cell.status(), claims.read(cell)
    state, note, node, job = _state(cell, status, held, queue)
    place = read_json(cell.path / "job.json")
    row = _last_row(cell)
    eta = None
    if state == "running" and row is not None and status.total is not None:
        own = row["made"] if "made" in row else row["step"]  # videos that others made took no time here
        eta = row["seconds"] / own * max(0, status.total - row["step"]) if own else None
    return Standing(
        cell=cell.id,
        state=state,
        step=status.step if row is None or status.state is WorkState.DONE else max(status.step, row["step"]),
        total=status.total,
        reward=row["reward_mean"] if row is not None and "reward_mean" in row else None,
        eta=eta,
        node=node or (place["node"] if place else ""),
        job=job or (place["job"] if place else ""),
        log=str(cell.path / "output.txt"),
        note=note,
    )


def _state(
    cell: CellDir, status: Status, held: tuple[Claim, float] | None, queue: Queue
) -> tuple[str, str, str, str]:
    message = "" if status.message is None else status.message
    if status.state is WorkState.DONE:
        return "done", "", "", ""
    if held is not None and held[0].submission:
        job_id = queue.job_id(cell, held[0])
        if job_id is not None and not queue.reachable:
            return "unknown", f"job {job_id}: SLURM cannot be asked from here", "", job_id
        job = None if job_id is None else queue.job(job_id)
        if status.state is WorkState.FAILED:  # and its job is just ending; after a timeout it may go on
            return str(status.cause or status.state), message, "", job_id or ""
        if job is not None and job.waits:
            return "queued", job.reason if status.step == 0 else _again(status, job.reason), "", job.id
        if job is not None and not job.over:
            state = "starting" if status.state is WorkState.PENDING else "running"
            return state, "", job.node, job.id
        if job_id is None and queue.alive(cell, *held):
            return "submitting", "", "", ""
    elif held is not None and queue.alive(cell, *held):
        state = "running" if status.state is WorkState.RUNNING else "waiting"
        return state, "", held[0].host, ""
    if status.state is WorkState.RUNNING:
        return "killed", "its process is gone; it continues from its last checkpoint", "", ""
    return str(status.cause or status.state), message, "", ""


def _again(status: Status, reason: str) -> str:
    before = (status.message or f"at step {status.step}").removesuffix("; queued again")
    return before if reason in USUAL else f"{before}; {reason}"


def _last_row(cell: CellDir) -> dict[str, Any] | None:
    try:
        with cell.metrics.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - TAIL))
            lines = stream.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError as error:
        raise Damaged(cell.metrics, error) from error


def show(console: Console, results: ResultsDir, found: Sequence[Standing]) -> None:
    """The table, why cells are not done, and a line that counts them."""
    console.print(_table(found, console.width >= WIDE))
    failed = [one for one in found if one.note and not (one.state == "queued" and one.note in USUAL)]
    for one in failed[:10]:
        console.print(Text(f"{one.cell}: {one.state}: {one.note.splitlines()[0]}", style=_style(one.state)))
    if len(failed) > 10:
        console.print(f"… and {len(failed) - 10} more: python -m bench status {results.path} --json")
    console.print(_counts(found), highlight=False)
    if any(one.reward is not None for one in found):
        told = "reward: mean of the newest training batch; `report` has the held-out reward"
        console.print(told, style="dim", highlight=False)
    if console.width < WIDE:
        console.print(f"logs: python -m bench logs {results.path} CELL", style="dim", highlight=False)


def _counts(found: Sequence[Standing]) -> str:
    counts = Counter(one.state for one in found)
    return f"{len(found)} cells: " + ", ".join(f"{count} {state}" for state, count in counts.most_common())


def _style(state: str) -> str:
    return STYLES.get(state, "red" if state not in ACTIVE else "blue")


def _table(found: Sequence[Standing], wide: bool) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("cell", overflow="fold")
    for header in ("state", "step", "reward", "ETA", "node", "job"):
        table.add_column(header, no_wrap=header in ("step", "ETA"), overflow="fold")
    if wide:
        table.add_column("log", overflow="fold")
    for one in found:
        steps = "-" if one.total is None else f"{one.step}/{one.total}"
        reward = "-" if one.reward is None else f"{one.reward:.4g}"
        eta = "-" if one.eta is None else str(timedelta(seconds=round(one.eta)))
        cells = [one.cell, Text(one.state, style=_style(one.state)), steps, reward, eta]
        table.add_row(*cells, one.node or "-", one.job or "-", *([one.log] if wide else []))
    return table


def watch(console: Console, results: ResultsDir, seconds: float) -> None:
    """The table of what is not done, again and again, until nothing is active. Ctrl-C ends it."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            found = standings(results)
            rows = [one for one in found if one.state != "done"]
            table = _table(rows[: max(3, console.height - 4)], console.width >= WIDE)
            table.caption, table.caption_justify = _counts(found), "left"
            live.update(table, refresh=True)
            if not any(one.active for one in found):
                break
            time.sleep(seconds)
    show(console, results, found)


def wait(results: ResultsDir, cells: Sequence[str], tell: Callable[[str], None], seconds: float) -> bool:
    """Follow cells to their end, telling what changes. Returns whether all are done."""
    known: dict[str, str] = {}
    while True:
        found = [one for one in standings(results) if one.cell in cells]
        for one in found:
            if known.get(one.cell) != one.state:
                known[one.cell] = one.state
                where = f" on {one.node}" if one.node and one.active else ""
                note = f": {one.note.splitlines()[0]}" if one.note and not one.active else ""
                tell(f"{one.cell}: {one.state}{where}{note}")
        if not any(one.active for one in found):
            return all(one.state == "done" for one in found)
        time.sleep(seconds)
