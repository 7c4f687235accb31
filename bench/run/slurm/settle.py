"""Cells whose job ended without a word: what SLURM knows of it goes on record, and the cell is free again."""

from __future__ import annotations

import os
from typing import NamedTuple

from bench.base.errors import Damaged
from bench.run import claims
from bench.run.claims import Claim
from bench.run.slurm import memory_kills, record
from bench.run.slurm.queue import Queue
from bench.run.slurm.scheduler import NODE_FAILURES, Job
from bench.run.store import Cause, CellDir, CellInUse, ResultsDir, Status, WorkState


class Ending(NamedTuple):
    """How a job's end is recorded in the cell's status."""

    state: WorkState
    cause: Cause | None
    message: str


UNFINISHED = (WorkState.PENDING, WorkState.RUNNING, WorkState.PREEMPTED)


def settle(results: ResultsDir, cells: list[CellDir]) -> Queue:
    """Record the end of jobs that could not do it themselves. Returns the queue as it was found.

    Where SLURM cannot be asked, or the directory is somebody else's, nothing is touched.
    """
    queue = Queue(results)
    for cell in cells:
        try:
            held = claims.read(cell)
        except Damaged:  # `status` shows the cell as damaged
            continue
        if held is None or not held[0].submission or not os.access(cell.path, os.W_OK):
            continue
        if queue.job_id(cell, held[0]) is not None and not queue.alive(cell, *held):
            _settle(results, cell, held[0], queue)
    return queue


def _settle(results: ResultsDir, cell: CellDir, claim: Claim, queue: Queue) -> None:
    try:
        with cell.locked(patience=0.0):
            held = claims.read(cell)
            if held is None or held[0] != claim:
                return  # somebody else was here
            status = cell.status()
            if status.state in UNFINISHED:
                found = verdict(results, cell, claim, status, queue)
                cell.write_status(found.state, message=found.message, cause=found.cause)
            claims.release(cell, claim.token)
    except CellInUse:
        pass  # its process is still ending, or another run has it: the next look will tell


def verdict(results: ResultsDir, cell: CellDir, claim: Claim, status: Status, queue: Queue) -> Ending:
    """What became of a claimed cell's job, which is over."""
    job_id = queue.job_id(cell, claim) or ""
    job, logs = queue.job(job_id), record.log_files(results, claim.token, job_id)
    words = memory_kills.told_in(logs)
    log = f" See {logs[-1]}" if logs else ""
    if words is not None or (job is not None and job.state == "OUT_OF_MEMORY"):
        submission = queue.submission(cell, claim)
        gpus = submission is not None and bool(submission.profile["gpus"] or submission.profile["gres"])
        return Ending(WorkState.FAILED, Cause.OUT_OF_MEMORY, memory_kills.story(cell, gpus, words))
    if job is None:
        if not logs:
            return Ending(
                WorkState.PREEMPTED, Cause.CANCELLED, f"job {job_id} left the queue before it started"
            )
        return Ending(WorkState.FAILED, Cause.LOST, f"SLURM no longer knows job {job_id}.{log}")
    return _by_state(job, status, log)


def _by_state(job: Job, status: Status, log: str) -> Ending:
    where = f" on {job.node}" if job.node else ""
    if job.state in NODE_FAILURES:
        return Ending(WorkState.FAILED, Cause.NODE_FAILURE, f"the node of job {job.id}{where} failed")
    if job.state in ("TIMEOUT", "DEADLINE"):
        return Ending(
            WorkState.TIMEOUT,
            None,
            f"job {job.id} reached its time limit, the checkpoint is at step {status.step}",
        )
    if job.state == "CANCELLED" and "ependency" in job.reason:
        return Ending(WorkState.PREEMPTED, Cause.DEPENDENCY, f"the dependency of job {job.id} cannot hold")
    if job.state == "CANCELLED":
        return Ending(
            WorkState.PREEMPTED, Cause.CANCELLED, f"job {job.id} was cancelled at step {status.step}"
        )
    if job.state == "PREEMPTED":
        return Ending(WorkState.PREEMPTED, None, f"job {job.id} was preempted and not queued again")
    if job.state == "COMPLETED":
        return Ending(WorkState.FAILED, Cause.LOST, f"job {job.id} ended without running the cell.{log}")
    return Ending(
        WorkState.FAILED, Cause.KILLED, f"job {job.id} was killed{where} (SLURM: {job.state}).{log}"
    )
