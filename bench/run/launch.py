"""Cells → processes on this machine: which have to run, and running them several at a time."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from bench.base.errors import BenchError
from bench.base.labels import told_apart
from bench.experiment.resolve import Cell
from bench.experiment.settings import CellConfig
from bench.measure.vbench import jobs
from bench.measure.vbench.jobs import Part
from bench.run import claims
from bench.run.claims import Claim
from bench.run.process import Outcome, Process, Task, Way, unchanged
from bench.run.slurm.queue import Queue
from bench.run.store import CellDir, CellInUse, ResultsDir, State

POLL_SECONDS = 0.2


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
    names = titles([cell.config for cell in cells])
    return [
        cell_task(config, cell, title)
        for (config, cell), title in zip(found, names, strict=True)
        if force or not cell.finished(config)
    ]


def titles(configs: Sequence[CellConfig]) -> list[str]:
    """What cells are called for people: the method, what tells it from others of that name, the seed."""
    found = [""] * len(configs)
    for label in dict.fromkeys(config.label for config in configs):
        same = [n for n, config in enumerate(configs) if config.label == label]
        apart = told_apart(label, [_differences(configs[n]) for n in same])
        for n, title in zip(same, apart, strict=True):
            training = configs[n].training
            found[n] = title if training is None else f"{title} seed {training.seed}"
    return found


def _differences(config: CellConfig) -> dict[str, Any]:
    """What cells of one method may differ in, but the seed."""
    model, training = config.model, config.training
    sampler = {"solver": model.config.solver, "steps": model.config.steps, "guidance": model.config.guidance}
    tree: dict[str, Any] = {"model": model.name, "prompts": config.prompts, **sampler}
    tree["dcot"] = "off" if config.dcot is None else "on"
    if training is not None:
        tree |= {"reward": training.reward.name, "method": training.method.config}
    return tree


def cell_task(config: CellConfig, cell: CellDir, title: str) -> Task:
    """The work of one cell."""
    training = config.training
    total = None if training is None else training.train.steps
    return Task(cell, config, "cell", config.threads, title, total, cell.metrics)


def prepare(
    tasks: list[Task], force: bool, claim: Claim | None = None, queue: Queue | None = None
) -> tuple[list[Task], list[Outcome]]:
    """Claim each task and write settings and `pending`, so that a partial view shows what is still to come.

    claim: in whose name, by default this process's. queue: what knows the jobs of other claims. Returns the
    tasks that can start, and those that another run or submission has, or has done since they were planned.
    """
    ready, busy = list[Task](), list[Outcome]()
    mine, queue = claim or claims.of_this_process(), queue or Queue()
    for task in tasks:
        directory = task.directory
        try:
            other = claims.take(directory, mine, queue.alive)
            if other is not None:
                busy.append(
                    Outcome(task, unchanged(directory.status(), f"it {queue.describe(directory, other)}"))
                )
                continue
            with directory.locked():
                if not force and _finished(task):
                    _say_so(task)
                    claims.release(directory, mine.token)
                    busy.append(Outcome(task, directory.status()))
                    continue
                if force:
                    directory.wipe()
                status = directory.status()
                directory.write_config(task.config)
                directory.write_status(State.PENDING, status.step, status.seconds, total=task.total)
                ready.append(task)
        except CellInUse as error:
            claims.release(directory, mine.token)
            busy.append(Outcome(task, unchanged(directory.status(), str(error))))
    return ready, busy


def task_of(cell: CellDir) -> Task:
    """The work of a cell that is in the store already."""
    part = jobs.read(cell)
    return cell_task(cell.config(), cell, cell.id) if part is None else jobs.task(part, cell)


def _finished(task: Task) -> bool:
    directory, config = task.directory, task.config
    if isinstance(config, Part):
        return config.finished()
    return isinstance(directory, CellDir) and isinstance(config, CellConfig) and directory.finished(config)


def _say_so(task: Task) -> None:
    """Of a finished cell whose work others did: videos and scores are there whoever made them."""
    status = task.directory.status()
    if status.state is not State.DONE and task.total is not None:
        task.directory.write_config(task.config)
        task.directory.write_status(State.DONE, task.total, status.seconds, total=task.total)


def run(
    tasks: list[Task], jobs: int, way: Callable[[int, list[float]], Way], watcher: Watcher, command_line: str
) -> tuple[list[Outcome], bool]:
    """Run all tasks, `jobs` at a time. Returns how they ended, and whether the user interrupted.

    way: how to run the next, from how many wait (it included) and the seconds that running ones have left.
    On Ctrl-C or SIGTERM every cell finishes its batch, writes a checkpoint and stops; a second Ctrl-C kills.
    The tasks are claimed by this process (`prepare`), and given free as they end.
    """
    waiting, running, outcomes = list(tasks), list[Process](), list[Outcome]()
    lease = claims.Lease([task.directory for task in tasks])

    def reap() -> None:
        lease.renew()
        for process in list(running):
            outcome = process.outcome()
            if outcome is not None:
                running.remove(process)
                lease.release(outcome.task.directory)
                outcomes.append(outcome)
                watcher.ended(outcome)

    try:
        with _sigterm_as_interrupt():
            while waiting or running:
                while waiting and len(running) < jobs:
                    chosen = way(len(waiting), [process.left() for process in running])
                    running.append(Process(waiting.pop(0), chosen, command_line))
                    watcher.started(running[-1].task)
                _wait(reap, watcher)
    except KeyboardInterrupt:
        watcher.stopping()
        _stop(running, lambda: _wait(reap, watcher))
        return outcomes, True
    finally:
        for process in running:
            process.kill()
        lease.end()
    return outcomes, False


def run_here(
    tasks: list[Task], work: Callable[[Task], Outcome], watcher: Watcher
) -> tuple[list[Outcome], bool]:
    """Run all tasks in this process, one after the other; as `run` otherwise. work: runs one to its end."""
    outcomes = list[Outcome]()
    lease = claims.Lease([task.directory for task in tasks])
    try:
        for task in tasks:
            watcher.started(task)
            with lease.renewing():
                outcomes.append(work(task))
            lease.release(task.directory)
            watcher.ended(outcomes[-1])
            if outcomes[-1].status.state is State.PREEMPTED:
                return outcomes, True
    finally:
        lease.end()
    return outcomes, False


def _wait(reap: Callable[[], None], watcher: Watcher) -> None:
    time.sleep(POLL_SECONDS)
    watcher.tick()
    reap()


def _stop(running: list[Process], wait: Callable[[], None]) -> None:
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
