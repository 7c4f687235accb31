"""Progress of running cells, read from their logs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as EtaColumn

from bench.base.console import detail, plain, quiet
from bench.base.layers import write_yaml
from bench.run.process import Outcome
from bench.run.work import Work

PLAIN_SECONDS = 15.0  # between two plain lines of one cell


class Tail:
    """The newest complete line of a growing log; reads only what was added since."""

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def newest(self) -> dict[str, Any] | None:
        """The last complete line added since the last call; None if there is none."""
        if not self.path.exists():
            return None
        with self.path.open("rb") as stream:
            size = stream.seek(0, 2)
            self._offset = min(self._offset, size) if size >= self._offset else 0
            stream.seek(self._offset)
            added = stream.read()
        complete = added[: added.rfind(b"\n") + 1]
        self._offset += len(complete)
        lines = complete.splitlines()
        return json.loads(lines[-1]) if lines else None


class _Running:
    def __init__(self, work: Work) -> None:
        self.total, self.name, self.unit = work.total, work.title, work.unit
        self.tail = Tail(work.log)
        self.spoke = 0.0


def _figures(row: dict[str, Any]) -> str:
    return f"reward {row['reward_mean']:8.4f}  |g| {row['grad_norm']:9.3g}"


def _ending(outcome: Outcome) -> str:
    status = outcome.status
    tail = "" if status.message is None else f": {status.message}"
    return f"{status.state} after {status.step} {outcome.work.unit}s, {status.seconds:.0f} s{tail}"


STOPPING = "stopping: each process leaves its batch and writes a checkpoint; Ctrl-C again kills them"


class Bars:
    """One bar per cell that runs, and one for all; ended cells leave a line above."""

    def __init__(self, console: Console, cells: int) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}", style="cyan"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            EtaColumn(),
            console=console,
            refresh_per_second=4,
        )
        self._all = self.progress.add_task("all", total=cells, figures="")
        self._bars: dict[str, tuple[_Running, TaskID]] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def started(self, work: Work) -> None:
        """Add a bar for the work."""
        running = _Running(work)
        bar = self.progress.add_task(running.name, total=running.total, figures="loading")
        self._bars[work.id] = (running, bar)

    def tick(self) -> None:
        """Bring all bars up to date."""
        for running, bar in self._bars.values():
            row = running.tail.newest()
            if row is not None:
                ending = "  evaluating" if row["step"] == running.total else ""
                self.progress.update(bar, completed=row["step"], figures=_figures(row) + ending)

    def ended(self, outcome: Outcome) -> None:
        """Replace the bar by a line."""
        running, bar = self._bars.pop(outcome.work.id)
        self.progress.remove_task(bar)
        self.progress.advance(self._all)
        style = "green" if outcome.ok else "red"
        plain(self.progress.console, f"{running.name}: {_ending(outcome)}", style, wrap=True)

    def stopping(self) -> None:
        """Say that it may take a moment."""
        self.progress.console.print(STOPPING)


class Lines:
    """A line per cell every few seconds, for logs and pipes."""

    def __init__(self, console: Console, cells: int) -> None:
        self.console, self.cells, self._count = console, cells, 0
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def _print(self, text: str) -> None:
        plain(self.console, text)

    def started(self, work: Work) -> None:
        """Print that the work has started."""
        running = _Running(work)
        running.spoke = time.monotonic()
        self._running[work.id] = running
        self._print(f"{running.name}: started")

    def tick(self) -> None:
        """Say where each cell is, not too often."""
        now = time.monotonic()
        for running in self._running.values():
            if now - running.spoke >= PLAIN_SECONDS:
                row = running.tail.newest()
                if row is not None:
                    running.spoke = now
                    of = "" if running.total is None else f"/{running.total}"
                    self._print(f"{running.name}: {running.unit} {row['step']}{of}  {_figures(row)}")

    def ended(self, outcome: Outcome) -> None:
        """Print how the work has ended."""
        running = self._running.pop(outcome.work.id)
        self._count += 1
        self._print(f"{running.name}: {_ending(outcome)}  [{self._count}/{self.cells}]")

    def stopping(self) -> None:
        """Say that it may take a moment."""
        self._print(STOPPING)


def tell_settings(ready: Iterable[Work]) -> None:
    """Of all that is going to run, with `--verbose`."""
    for work in ready:
        detail(f"{work.id}:\n{write_yaml(work.config)}")


def watcher(console: Console, cells: int) -> Bars | Lines:
    """What suits the console; with `--quiet` one that prints nothing."""
    if quiet():
        return Lines(Console(quiet=True), cells)
    return Bars(console, cells) if console.is_terminal else Lines(console, cells)
