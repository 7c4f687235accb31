"""What SLURM says of jobs: squeue first, then sacct where there is one.

submitit asks sacct alone. That is empty without accounting, a second late after sbatch, and never knows an
array task that was cancelled before it started; squeue knows all of them for `MinJobAge` seconds (300 unless
the site changed it).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from bench.base.errors import BenchError

DEFAULT_ARRAY = 1001  # tasks of an array, where a site did not change it
PATIENCE = 60  # seconds for an answer
FIELDS = "%i|%T|%N|%r|%e"
WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
)
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
NODE_FAILURES = ("NODE_FAIL", "BOOT_FAIL")
REQUEUE_SECONDS = 60.0  # after a node failure, until SLURM has put the job back into the queue


@dataclass(frozen=True)
class Job:
    """One job or array task. state: SLURM's word, such as PENDING. reason: why it waits or ended so."""

    id: str
    state: str
    node: str = ""
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.state in WAITING

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return self.state not in (*WAITING, *RUNNING)


def available() -> bool:
    """Whether this machine can ask SLURM."""
    return shutil.which("squeue") is not None


def ask(ids: Iterable[str]) -> dict[str, Job]:
    """The jobs of these ids (`12` or `12_3`) that SLURM knows. Raises BenchError if it does not answer.

    Asks once for all tasks of an array.
    """
    wanted = set(ids)
    arrays = {job.partition("_")[0] for job in wanted}
    if not arrays:
        return {}
    known = _squeue(arrays)
    if not wanted <= known.keys():
        known = _sacct({job.partition("_")[0] for job in wanted - known.keys()}) | known
    found = {job: known[job] for job in wanted & known.keys()}
    heard_of = {job.partition("_")[0] for job in known}
    for job in wanted - found.keys():
        if "_" in job and job.partition("_")[0] in heard_of:  # cancelled while it waited: no record is left
            found[job] = Job(job, "CANCELLED")
    return found


def _squeue(arrays: set[str]) -> dict[str, Job]:
    # A single unknown id is an error, several are not: job 1 keeps it company.
    command = [
        "squeue",
        "--array",
        "--states=all",
        "--noheader",
        "-o",
        FIELDS,
        "-j",
        ",".join([*arrays, "1"]),
    ]
    done = _run(command)
    if done.returncode != 0:
        raise BenchError(f"SLURM does not answer: squeue: {done.stderr.strip()}")
    found = dict[str, Job]()
    for line in done.stdout.splitlines():
        job, state, node, reason, end = line.split("|")
        if state in NODE_FAILURES and _just_now(end):
            state = "REQUEUED"  # it may be in the queue again in a moment
        found[job] = Job(job, state, node, "" if reason == "None" else reason)
    return found


def _just_now(end: str) -> bool:
    try:
        return (datetime.now() - datetime.fromisoformat(end)).total_seconds() < REQUEUE_SECONDS
    except ValueError:  # `N/A`
        return False


def _sacct(arrays: set[str]) -> dict[str, Job]:
    if shutil.which("sacct") is None:
        return {}
    command = [
        "sacct",
        "-X",
        "--noheader",
        "--parsable2",
        "-o",
        "JobID,State,NodeList",
        "-j",
        ",".join(arrays),
    ]
    done = _run(command)
    if done.returncode != 0:  # no slurmdbd: squeue's word is all there is
        return {}
    found = dict[str, Job]()
    for line in done.stdout.splitlines():
        job, state, node = line.split("|")
        if re.fullmatch(r"\d+(_\d+)?", job):
            found[job] = Job(job, state.partition(" ")[0], "" if node.startswith("None") else node)
    return found


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"SLURM does not answer: {command[0]} took over {PATIENCE} s") from error


def largest_array() -> int:
    """How many tasks an array may have here (`MaxArraySize`; 0 means that the site has no arrays)."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]).stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else DEFAULT_ARRAY


def cancel(jobs: Iterable[str]) -> None:
    """End jobs and array tasks. Raises BenchError."""
    ids = sorted(jobs)
    for n in range(0, len(ids), 200):
        done = _run(["scancel", *ids[n : n + 200]])
        if done.returncode != 0 and "Invalid job id" not in done.stderr:  # that one has ended by itself
            raise BenchError(f"scancel: {done.stderr.strip()}")
