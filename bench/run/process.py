"""The process that does one piece of work.

A cell's process is `python -m bench cell DIRECTORY` (a profile's is `bench probe`); everything it needs is in
the directory. It may die in any way without touching the others. Its standard input is a pipe: when this
process dies, the pipe closes and the other ends too, so that nothing goes on writing behind the user's back.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from bench.base import devices
from bench.run import failures
from bench.run.store import Cause, CellInUse, Status, WorkState
from bench.run.tracking import asked, beside
from bench.run.warm import WarmProcess
from bench.run.work import CellWork, Work

# Beyond the time limit, before a process that does not stop by itself is killed. It is asked before every
# step of a chain; in between lies an evaluation of the network, or decoder and rewards of a chunk: seconds,
# by estimate also for videos on a V100.
GRACE_SECONDS = 60.0
COMMAND_VARIABLE = "BENCH_COMMAND_LINE"
# torch's names of one setting, by age: without it, what evaluations leave free on a GPU is in pieces.
ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
GRACE_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # of the launcher of several processes; 30 s without
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Exit(IntEnum):
    """Exit codes of a cell's process."""

    DONE = 0
    FAILED = 1
    LOCKED = 3
    STOPPED = 4


@dataclass(frozen=True)
class Machines:
    """The machines that a process runs on: how many, which of them this is, and where they meet."""

    count: int = 1
    rank: int = 0
    address: str = ""
    port: int = 0


@dataclass(frozen=True)
class HowToRun:
    """How each work is run: data-parallel processes, seconds until it has to stop, and further options.

    processes: on each of the machines. device: what it computes on, if not as this process; promised_gpus:
    those that its job asked for on each machine (`bench.base.devices`). gpus: those it may use, as
    CUDA_VISIBLE_DEVICES names them; None: those of this process. grace: seconds from a request to stop until
    they are killed, where there are several.
    """

    processes: int = 1
    timeout: float | None = None
    extra: tuple[str, ...] = ()
    machines: Machines = Machines()
    device: str | None = None
    promised_gpus: int = 0
    gpus: tuple[str, ...] | None = None
    grace: float = GRACE_SECONDS

    @property
    def variables(self) -> dict[str, str]:
        """The environment's part of it."""
        found = {devices.PROMISED: str(self.promised_gpus)} if self.promised_gpus else {}
        found |= {} if self.device is None else {devices.VARIABLE: self.device}
        found |= {} if self.alone else {GRACE_VARIABLE: str(int(self.grace))}
        return found if self.gpus is None else found | {devices.VISIBLE: ",".join(self.gpus)}

    def _launcher(self) -> list[str]:
        """Python alone, or `accelerate launch` for several processes (on CPUs it is the same launcher)."""
        machines = self.machines
        if self.alone:
            return [sys.executable]
        command = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            str(Path(__file__).with_name("accelerate.yaml")),
            "--multi_gpu",
            "--mixed_precision",
            "no",
        ]
        command += ["--dynamo_backend", "no", "--num_processes", str(self.processes * machines.count)]
        command += ["--num_machines", str(machines.count), "--machine_rank", str(machines.rank)]
        if machines.count > 1:
            command += ["--main_process_ip", machines.address]
        return [*command, "--main_process_port", str(machines.port)]  # 0: a free one

    def command(self, work: Work) -> list[str]:
        """The command line that does the work."""
        return [*self._launcher(), "-m", "bench", *self.arguments(work)]

    def arguments(self, work: Work) -> list[str]:
        """Those of `bench` that do the work."""
        arguments = [work.command, str(work.directory.path), "--with-parent", *self.extra]
        return arguments if self.timeout is None else [*arguments, "--timeout", str(self.timeout)]

    @property
    def alone(self) -> bool:
        """Whether one process does the work."""
        return self.processes * self.machines.count == 1


@dataclass(frozen=True)
class Outcome:
    """How a cell's process ended."""

    work: Work
    status: Status

    @property
    def ok(self) -> bool:
        """Whether the cell is done."""
        return self.status.state is WorkState.DONE


def unchanged(status: Status, message: str) -> Status:
    """What to tell about a cell that this run left alone."""
    return Status(state=WorkState.FAILED, step=status.step, seconds=status.seconds, message=message)


def _deaf_to_warnings() -> None:
    """Until it listens itself: SLURM may send its warning to every process of a job."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _cold(command: list[str], output: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with output.open("ab") as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process only, which then stops the cells
            preexec_fn=_deaf_to_warnings,
        )


def sender_of(work: Work, how: HowToRun, environment: Mapping[str, str], warm: bool) -> beside.Beside | None:
    """Start the process that sends a cell to the trackers that were asked for; None where there is none to.

    Of several machines the first one has it. It sees no GPU.
    """
    names = os.environ.get(asked.VARIABLE)  # checked when the run was planned
    if not names or not isinstance(work, CellWork) or how.machines.rank > 0:
        return None
    output, variables = work.directory.path / beside.OUTPUT, {**environment, devices.VISIBLE: ""}
    output.touch()
    arguments = [beside.COMMAND, str(work.directory.path), "--to", names]
    if warm:
        return beside.Beside(WarmProcess(arguments, output, variables), output)
    return beside.Beside(_cold([sys.executable, "-m", "bench", *arguments], output, variables), output)


class Process:
    """One process that does one piece of work."""

    def __init__(self, work: Work, how: HowToRun, command_line: str, warm: bool = False) -> None:
        """warm: from a warm start (`bench.run.warm`), if one process does the work."""
        self.work, self.timeout, self.stop_requested = work, how.timeout, False
        self.gpus = how.gpus or ()
        self._killed_as_asked = False
        self.started = time.monotonic()
        threads = str(work.threads)
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, threads) | how.variables
        environment[COMMAND_VARIABLE] = command_line
        if not any(name in environment for name in ALLOCATOR_VARIABLES):
            environment[ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"
        self.output.touch()
        if warm and how.alone:
            self.process = WarmProcess(how.arguments(work), self.output, environment)
        else:
            self.process = _cold(how.command(work), self.output, environment)
        self.sender = sender_of(work, how, environment, warm)

    @property
    def output(self) -> Path:
        """What it prints, after what was printed before."""
        return self.work.directory.path / "output.txt"

    def seconds_left(self) -> float:
        """Seconds until its time is up; inf without a limit."""
        if self.timeout is None:
            return math.inf
        return max(0.0, self.timeout - (time.monotonic() - self.started))

    def request_stop(self) -> None:
        """Ask it to write a checkpoint and stop."""
        self.stop_requested = True
        self.process.terminate()

    def kill_as_asked(self) -> None:
        """End it now, because the user insists."""
        self._killed_as_asked = True
        self.kill()

    def kill(self) -> None:
        """End it now, and with it the processes that it started: their standard input closes."""
        self.process.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.sender is not None:
            self.sender.close()

    def outcome(self) -> Outcome | None:
        """None while it runs. Passes on what its sender has to tell, which then sends what is left."""
        if self.sender is not None:
            self.sender.look()
        found = self._outcome()
        if found is not None and self.sender is not None:
            self.sender.close()
        return found

    def _outcome(self) -> Outcome | None:
        if self.timeout is not None and time.monotonic() - self.started > self.timeout + GRACE_SECONDS:
            self.kill()
        code = self.process.poll()
        if code is None:
            return None
        status = self.work.directory.status()
        if code == Exit.LOCKED:
            return Outcome(self.work, unchanged(status, self._last_line()))
        if status.state in (WorkState.RUNNING, WorkState.PENDING):
            status = self._record_death(code)
        return Outcome(self.work, status)

    def _record_death(self, code: int) -> Status:
        """The process could not say itself how it ended."""
        late = self.timeout is not None and time.monotonic() - self.started > self.timeout
        state, cause = WorkState.FAILED, Cause.KILLED if code < 0 else None
        if late:
            state, cause = WorkState.TIMEOUT, None
        why = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL and not late else ""
        message = f"the process {why}{hint}. Its last line: {self._last_line()}"
        if self.stop_requested and code == -signal.SIGTERM:  # before it listened to signals
            state, cause, message = WorkState.PREEMPTED, None, "asked to stop"
        if self._killed_as_asked:
            state, cause = WorkState.PREEMPTED, None
            message = "killed by a second interrupt; it continues from its last checkpoint"
        elif state is WorkState.FAILED and code > 0 and (failure := failures.first(self.work.directory)):
            message, cause = failure.message, failure.cause
        try:
            with self.work.directory.locked():
                self.work.directory.write_status(state, message=message, cause=cause)
        except CellInUse as error:  # which the launcher of several processes does not pass on
            return unchanged(self.work.directory.status(), str(error))
        return self.work.directory.status()

    def _last_line(self) -> str:
        text = self.output.read_text(encoding="utf-8", errors="replace")
        return next((line for line in reversed(text.splitlines()) if line.strip()), "(it printed nothing)")
