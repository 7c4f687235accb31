"""From the command line to the queue: `submit`, its short form `run --slurm`, and `retry`."""

from __future__ import annotations

import time
from collections.abc import Sequence, Sized
from dataclasses import dataclass

from rich.console import Console

from bench.base.console import note, plain
from bench.base.errors import BenchError
from bench.base.layers import profiles
from bench.experiment.request import Experiment
from bench.run import experiment
from bench.run.slurm import cluster, control, record, scheduler, status
from bench.run.slurm import submit as sending
from bench.run.slurm.cluster import Profile
from bench.run.slurm.settle import settle
from bench.run.store import ResultsDir
from bench.run.work import Work, work_in

ASK_SECONDS = 3.0  # between two looks at the queue
GLANCE_SECONDS = 1.5  # after sending, until SLURM has had a look at the jobs
NEVER_STARTS = (
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "BadConstraints",
    "PartitionConfig",
    "ReqNodeNotAvail",
)


@dataclass(frozen=True)
class SweepRequest:
    """What the user typed besides the experiment."""

    profile: str | None
    changes: tuple[str, ...]
    max_parallel: int | None
    wait: bool
    dry_run: bool
    force: bool
    option: str = "--profile"  # that named the profile


def submit(console: Console, what: Experiment, asked: SweepRequest) -> int:
    """Plan an experiment and send what is left of it. Returns the exit code."""
    if asked.profile is None:
        raise BenchError("--profile: name a profile, one of: " + ", ".join(profiles()))
    chosen = cluster.load(asked.profile, asked.changes, asked.option)
    if not asked.dry_run:
        sending.require_slurm()
    planned = experiment.plan(what, asked.force, fetch=not asked.dry_run, here=False)
    if asked.dry_run:
        experiment.show(console, planned)
        return dry(console, planned.todo, chosen, asked)
    done = len(planned.cells) - len(planned.todo)
    if not planned.todo:
        console.print(f"all {done} cells in {planned.results.path} are done: nothing to send", soft_wrap=True)
        return 0
    settle(planned.results, planned.results.cells())
    experiment.record(what, planned)
    return send(console, planned.results, planned.todo, chosen, asked, done)


def retry(console: Console, results: ResultsDir, which: str, asked: SweepRequest) -> int:
    """Send cells that ended badly once more. Returns the exit code."""
    cells = control.to_retry(results, which)
    if not cells:
        console.print(f"no cell in {results.path} to try again ({which}): see python -m bench status")
        return 0
    before = record.submissions(results)
    if asked.profile is not None:
        chosen = cluster.load(asked.profile, asked.changes)
    elif before:
        chosen = cluster.again([*before.values()][-1].profile, asked.changes)
    else:
        raise BenchError(
            f"{results.path} was never submitted to SLURM: name a --profile, or give the command again that "
            "ran it here, which tries failed cells again"
        )
    todo = [work_in(cell) for cell in cells]
    if asked.dry_run:
        return dry(console, todo, chosen, asked)
    return send(console, results, todo, chosen, asked, 0)


def dry(console: Console, todo: Sequence[Work], chosen: Profile, asked: SweepRequest) -> int:
    parallel = asked.max_parallel or chosen.max_parallel
    largest = scheduler.largest_array() if scheduler.available() else scheduler.DEFAULT_ARRAY
    found = sending.arrays(todo, chosen, parallel, largest)
    console.print(f"\n{_many(todo, 'cell')} in {_many(found, 'array')} would be sent:")
    sending.show(console, found)
    return 0


def send(
    console: Console,
    results: ResultsDir,
    todo: Sequence[Work],
    chosen: Profile,
    asked: SweepRequest,
    done: int,
) -> int:
    sent = sending.submit(
        results,
        todo,
        chosen,
        experiment.command_line(),
        max_parallel=asked.max_parallel,
        force=asked.force,
    )
    others = [outcome for outcome in sent.busy if not outcome.ok]
    done += len(sent.busy) - len(others)  # since they were planned
    for outcome in others:
        plain(console, f"{outcome.work.id}: {outcome.status.message}")
    found = sent.submission
    if found is None:
        console.print(f"nothing to send: {done} cells are done, {len(others)} queued or running")
        return 0
    arrays = ", ".join(found.arrays)
    report = f", report in job {found.report}" if found.report else ""
    plain(
        console,
        f"{_many(found.jobs, 'cell')} sent in {_many(found.arrays, 'array')} ({arrays}){report}; "
        f"{done} done before, {len(others)} queued or running; results in {results.path}\n"
        f"  python -m bench status {results.path} --watch",
    )
    _warn_of_the_hopeless(console, found.jobs)
    if not asked.wait:
        return 0
    return 0 if status.wait(results, found.cells, lambda text: _tell(console, text), ASK_SECONDS) else 1


def _many(things: Sized, name: str) -> str:
    return f"{len(things)} {name}" + ("" if len(things) == 1 else "s")


def _tell(console: Console, text: str) -> None:
    note(console, text)


def _warn_of_the_hopeless(console: Console, jobs: dict[str, str]) -> None:
    """SLURM takes jobs that can never start, and says so only to who asks."""
    time.sleep(GLANCE_SECONDS)
    reasons = {job.reason for job in scheduler.ask(jobs.values()).values() if job.waits}
    for reason in sorted(reasons):
        if reason.startswith(NEVER_STARTS) or "Invalid" in reason:
            plain(
                console,
                f"SLURM has the jobs, and says that they cannot start: {reason}. Cancel them and change "
                "the profile.",
                "yellow",
            )
