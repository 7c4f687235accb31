"""One cell from start to status, in this process: what `python -m bench cell DIRECTORY` does."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol, runtime_checkable

import torch

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.engine.world import World
from bench.experiment.settings import CellConfig
from bench.run.environment import environment
from bench.run.forecast import memory_advice
from bench.run.load import start
from bench.run.process import COMMAND_VARIABLE, Exit
from bench.run.store import Cause, CellDir, CellInUse, WorkDir, WorkState
from bench.run.train import Session, Trainer

REASONS = {
    WorkState.DONE: None,
    WorkState.TIMEOUT: "the time per cell was used up",
    WorkState.PREEMPTED: "asked to stop",
}
NO_MEMORY = "can't allocate memory"  # torch's word for main memory, in a RuntimeError
ENDINGS = {WorkState.DONE: Exit.DONE, WorkState.TIMEOUT: Exit.STOPPED, WorkState.PREEMPTED: Exit.STOPPED}


@runtime_checkable
class SavesLora(Protocol):
    """A chain whose adapter can be written to a directory."""

    def save_lora(self, directory: str | os.PathLike[str]) -> None:
        """Write it in diffusers' format."""
        ...


class StopRequest:
    """Why the cell should stop before its last step, if it should: a signal, or its time is up."""

    def __init__(self, timeout: float | None) -> None:
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.signalled = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within the context SIGTERM, SIGINT and SLURM's warning ask to stop."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
        before = [signal.signal(number, self._on_signal) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

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


def end_with_parent() -> None:
    """End this process when its standard input closes: the launcher holds the other end."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: its lock would be held at exit
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_cell(cell: CellDir, timeout: float | None) -> Exit:
    """Train and evaluate one cell, or evaluate the base model; the status says how it ended.

    With several processes all of them come here, and only the first one writes.
    """
    stop = StopRequest(timeout)
    with stop.listening():
        return _run_cell(cell, stop)


def _run_cell(cell: CellDir, stop: StopRequest) -> Exit:
    config = cell.config()
    world, device = start(config.threads)
    if cell.finished(config):
        return Exit.DONE
    if not world.is_main:
        return ENDINGS[_work(Session(cell, config, world, device), stop)]
    try:
        with cell.locked():
            return _recorded(cell, config, world, device, stop)
    except CellInUse as error:
        print(error, flush=True)
        return Exit.LOCKED


def _recorded(
    cell: CellDir, config: CellConfig, world: World, device: torch.device, stop: StopRequest
) -> Exit:
    """Run; whatever goes wrong ends in `failed`, with the reason and a traceback on record."""
    if cell.finished(config):
        return Exit.DONE  # by another run, while this one waited for the lock
    status = cell.status()
    cell.write_status(WorkState.RUNNING, status.step, status.seconds)
    (cell.path / "traceback.txt").unlink(missing_ok=True)
    command = os.environ.get(COMMAND_VARIABLE, shlex.join(sys.argv))
    write_atomically(
        cell.path / "env.json", json.dumps(environment(device, world.size, command), indent=2) + "\n"
    )
    try:
        session = Session(cell, config, world, device)
        state = _work(session, stop)
        if config.trains and isinstance(session.chain, SavesLora):
            _save_lora(cell, session.chain)
        cell.write_status(state, session.counters.step, session.counters.seconds, REASONS[state])
        return ENDINGS[state]
    except Exception as error:
        record_failure(cell, error)
        return Exit.FAILED


def record_failure(directory: WorkDir, error: Exception) -> None:
    """Put on record that the exception being handled ended the work."""
    message = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    status, cause = directory.status(), None
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(error):
        cause = Cause.OUT_OF_MEMORY
        if isinstance(directory, CellDir):
            message = f"{message}\n{memory_advice(directory.config(), torch.cuda.is_available())}"
    directory.write_status(WorkState.FAILED, status.step, status.seconds, message, cause=cause)
    with suppress(BenchError):  # the disk may be full, and the reason is on record
        write_atomically(directory.path / "traceback.txt", traceback.format_exc())


def _work(session: Session, stop: StopRequest) -> WorkState:
    """Train, or evaluate the base model."""
    training = session.config.training
    if training is not None:
        return Trainer(session, training).run(stop, lambda message: print(message, flush=True))
    session.cut_logs()
    session.evaluate()
    return WorkState.DONE


def _save_lora(cell: CellDir, chain: SavesLora) -> None:
    """Write the adapter beside the old one, then swap."""
    fresh, final = cell.path / ".lora.tmp", cell.path / "lora"
    shutil.rmtree(fresh, ignore_errors=True)
    chain.save_lora(fresh)
    if final.exists():
        shutil.rmtree(final)
    fresh.rename(final)
