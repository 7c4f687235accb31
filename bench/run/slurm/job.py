"""What runs inside a SLURM job: it starts a cell's process, passes warnings on, and puts the job back.

The job's own process only watches (it imports no torch). The cell runs as it does on a workstation, by
`python -m bench cell`, so results and resume are the same. All state is on disk: after a preemption, a time
limit or a node failure the same job starts again and continues from the last checkpoint.

Signals. SLURM's warning (USR2) goes to submitit, which calls `CellJob.checkpoint`: the cell leaves its batch,
writes a checkpoint of before it and stops, and the job is put back into the queue. SIGTERM (scancel, a
preemption without warning, the time limit) asks the cell to stop, too; what happens then is SLURM's decision,
so the job waits for its end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import FrameType

from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import DelayedSubmission

from bench.base.files import write_atomically
from bench.run import claims
from bench.run.process import HowToRun, Machines, Outcome, Process
from bench.run.slurm import memory_kills
from bench.run.store import Cause, CellDir, Status, WorkState
from bench.run.tracking import asked, beside
from bench.run.work import work_in

POLL_SECONDS = 0.2
MARGIN = 10.0  # seconds of a warning kept for putting the job back
SLACK = 45.0  # seconds by which SLURM may send its warning early (it looks every 30 s)
END_SECONDS = 900.0  # to wait for SLURM to end a job that it asked to stop
TRACKING_SECONDS = 60.0  # to wait for trackers when the cell has ended
JOB_FILE = "job.json"


class CellFailed(Exception):
    """The cell did not get to its end; its own directory has the reason."""


@dataclass
class CellJob:
    """One cell as a job. Pickled by submitit, so plain values alone.

    token: of the claim that the cell must still have. seconds: the job's limit; warning: how long before it
    SLURM says so. requeue: whether a stopped cell goes back into the queue. gpus: on each machine, as the
    profile asked for; device and track: as the user did (`bench.base.devices`, `bench.run.tracking.asked`).
    """

    directory: str
    token: str
    command_line: str
    processes: int
    seconds: int
    warning: int
    requeue: bool
    gpus: int = 0
    device: str = "auto"
    track: str = ""

    def __call__(self) -> str:
        """Run the cell. Returns how it ended. Raises CellFailed."""
        cell, environment = CellDir(Path(self.directory)), JobEnvironment()
        if not self._is_mine(cell):
            return f"{cell.id} was given free, or taken by another submission: nothing to do"
        self._began, self._first_step = time.monotonic(), cell.status().step
        self._kills = memory_kills.kills()
        os.environ[asked.VARIABLE] = self.track
        if environment.global_rank == 0:
            _note(cell, environment)
        self._process = Process(work_in(cell), self._how(environment), self.command_line)
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            if environment.global_rank != 0:
                return self._follow()
            outcome = self._outcome()
            assert outcome is not None  # without a limit it waits to the end
            return self._conclude(cell, outcome.status)
        finally:
            self._process.kill()
            signal.signal(signal.SIGTERM, before)
            if self._process.sender is not None:
                beside.wait([self._process.sender], TRACKING_SECONDS)

    def checkpoint(self) -> DelayedSubmission | None:
        """Called by submitit at SLURM's warning; None if the job shall not go back into the queue."""
        cell = CellDir(Path(self.directory))
        began = "_process" in vars(self)
        if not (self._stop(cell) if began else self.requeue):
            claims.release(cell, self.token)
            return None
        return DelayedSubmission(replace(self))

    def _stop(self, cell: CellDir) -> bool:
        """End the cell's process within the warning. Returns whether to go on in a new job."""
        self._process.request_stop()
        outcome = self._outcome(self.warning - MARGIN)
        stopped = outcome is not None
        if outcome is None:
            self._process.kill()
            outcome = self._outcome()
            assert outcome is not None  # without a limit it waits to the end
        status = outcome.status
        if status.state is WorkState.DONE:
            return self.requeue  # to find it done and end well
        if status.state is WorkState.FAILED and stopped:
            return False
        return self._stopped_early(cell, status)

    def _stopped_early(self, cell: CellDir, status: Status) -> bool:
        """Record why; whether to go on in a new job. A time limit that is too short for a step must not go
        round for ever; a preemption may come at any moment."""
        limit = time.monotonic() - self._began > self.seconds - self.warning - SLACK
        state, why = (WorkState.TIMEOUT, "the time limit") if limit else (WorkState.PREEMPTED, "preemption")
        if limit and status.step <= self._first_step:
            message = (
                f"no step was finished within the job's {self.seconds // 60} minutes: not queued again. Give "
                f"it more time (--with time=…): at least for loading and one batch, and the warning"
            )
            again = False
        else:
            again = self.requeue
            message = f"stopped by {why} at step {status.step}" + ("; queued again" if again else "")
        _record(cell, state, message)
        return again

    def _is_mine(self, cell: CellDir) -> bool:
        held = claims.read(cell)
        return held is not None and held[0].token == self.token

    def _how(self, environment: JobEnvironment) -> HowToRun:
        alone = HowToRun(
            self.processes, device=self.device, promised_gpus=self.gpus, grace=self.warning - MARGIN
        )
        if environment.num_nodes == 1:
            return alone
        # The same on all machines, and below 32768: above it, Linux gives ports to outgoing connections.
        port = 20_000 + int(os.environ["SLURM_JOB_ID"]) % 12_000
        first = os.environ["SLURM_LAUNCH_NODE_IPADDR"]  # srun runs on the first machine of the job
        machines = Machines(environment.num_nodes, environment.node, first, port)
        return replace(alone, machines=machines)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        print("SIGTERM: asking the cell to stop", flush=True)
        self._process.request_stop()

    def _outcome(self, seconds: float | None = None) -> Outcome | None:
        """How the cell's process ended; None if it did not within that time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while (outcome := self._process.outcome()) is None:
            if deadline is not None and time.monotonic() > deadline:
                return None
            time.sleep(POLL_SECONDS)
        return outcome

    def _follow(self) -> str:
        """On machines other than the first one: the first one keeps the records."""
        while (code := self._process.process.poll()) is None:
            time.sleep(POLL_SECONDS)
        if code != 0:
            time.sleep(
                MARGIN
            )  # the job ends with the first process that fails, and the first has to record why
            raise CellFailed(f"a process on this machine ended with exit code {code}")
        return "done"

    def _conclude(self, cell: CellDir, status: Status) -> str:
        if status.state is WorkState.PREEMPTED:
            return self._wait_for_the_end(cell)
        if status.cause is Cause.KILLED and memory_kills.kills() > self._kills:
            status = _record(cell, WorkState.FAILED, memory_kills.story(cell), Cause.OUT_OF_MEMORY)
        elif status.cause is Cause.KILLED and time.monotonic() - self._began > self.seconds - MARGIN:
            # SLURM ends all processes of a job at its limit, and this one may be the last of them.
            told = f"killed at the job's time limit, the checkpoint is at step {status.step}"
            status = _record(cell, WorkState.TIMEOUT, told)
        claims.release(cell, self.token)
        if status.state is not WorkState.DONE:
            raise CellFailed(f"{cell.id}: {status.cause or status.state}: {status.message}")
        return f"{cell.id}: done"

    def _wait_for_the_end(self, cell: CellDir) -> str:
        """Asked to stop, and stopped. SLURM ends the job, or warns and puts it back, or `bench cancel` has
        given the cell free."""
        deadline = time.monotonic() + END_SECONDS
        while time.monotonic() < deadline:
            if not self._is_mine(cell):
                status = cell.status()
                _record(cell, WorkState.PREEMPTED, f"cancelled at step {status.step}", Cause.CANCELLED)
                raise CellFailed(f"{cell.id}: cancelled")
            time.sleep(POLL_SECONDS)
        claims.release(cell, self.token)
        raise CellFailed(f"{cell.id}: stopped by SIGTERM")


@dataclass
class ReportJob:
    """Builds the report of a results directory."""

    directory: str

    def __call__(self) -> None:
        """Run the report's command; raises CalledProcessError where it fails."""
        subprocess.run([sys.executable, "-m", "bench", "report", self.directory], check=True)


def _note(cell: CellDir, environment: JobEnvironment) -> None:
    content = {
        "job": environment.job_id,
        "node": os.environ.get("SLURMD_NODENAME", environment.hostname),
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "started": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "log": str(environment.paths.stderr),
    }
    write_atomically(cell.path / JOB_FILE, json.dumps(content, indent=2) + "\n")


def _record(cell: CellDir, state: WorkState, message: str, cause: Cause | None = None) -> Status:
    with cell.locked():
        cell.write_status(state, message=message, cause=cause)
    return cell.status()
