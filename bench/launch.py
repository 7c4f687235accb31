"""Cells → processes on this machine: each cell in a process of its own, several at a time.

A cell's process is `python -m bench cell DIRECTORY`; everything it needs is in the directory. It may die in
any way without touching the others. Its standard input is a pipe: when this process dies, the pipe closes and
the cell's process ends too, so that nothing goes on writing behind the user's back.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Protocol

from bench.cells import Cell
from bench.errors import BenchError
from bench.schema import Strict
from bench.settings import CellConfig
from bench.store import CellDir, CellInUse, JobDir, ResultsDir, State, Status

POLL_SECONDS = 0.2
GRACE_SECONDS = 60.0  # beyond the time limit, before a process that does not stop by itself is killed
COMMAND_VARIABLE = "BENCH_COMMAND_LINE"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Exit(IntEnum):
    """Exit codes of a cell's process."""

    DONE = 0
    FAILED = 1
    LOCKED = 3
    STOPPED = 4


@dataclass(frozen=True)
class Way:
    """How each task is run: data-parallel processes, seconds until it has to stop, and further options."""

    processes: int = 1
    timeout: float | None = None
    extra: tuple[str, ...] = ()

    def command(self, task: Task) -> list[str]:
        """The command line of a task."""
        python = [sys.executable]
        if self.processes > 1:
            python += ["-m", "torch.distributed.run", "--standalone"]
            python += ["--nproc-per-node", str(self.processes)]
        command = [
            *python,
            "-m",
            "bench",
            task.command,
            str(task.directory.path),
            "--with-parent",
            *self.extra,
        ]
        return command if self.timeout is None else [*command, "--timeout", str(self.timeout)]


@dataclass(frozen=True)
class Task:
    """Work for one process.

    command: the hidden command that does it, `cell` or `probe`. title: for people. total: steps or draws
    (`unit`) until it is done, None if that is not known. log: grows by a JSON line whenever it got further.
    """

    directory: JobDir
    config: Strict
    command: str
    threads: int
    title: str
    total: int | None
    log: Path
    unit: str = "step"

    @property
    def id(self) -> str:
        """The directory's name."""
        return self.directory.id


@dataclass(frozen=True)
class Outcome:
    """How a cell's process ended."""

    task: Task
    status: Status

    @property
    def ok(self) -> bool:
        """Whether the cell is done."""
        return self.status.state is State.DONE


class Watcher(Protocol):
    """What is told about running cells."""

    def started(self, task: Task) -> None:
        """A process was started."""
        ...

    def tick(self) -> None:
        """Time to look at the logs."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """A process ended."""
        ...

    def stopping(self) -> None:
        """The user interrupted, and the cells were asked to stop."""
        ...


def unfinished(results: ResultsDir, cells: list[Cell], force: bool) -> list[Task]:
    """The cells that have to run."""
    found = [(cell.config, results.cell(cell.id)) for cell in cells]
    return [_cell_task(config, cell) for config, cell in found if force or not cell.finished(config)]


def _cell_task(config: CellConfig, cell: CellDir) -> Task:
    training = config.training
    title = config.label if training is None else f"{config.label} seed {training.seed}"
    total = None if training is None else training.train.steps
    return Task(cell, config, "cell", config.threads, title, total, cell.metrics)


def prepare(tasks: list[Task], force: bool) -> tuple[list[Task], list[Outcome]]:
    """Write settings and `pending`, so that a partial view shows what is still to come.

    Returns the tasks that can start, and those that another run is busy with.
    """
    ready, busy = list[Task](), list[Outcome]()
    for task in tasks:
        directory = task.directory
        try:
            with directory.locked():
                if force:
                    directory.wipe()
                status = directory.status()
                directory.write_config(task.config)
                directory.write_status(State.PENDING, status.step, status.seconds)
                ready.append(task)
        except CellInUse as error:
            busy.append(Outcome(task, _unchanged(directory.status(), str(error))))
    return ready, busy


def _unchanged(status: Status, message: str) -> Status:
    """What to tell about a cell that this run left alone."""
    return Status(state=State.FAILED, step=status.step, seconds=status.seconds, message=message)


class _Process:
    """One running cell."""

    def __init__(self, task: Task, way: Way, command_line: str) -> None:
        self.task, self.timeout, self.asked = task, way.timeout, False
        self.started = time.monotonic()
        threads = str(task.threads)
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, threads)
        environment[COMMAND_VARIABLE] = command_line
        with (task.directory.path / "output.txt").open("wb") as output:
            self.process = subprocess.Popen(
                way.command(task),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process only, which then stops the cells
            )

    def left(self) -> float:
        """Seconds until its time is up; inf without a limit."""
        if self.timeout is None:
            return math.inf
        return max(0.0, self.timeout - (time.monotonic() - self.started))

    def ask(self) -> None:
        """Ask it to write a checkpoint and stop."""
        self.asked = True
        self.process.terminate()

    def kill(self) -> None:
        """End it now, and with it the processes that it started: their standard input closes."""
        self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def outcome(self) -> Outcome | None:
        """None while it runs."""
        if self.timeout is not None and time.monotonic() - self.started > self.timeout + GRACE_SECONDS:
            self.kill()
        code = self.process.poll()
        if code is None:
            return None
        status = self.task.directory.status()
        if code == Exit.LOCKED:
            return Outcome(self.task, _unchanged(status, self._last_line()))
        if status.state in (State.RUNNING, State.PENDING):
            status = self._record_death(code, status)
        return Outcome(self.task, status)

    def _record_death(self, code: int, status: Status) -> Status:
        """The process could not say itself how it ended."""
        late = self.timeout is not None and time.monotonic() - self.started > self.timeout
        state = State.TIMEOUT if late else State.FAILED
        why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL and not late else ""
        message = f"the process {why}{hint}. Its last line: {self._last_line()}"
        if self.asked and code == -signal.SIGTERM:  # before it listened to signals
            state, message = State.PREEMPTED, "asked to stop"
        with self.task.directory.locked():
            self.task.directory.write_status(state, status.step, status.seconds, message)
        return self.task.directory.status()

    def _last_line(self) -> str:
        text = (self.task.directory.path / "output.txt").read_text(encoding="utf-8", errors="replace")
        return next((line for line in reversed(text.splitlines()) if line.strip()), "(it printed nothing)")


def run(
    tasks: list[Task], jobs: int, way: Callable[[int, list[float]], Way], watcher: Watcher, command_line: str
) -> tuple[list[Outcome], bool]:
    """Run all tasks, `jobs` at a time. Returns how they ended, and whether the user interrupted.

    way: how to run the next, from how many wait (it included) and the seconds that running ones have left.
    On Ctrl-C or SIGTERM every cell finishes its batch, writes a checkpoint and stops; a second Ctrl-C kills.
    """
    waiting, running, outcomes = list(tasks), list[_Process](), list[Outcome]()

    def reap() -> None:
        for process in list(running):
            outcome = process.outcome()
            if outcome is not None:
                running.remove(process)
                outcomes.append(outcome)
                watcher.ended(outcome)

    try:
        with _sigterm_as_interrupt():
            while waiting or running:
                while waiting and len(running) < jobs:
                    chosen = way(len(waiting), [process.left() for process in running])
                    running.append(_Process(waiting.pop(0), chosen, command_line))
                    watcher.started(running[-1].task)
                _wait(reap, watcher)
    except KeyboardInterrupt:
        watcher.stopping()
        _stop(running, lambda: _wait(reap, watcher))
        return outcomes, True
    finally:
        for process in running:
            process.kill()
    return outcomes, False


def _wait(reap: Callable[[], None], watcher: Watcher) -> None:
    time.sleep(POLL_SECONDS)
    watcher.tick()
    reap()


def _stop(running: list[_Process], wait: Callable[[], None]) -> None:
    """Ask every cell to stop, then wait for them; a second interrupt kills."""
    for process in running:
        process.ask()
    try:
        while running:
            wait()
    except KeyboardInterrupt:
        for process in running:
            process.kill()
        while running:
            wait()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Within the context SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_disk(results: ResultsDir, cells: int) -> None:
    """Raise BenchError if results cannot be written, or the disk is nearly full. Writes nothing."""
    needed = (200 + 100 * cells) * 2**20
    place = results.path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise BenchError(f"cannot write results to {results.path}: {place} is no writable directory")
    free = shutil.disk_usage(place).free
    if free < needed:
        raise BenchError(
            f"only {free / 2**20:.0f} MiB free at {place}, {needed / 2**20:.0f} MiB wanted for {cells} "
            "cells. Free some space, or choose another --out."
        )
