"""A SLURM job without SLURM: the environment that submitit would see, and cells' processes by forks."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, NoReturn

import pytest
from submitit.core.utils import DelayedSubmission

import bench.run.process
from bench.base.files import read_rows
from bench.run import claims
from bench.run.cell import run_cell
from bench.run.slurm import job
from bench.run.slurm.job import CellJob
from bench.run.store import CellDir, WorkState
from bench.run.work import CellWork
from tests.run.slurm.fakes import SUBMISSION, submitted
from tests.support.running import plan_dots

PR_SET_PDEATHSIG = 1
RARELY = "train.checkpoint_every=1000"


class Forked:
    """subprocess.Popen for cells by a fork, which does not have to import torch again."""

    def __init__(
        self, command: list[str], *, stdout: BinaryIO, preexec_fn: Callable[[], None], **_: Any
    ) -> None:
        self.stdin: BinaryIO | None = None
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._child(CellDir(Path(command[command.index("cell") + 1])), stdout, preexec_fn)

    def _child(self, cell: CellDir, stdout: BinaryIO, preexec_fn: Callable[[], None]) -> NoReturn:
        code = 70
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # also if a test stopped it
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            preexec_fn()
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w"), write_through=True)
            code = int(run_cell(cell, None))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """If it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def enter_a_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What submitit would say of job 77_0 on node n1, from now on."""
    found = SimpleNamespace(
        job_id="77_0",
        raw_job_id="77",
        hostname="n1",
        hostnames=["n1"],
        num_nodes=1,
        node=0,
        global_rank=0,
        paths=SimpleNamespace(stderr=folder / "77_0_0_log.err"),
    )
    monkeypatch.setattr(job, "JobEnvironment", lambda: found)
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    parts = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(bench.run.process, "subprocess", parts)
    return found


def planned(out: Path, *settings: str, methods: str = "push", steps: int = 2) -> CellWork:
    """A claimed cell."""
    (_, work) = plan_dots(out, *settings, methods=methods, steps=steps)
    submitted(out, [work])
    return work


def cell_job(work: CellWork, **changes: Any) -> CellJob:
    """The job of a cell, as it is sent."""
    plain = CellJob(
        directory=str(work.directory.path),
        token=SUBMISSION,
        command_line="bench submit",
        processes=1,
        seconds=3600,
        warning=60,
        requeue=True,
    )
    return replace(plain, **changes)


def steps_of(work: CellWork) -> int:
    """How many steps are in its log."""
    return len(read_rows(work.log))


def free(work: CellWork) -> bool:
    """Whether nobody has it."""
    return claims.read(work.directory) is None


def begun(work: CellWork) -> bool:
    """Whether its process listens to signals, and has not died at once."""
    return work.directory.status().state is not WorkState.PENDING


def do_when(holds: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do something in another thread as soon as something holds; to be joined."""

    def wait() -> None:
        while not holds():
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


class Warned(BaseException):
    """Leaves the job's function, as submitit ends the process after a warning."""


def warned(
    work: CellWork, job_: CellJob, when: Callable[[], bool], deaf: bool = False
) -> DelayedSubmission | None:
    """Start the cell's process, and call submitit's checkpoint as soon as that holds.

    deaf: the process hangs, as in a batch that is longer than the warning.
    """
    answers: list[DelayedSubmission | None] = []

    def warning(*_: object) -> None:  # in the main thread, as submitit does
        if deaf:
            pid = job_._process.process.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
        answers.append(job_.checkpoint())
        raise Warned

    before = signal.signal(signal.SIGUSR2, warning)
    thread = do_when(when, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    try:
        with pytest.raises(Warned):
            job_()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)
    (answer,) = answers
    return answer
