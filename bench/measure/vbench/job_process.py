"""One job of `vbench generate` or `vbench score`, from start to status: `python -m bench vbench-cell DIR`."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

from bench.base.errors import BenchError
from bench.base.files import append_rows, read_rows, write_atomically
from bench.measure.vbench import dimension_run, generate
from bench.measure.vbench.jobs import ScoreJob, VideosJob
from bench.measure.vbench.record import record
from bench.measure.vbench.resolve import resolve
from bench.run.cell import ENDINGS, REASONS, StopRequest, record_failure
from bench.run.environment import environment
from bench.run.load import start
from bench.run.process import COMMAND_VARIABLE, Exit
from bench.run.store import Cause, CellDir, CellInUse, JobDir, State
from bench.run.work import work_in

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # SLURM's warning comes to the job, which passes it on as SIGTERM
LATE = 1.0  # seconds by which a signal to all processes of a job may reach this one after its child


class Stopped(BaseException):
    """A signal asked the process to stop."""


def run_job(directory: CellDir) -> Exit:
    """Do it; the status says how it ended."""
    job = work_in(directory)
    assert isinstance(job, VideosJob | ScoreJob)  # who starts this has read it, too
    try:
        with directory.locked():
            return _recorded(job)
    except CellInUse as error:
        print(error, flush=True)
        return Exit.LOCKED


def _recorded(job: VideosJob | ScoreJob) -> Exit:
    """Whatever goes wrong ends in `failed`, with the reason and a traceback on record."""
    cell = job.directory
    status = cell.status()
    if job.finished():
        cell.write_status(State.DONE, job.total, status.seconds)
        return Exit.DONE
    cell.write_status(State.RUNNING, status.step, status.seconds)
    (cell.path / "traceback.txt").unlink(missing_ok=True)
    try:
        _, device = start(job.threads)
        facts = environment(device, 1, os.environ.get(COMMAND_VARIABLE, shlex.join(sys.argv)))
        write_atomically(cell.path / "env.json", json.dumps(facts, indent=2) + "\n")
        return _videos(job) if isinstance(job, VideosJob) else _score(job)
    except Exception as error:
        record_failure(JobDir(cell.path), error)
        return Exit.FAILED


def _videos(job: VideosJob) -> Exit:
    """Make those that are not there. One line in the log for every batch: how many are there, how many of
    them it made itself, in how many seconds."""
    cell, request, total = job.directory, job.config, job.total
    rows, stop, step = read_rows(cell.metrics), StopRequest(None), cell.status().step
    made = rows[-1]["made"] if rows else 0
    seconds, started = cell.status().seconds, time.monotonic()
    with stop.listening(), _stopped_encoder_is_no_error(stop):
        found = resolve(request)
        same = record(found, force=False)
        left = request.missing()
        step = total - len(left)
        with closing(generate.make(found, left, job.threads, same)) as batches:
            for mine, others in batches:
                made, step = made + len(mine), step + len(mine) + len(others)
                took = seconds + time.monotonic() - started
                if mine or others:
                    append_rows(cell.metrics, [{"step": step, "made": made, "seconds": round(took, 3)}])
                    cell.write_status(State.RUNNING, step, took)
                if step < total and stop() is not None:
                    break
    state = State.DONE if step == total else State.PREEMPTED
    cell.write_status(state, step, seconds + time.monotonic() - started, REASONS[state])
    return ENDINGS[state]


def _score(job: ScoreJob) -> Exit:
    """Score the dimension. A process that is asked to stop begins again: VBench keeps nothing half done."""
    cell = job.directory
    seconds = cell.status().seconds
    try:
        with _stopped_by_signals():
            status = dimension_run.run(job.config, fetch=False)
            if status.state == "failed":
                time.sleep(LATE)
    except Stopped:
        cell.write_status(State.PREEMPTED, 0, seconds, REASONS[State.PREEMPTED])
        return Exit.STOPPED
    job.config.settle(status)
    seconds += status.seconds
    if status.state == "done":
        cell.write_status(State.DONE, job.total, seconds)
        return Exit.DONE
    message = "\n".join((status.message, *status.ways))
    cell.write_status(State.FAILED, 0, seconds, message, cause=Cause.KILLED if status.killed else None)
    return Exit.FAILED


@contextmanager
def _stopped_encoder_is_no_error(stop: StopRequest) -> Iterator[None]:
    """Within the context an error is none if it comes with a request to stop: SLURM may send its signals to
    all processes of a job, and so to the encoder."""
    try:
        yield
    except BenchError:
        time.sleep(LATE)
        if stop() is None:
            raise


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Within the context they raise Stopped, at which a process that is waited for is killed. Warnings are
    ignored, and so by the process, too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped

    wanted = dict.fromkeys(SIGNALS, stop) | {signal.SIGUSR2: signal.SIG_IGN}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
