"""What surrounds work inside its process: lock, status, env.json, requests to stop, failures on record."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import torch

from bench.base.errors import BenchError, NotFinite
from bench.base.files import write_atomically
from bench.base.signals import listening
from bench.engine.world import World
from bench.run import failures
from bench.run.environment import environment
from bench.run.failures import Failure
from bench.run.load import start
from bench.run.process import COMMAND_VARIABLE, Exit
from bench.run.store import Cause, CellInUse, WorkState
from bench.run.work import Work

REASONS = {
    WorkState.DONE: None,
    WorkState.TIMEOUT: "the time per cell was used up",
    WorkState.PREEMPTED: "asked to stop",
}
STOPS = (None, WorkState.TIMEOUT, WorkState.PREEMPTED)  # by number, for `World.stop`; the later one counts
GO, FINISHED, IN_USE = range(3)  # what the first of several processes tells the others
NO_MEMORY = "can't allocate memory"  # torch's word for main memory, in a RuntimeError
ENDINGS = {WorkState.DONE: Exit.DONE, WorkState.TIMEOUT: Exit.STOPPED, WorkState.PREEMPTED: Exit.STOPPED}


class StopRequest:
    """Why the work should stop before its end, if it should: a signal, or its time is up."""

    def __init__(self, timeout: float | None) -> None:
        self.deadline: float | None = None
        self.signalled = False
        self.limit(timeout)

    def limit(self, timeout: float | None) -> None:
        """From now on so many seconds; None: as many as it takes."""
        self.deadline = None if timeout is None else time.monotonic() + timeout

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the context SIGTERM, SIGINT and SLURM's warning ask to stop."""
        with listening(self._on_signal, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            yield

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True

    def seconds_left(self) -> float:
        """Seconds until the time is up; inf without a limit."""
        return math.inf if self.deadline is None else self.deadline - time.monotonic()

    def __call__(self) -> WorkState | None:
        """The state to leave in, or None to go on."""
        if self.signalled:
            return WorkState.PREEMPTED
        return WorkState.TIMEOUT if self.seconds_left() < 0 else None

    def number(self) -> int:
        """The same as a place in STOPS."""
        return STOPS.index(self())


def end_with_parent() -> None:
    """End this process when its standard input closes: the launcher holds the other end."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: its lock would be held at exit
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def recorded(work: Work, do: Callable[[World, torch.device], Exit]) -> Exit:
    """Do unfinished work on a device under its directory's lock; `do` writes the status that it ends in.

    Whatever goes wrong ends in the state `failed`, with the reason and a traceback on record.
    """
    directory, world = work.directory, None
    try:
        try:
            world, device = start(work.threads, work.deterministic)
        except BenchError as error:  # no device, or not the one that was asked for
            with directory.locked():
                _record_failure(work, error, gpu=False)
            return Exit.FAILED
        if not world.is_main:
            return _beside_the_first(work, world, device, do)
        with directory.locked():
            if work.finished():  # by another run, while this one waited for the lock
                work.record_done()
                world.largest(FINISHED)
                return Exit.DONE
            directory.write_status(WorkState.RUNNING)
            (directory.path / "traceback.txt").unlink(missing_ok=True)
            failures.forget(directory)
            facts = environment(device, world.size, os.environ.get(COMMAND_VARIABLE, shlex.join(sys.argv)))
            write_atomically(directory.path / "env.json", json.dumps(facts, indent=2) + "\n")
            world.largest(GO)
            try:
                return do(world, device)
            except Exception as error:
                _record_failure(work, error, device.type == "cuda")
                return Exit.FAILED
    except CellInUse as error:
        if world is not None:
            world.largest(IN_USE)
        print(error, flush=True)
        return Exit.LOCKED


def _beside_the_first(
    work: Work, world: World, device: torch.device, do: Callable[[World, torch.device], Exit]
) -> Exit:
    """What the other processes of the work do; the first one has the lock, and says whether it has."""
    if (word := world.largest(GO)) != GO:
        return Exit.DONE if word == FINISHED else Exit.LOCKED
    try:
        return do(world, device)
    except Exception as error:
        found = _failure(work, error, device.type == "cuda")
        said = f"process {world.rank + 1} of {world.size}: {found.message}"
        if failures.first(work.directory) is None:
            _write_traceback(work)
        failures.note(work.directory, world.rank, found.model_copy(update={"message": said}))
        return Exit.FAILED


def _record_failure(work: Work, error: Exception, gpu: bool) -> None:
    """Put on record that the exception being handled ended the work, or another process's before it."""
    earlier = failures.first(work.directory)
    found = earlier or _failure(work, error, gpu)
    work.directory.write_status(WorkState.FAILED, message=found.message, cause=found.cause)
    if earlier is None:
        _write_traceback(work)


def _failure(work: Work, error: Exception, gpu: bool) -> Failure:
    message = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(error):
        return Failure(message=f"{message}\n{work.memory_advice(gpu)}", cause=Cause.OUT_OF_MEMORY)
    return Failure(message=message, cause=Cause.NOT_FINITE if isinstance(error, NotFinite) else None)


def _write_traceback(work: Work) -> None:
    """Of the exception being handled."""
    with suppress(BenchError):  # the disk may be full, and the reason is on record
        write_atomically(work.directory.path / "traceback.txt", traceback.format_exc())
