"""Cells → processes on this machine: which have to run, and running them several at a time."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Protocol, TypeVar

from bench.base.errors import BenchError, Damaged
from bench.base.files import existing
from bench.base.locks import check_locks
from bench.base.signals import listening
from bench.base.units import MIB
from bench.run import claims, warm
from bench.run.claims import Claim
from bench.run.gpus import Gpus
from bench.run.process import HowToRun, Outcome, Process, unchanged
from bench.run.slurm.queue import Queue
from bench.run.store import CellInUse, ResultsDir, WorkState
from bench.run.tracking import beside
from bench.run.work import Work

POLL_SECONDS = 0.2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM  # exit codes, as a shell reports them
W = TypeVar("W", bound=Work)


class Terminated(KeyboardInterrupt):
    """SIGTERM asked to stop."""


class Watcher(Protocol):
    """What is told about running cells."""

    def started(self, work: Work) -> None:
        """A process was started."""
        ...

    def tick(self) -> None:
        """Time to look at the logs."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Called when a process has ended."""
        ...

    def stopping(self) -> None:
        """The user interrupted, and the cells were asked to stop."""
        ...


def prepare(
    todo: Sequence[W], force: bool, claim: Claim | None = None, queue: Queue | None = None
) -> tuple[list[W], list[Outcome]]:
    """Claim each work and write settings and `pending`, so that a partial view shows what is still to come.

    claim: in whose name, by default this process's. queue: what knows the jobs of other claims. Returns the
    ones that can start, and those that another run or submission has, or has done since they were planned, or
    whose files are damaged.
    """
    ready, busy = list[W](), list[Outcome]()
    mine, queue = claim or claims.of_this_process(), queue or Queue()
    for work in todo:
        directory = work.directory
        try:
            other = claims.take(directory, mine, queue.alive)
            if other is not None:
                busy.append(
                    Outcome(work, unchanged(directory.status(), f"it {queue.describe(directory, other)}"))
                )
                continue
            with directory.locked():
                if not force and work.finished():
                    work.record_done()
                    claims.release(directory, mine.token)
                    busy.append(Outcome(work, directory.status()))
                    continue
                if force:
                    directory.wipe()
                elif (status := directory.status()).state is WorkState.DAMAGED:
                    claims.release(directory, mine.token)
                    busy.append(Outcome(work, status))
                    continue
                directory.write_config(work.config)
                directory.write_status(WorkState.PENDING, total=work.total)
                ready.append(work)
        except CellInUse as error:
            claims.release(directory, mine.token)
            busy.append(Outcome(work, unchanged(directory.status(), str(error))))
        except Damaged as error:  # its claim
            busy.append(Outcome(work, unchanged(directory.status(), str(error))))
    return ready, busy


def run(
    todo: Sequence[Work],
    jobs: int,
    how: Callable[[int, list[float]], HowToRun],
    watcher: Watcher,
    command_line: str,
    gpus: Gpus | None = None,
) -> tuple[list[Outcome], int]:
    """Do all work, `jobs` processes at a time. Returns how they ended, and the exit code of an interruption.

    how: how to run the next, from how many wait (it included) and the seconds that running ones have left.
    gpus: each work gets as many of them as it has processes, to itself; there are enough for `jobs`.
    That code is 0 without one. On Ctrl-C or SIGTERM every cell finishes its batch, writes a checkpoint and
    stops; a second Ctrl-C kills.
    The work is claimed by this process (`prepare`), and each is given free as it ends.
    """
    waiting, running, outcomes = list(todo), list[Process](), list[Outcome]()
    senders = list[beside.Beside]()
    is_warm = warm.worth_it(len(todo))
    lease = claims.Lease([work.directory for work in todo])

    def reap() -> None:
        lease.renew()
        for process in list(running):
            outcome = process.outcome()
            if outcome is not None:
                running.remove(process)
                if gpus is not None:
                    gpus.give_back(process.gpus)
                lease.release(outcome.work.directory)
                outcomes.append(outcome)
                watcher.ended(outcome)

    try:
        with listening(_terminated, signal.SIGTERM):
            while waiting or running:
                while waiting and len(running) < jobs:
                    chosen = how(len(waiting), [process.seconds_left() for process in running])
                    if gpus is not None:
                        chosen = replace(chosen, gpus=gpus.take(chosen.processes))
                    running.append(Process(waiting.pop(0), chosen, command_line, is_warm))
                    senders += [] if running[-1].sender is None else [running[-1].sender]
                    watcher.started(running[-1].work)
                _wait(reap, watcher)
    except KeyboardInterrupt as interrupt:
        watcher.stopping()
        _stop(running, lambda: _wait(reap, watcher))
        return outcomes, TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    finally:
        for process in running:
            process.kill()
        lease.end()
        beside.wait(senders)
    return outcomes, 0


def run_here(
    todo: Sequence[W], run_one: Callable[[W], Outcome], watcher: Watcher
) -> tuple[list[Outcome], int]:
    """The same in this process, one after the other. run_one: does one to its end."""
    outcomes = list[Outcome]()
    lease = claims.Lease([work.directory for work in todo])
    try:
        for work in todo:
            watcher.started(work)
            with lease.renewing():
                outcomes.append(run_one(work))
            lease.release(work.directory)
            watcher.ended(outcomes[-1])
            if outcomes[-1].status.state is WorkState.PREEMPTED:
                return outcomes, INTERRUPTED
    finally:
        lease.end()
    return outcomes, 0


def _wait(reap: Callable[[], None], watcher: Watcher) -> None:
    time.sleep(POLL_SECONDS)
    watcher.tick()
    reap()


def _stop(running: list[Process], wait: Callable[[], None]) -> None:
    """Ask every cell to stop, then wait for them; a second interrupt kills."""
    for process in running:
        process.request_stop()
    try:
        while running:
            wait()
    except KeyboardInterrupt:
        for process in running:
            process.kill_as_asked()
        while running:
            wait()


def _terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM acts much as Ctrl-C does."""
    raise Terminated


def check_disk(results: ResultsDir, cells: int) -> None:
    """Raise BenchError if results cannot be written, or the disk is nearly full. Writes nothing."""
    needed = (200 + 100 * cells) * MIB
    place = existing(results.path)
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise BenchError(f"cannot write results to {results.path}: {place} is no writable directory")
    check_locks(results.path)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise BenchError(
            f"only {free / MIB:.0f} MiB free at {place}, {needed / MIB:.0f} MiB wanted for {cells} "
            "cells. Free some space, or choose another --out."
        )
