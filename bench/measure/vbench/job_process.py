"""One job of `vbench generate` or `vbench score`, from start to status: `python -m bench vbench-cell DIR`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType

from bench.base.errors import BenchError
from bench.base.files import append_rows, read_rows
from bench.measure.vbench import dimension_run, generate
from bench.measure.vbench.jobs import ScoreJob, VideosJob
from bench.measure.vbench.record import record
from bench.measure.vbench.resolve import resolve
from bench.run.process import Exit
from bench.run.recorded import ENDINGS, REASONS, StopRequest, recorded
from bench.run.store import Cause, CellDir, WorkState
from bench.run.work import work_in

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # SLURM's warning comes to the job, which passes it on as SIGTERM
LATE = 1.0  # seconds by which a signal to all processes of a job may reach this one after its child


class Stopped(BaseException):
    """A signal asked the process to stop."""


def run_job(directory: CellDir) -> Exit:
    """Do it; the status says how it ended."""
    job = work_in(directory)
    assert isinstance(job, VideosJob | ScoreJob)  # who starts this has read it, too
    return recorded(job, lambda *_: _videos(job) if isinstance(job, VideosJob) else _score(job))


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
                    cell.write_status(WorkState.RUNNING, step, took)
                if step < total and stop() is not None:
                    break
    state = WorkState.DONE if step == total else WorkState.PREEMPTED
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
        cell.write_status(WorkState.PREEMPTED, 0, seconds, REASONS[WorkState.PREEMPTED])
        return Exit.STOPPED
    job.config.settle(status)
    seconds += status.seconds
    if status.state == "done":
        cell.write_status(WorkState.DONE, job.total, seconds)
        return Exit.DONE
    message = "\n".join((status.message, *status.ways))
    cell.write_status(WorkState.FAILED, 0, seconds, message, cause=Cause.KILLED if status.killed else None)
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
