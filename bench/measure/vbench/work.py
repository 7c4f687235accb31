"""A part of `vbench generate` or `vbench score`, from start to status: `python -m bench vbench-cell DIR`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from bench.base.errors import BenchError
from bench.base.files import append_rows, read_rows
from bench.measure.vbench import generate, order, score
from bench.measure.vbench.jobs import Part, PartWork, ScorePart, VideosPart
from bench.measure.vbench.record import record
from bench.run.load import start
from bench.run.process import Exit
from bench.run.recorded import ENDINGS, REASONS, StopRequest, recorded
from bench.run.store import Cause, CellDir, WorkState

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # SLURM's warning comes to the job, which passes it on as SIGTERM
LATE = 1.0  # seconds by which a signal to all processes of a job may reach this one after its child


class Stopped(BaseException):
    """A signal asked the process to stop."""


def run_part(cell: CellDir) -> Exit:
    """Do it; the status says how it ended."""
    work = PartWork.read(cell)
    part = work.config
    _, device = start(part.threads)

    def do() -> Exit:
        return _videos(cell, part) if isinstance(part, VideosPart) else _score(cell, part)

    return recorded(work, device, 1, do)


def _videos(cell: CellDir, part: VideosPart) -> Exit:
    """Make those that are not there. One line in the log for every batch: how many are there, how many of
    them it made itself, in how many seconds."""
    rows, stop, step = read_rows(cell.metrics), StopRequest(None), cell.status().step
    made = rows[-1]["made"] if rows else 0
    seconds, started = cell.status().seconds, time.monotonic()
    with stop.listening(), _stopped_encoder_is_no_error(stop):
        found = order.order(asked(part))
        same = record(found)
        left = part.missing()
        step = part.total - len(left)
        with closing(generate.make(found, left, part.threads, same)) as batches:
            for mine, others in batches:
                made, step = made + len(mine), step + len(mine) + len(others)
                took = seconds + time.monotonic() - started
                if mine or others:
                    append_rows(cell.metrics, [{"step": step, "made": made, "seconds": round(took, 3)}])
                    cell.write_status(WorkState.RUNNING, step, took)
                if step < part.total and stop() is not None:
                    break
    state = WorkState.DONE if step == part.total else WorkState.PREEMPTED
    cell.write_status(state, step, seconds + time.monotonic() - started, REASONS[state])
    return ENDINGS[state]


def asked(part: VideosPart) -> order.Asked:
    """As the command would have it for this part."""
    return order.Asked(
        dimensions=part.chosen(),
        model=part.model,
        lora=None if part.lora is None else Path(part.lora),
        out=Path(part.videos),
        subset=part.subset,
        per_prompt=part.per_prompt,
        shard=part.shard,
        seed=part.seed,
        batch=part.batch,
        fps=part.fps,
        settings=part.settings,
    )


def _score(cell: CellDir, part: Part) -> Exit:
    """Score the dimension. A process that is asked to stop begins again: VBench keeps nothing half done."""
    assert isinstance(part, ScorePart)
    (work,) = score.cells_of(part.asked())
    seconds = cell.status().seconds
    try:
        with _stopped_by_signals():
            status = work.run(fetch=False)
            if status.state == "failed":
                time.sleep(LATE)
    except Stopped:
        cell.write_status(WorkState.PREEMPTED, 0, seconds, REASONS[WorkState.PREEMPTED])
        return Exit.STOPPED
    score.settle(work, status, {})
    seconds += status.seconds
    if status.state == "done":
        cell.write_status(WorkState.DONE, part.total, seconds)
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
