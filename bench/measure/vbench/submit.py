"""`vbench generate --slurm` and `vbench score --slurm`: what is missing goes out as jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError
from bench.measure.vbench import dimension_run
from bench.measure.vbench import score as scoring
from bench.measure.vbench.dimension_status import DimensionStatus, read_status
from bench.measure.vbench.jobs import ScoreJob, VbenchJob, VideosJob, jobs_of
from bench.measure.vbench.score_request import ScoreRequest
from bench.measure.vbench.videos_request import VideosRequest
from bench.run import claims
from bench.run.slurm import cluster, sweep
from bench.run.slurm import submit as sending
from bench.run.slurm.cluster import Profile
from bench.run.slurm.settle import settle
from bench.run.store import ResultsDir

CELLS = 8  # that share the videos, unless something limits how many run at once


def generate(console: Console, request: VideosRequest, how: sweep.SweepRequest, cells: int | None) -> int:
    """Send jobs for the videos that are not there. Returns the exit code. Raises BenchError."""
    from bench.measure.vbench.record import record
    from bench.measure.vbench.resolve import resolve

    if request.parts > 1:
        raise BenchError("--slurm shares the videos out itself, among --cells: leave --shard")
    profile = _profile(how)
    found = resolve(request)
    found.show(console, anew=how.force)
    results = jobs_of(request.videos)
    count = min(cells or how.max_parallel or profile.max_parallel or CELLS, len(request.selection()))
    parts = [request.model_copy(update={"part": n, "parts": count}) for n in range(1, count + 1)]
    jobs = [VideosJob.of(part, results, profile) for part in parts]
    left = [job for job in jobs if how.force or not job.finished()]
    if how.dry_run:
        return _dry(console, left, profile, how)
    _check_force(how, sorted(sent(results)), results)
    record(found, how.force)
    return _send(console, results, left, profile, how, len(jobs) - len(left))


def score(console: Console, requests: Sequence[ScoreRequest], how: sweep.SweepRequest, fetch: bool) -> int:
    """Send a job for every dimension that has no score and lacks nothing. fetch: download weights first.

    Returns the exit code, 1 if a dimension lacks something. Raises BenchError.
    """
    profile, scores = _profile(how), requests[0].scores
    results = jobs_of(scores)
    busy = set[str]() if how.dry_run else sent(results)
    _check_force(how, [one.dimension for one in requests if one.dimension in busy], results)
    done = [request for request in requests if request.finished() and not how.force]
    for request in done:
        scoring.show_finished(console, request, keep=not how.dry_run)
    ready, lacking = list[ScoreRequest](), list[DimensionStatus]()
    for request in (one for one in requests if one not in done):
        status = (
            _lacking(request, profile, fetch and not how.dry_run) if request.dimension not in busy else None
        )
        if status is None:
            ready.append(request)
            continue
        lacking.append(status)
        scoring.show(console, request, status)
        if not how.dry_run:
            scoring.write_status(scores, request.dimension, status)
    scoring.show_ways(console, lacking)
    jobs = [ScoreJob.of(request, results, profile) for request in ready]
    if how.dry_run:
        return max(_dry(console, jobs, profile, how), int(bool(lacking)))
    for request in ready if how.force else ():
        request.forget()
    code = _send(console, results, jobs, profile, how, len(done))
    known = read_status(scores) if how.wait else {}
    for request in ready:
        if request.dimension in known:
            scoring.show(console, request, known[request.dimension])
    return max(code, int(bool(lacking)))


def not_sent(console: Console, requests: Sequence[ScoreRequest]) -> list[ScoreRequest]:
    """What is left to score here: not the dimensions that SLURM has, of which it says so."""
    results = jobs_of(requests[0].scores)
    busy = sent(results)
    for request in requests:
        if request.dimension in busy:
            line = f"{request.described.title:<24}left to SLURM: python -m bench status {results.path}"
            plain(console, line)
    return [request for request in requests if request.dimension not in busy]


def sent(results: ResultsDir) -> set[str]:
    """The jobs that are queued or running. Those whose SLURM job is gone are given free."""
    cells = results.cells()
    queue = settle(results, cells)
    held = {cell: claims.read(cell) for cell in cells}
    return {cell.id for cell, claim in held.items() if claim is not None and queue.alive(cell, *claim)}


def _profile(how: sweep.SweepRequest) -> Profile:
    if not how.dry_run:
        sending.require_slurm()
    assert how.profile is not None  # --slurm names it
    return cluster.load(how.profile, how.changes).model_copy(update={"report": False})


def _check_force(how: sweep.SweepRequest, busy: Collection[str], results: ResultsDir) -> None:
    if how.force and busy:
        names = ", ".join(busy) if len(busy) <= 3 else f"{len(busy)} cells"
        raise BenchError(
            f"--force: {names}: queued or running. Wait for the end, or: "
            f"python -m bench cancel {results.path}"
        )


def _lacking(request: ScoreRequest, profile: Profile, fetch: bool) -> DimensionStatus | None:
    """What a dimension lacks, as its job would find it. What a profile's own environment has, only the job
    can see; videos it sees from here."""
    status = dimension_run.lacking(request, fetch)
    elsewhere = profile.python is not None or profile.setup
    return None if status is not None and elsewhere and status.videos else status


def _dry(console: Console, jobs: Sequence[VbenchJob], profile: Profile, how: sweep.SweepRequest) -> int:
    if not jobs:
        console.print("nothing would be sent")
        return 0
    return sweep.dry(console, jobs, profile, how)


def _send(
    console: Console,
    results: ResultsDir,
    jobs: Sequence[VbenchJob],
    profile: Profile,
    how: sweep.SweepRequest,
    done: int,
) -> int:
    if not jobs:
        plain(console, f"{done} cells are done: nothing to send")
        return 0
    return sweep.send(console, results, jobs, profile, how, done)
