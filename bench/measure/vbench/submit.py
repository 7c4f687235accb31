"""`vbench generate --slurm` and `vbench score --slurm`: what is missing goes out as cells (see `parts`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError
from bench.measure.vbench import jobs, order
from bench.measure.vbench import score as scoring
from bench.measure.vbench.dimension_run import Cell, Status
from bench.measure.vbench.dimensions import DIMENSIONS
from bench.measure.vbench.jobs import Part, ScorePart, VideosPart
from bench.measure.vbench.live import live
from bench.measure.vbench.record import record
from bench.run.slurm import cluster, sweep
from bench.run.slurm import submit as sending
from bench.run.slurm.cluster import Profile
from bench.run.store import ResultsDir
from bench.run.work import Work

CELLS = 8  # that share the videos, unless something limits how many run at once
P = TypeVar("P", bound=Part)


def generate(console: Console, asked: order.Asked, how: sweep.Asked, cells: int | None) -> int:
    """Send cells for the videos that are not there. Returns the exit code. Raises BenchError."""
    if asked.shard is not None:
        raise BenchError("--slurm shares the videos out itself, among --cells: leave --shard")
    chosen = _profile(how)
    found = order.order(asked)
    found.show(console)
    results = jobs.jobs_of(found.out)
    count = min(cells or how.max_parallel or chosen.max_parallel or CELLS, len(found.wanted))
    division = [_threads(part, chosen) for part in _division(found, count)]
    left = [part for part in division if how.force or not part.finished()]
    if how.dry_run:
        return _dry(console, jobs.work_of(left, results), chosen, how)
    sent = live(results)
    _check_force(how, list(sent), results)
    record(found)
    free = left if how.force else _not_others(left, sent)
    if len(free) < len(left):
        plain(
            console,
            f"{len(left) - len(free)} of {len(division)} cells not sent: other cells, which are queued or "
            f"running, make their videos\n  python -m bench status {results.path} --watch",
        )
    if left and not free:
        return 0
    return _send(console, results, jobs.work_of(free, results), chosen, how, len(division) - len(left))


def score(console: Console, asked: scoring.Asked, how: sweep.Asked) -> int:
    """Send a cell for every dimension that has no score and lacks nothing. Returns the exit code, 1 if one
    lacks something. Raises BenchError."""
    chosen = _profile(how)
    cells, scores = scoring.cells_of(asked), scoring.scores_of(asked)
    results, known = jobs.jobs_of(scores), scoring.read_status(scores)
    sent = {} if how.dry_run else live(results)
    _check_force(how, [c.dimension.name for c in cells if c.dimension.name in sent], results)
    done = [cell for cell in cells if not how.force and scoring.finished(cell, known)]
    lacking = dict[str, Status]()
    for cell in cells:
        name = cell.dimension.name
        if cell in done:
            scoring.show_finished(console, cell, known, keep=not how.dry_run)
        elif name not in sent and (status := _lacks(cell, chosen, asked.fetch and not how.dry_run)):
            lacking[name] = status
            scoring.show(console, cell.dimension, status)
    scoring.show_ways(console, lacking.values())
    ready = [cell for cell in cells if cell not in done and cell.dimension.name not in lacking]
    todo = jobs.work_of([_threads(_score_part(cell, asked), chosen) for cell in ready], results)
    if how.dry_run:
        return max(_dry(console, todo, chosen, how), int(bool(lacking)))
    for name, status in lacking.items():
        scoring.write_status(scores, name, status)
    for cell in ready if how.force else ():
        scoring.forget(cell)
    code = _send(console, results, todo, chosen, how, len(done))
    if how.wait:
        _show_scores(console, scores, ready)
    return max(code, int(bool(lacking)))


def _profile(how: sweep.Asked) -> Profile:
    """The profile, without the report of a sweep."""
    if not how.dry_run:
        sending.require_slurm()
    assert how.profile is not None  # --slurm names it
    return cluster.load(how.profile, how.changes).model_copy(update={"report": False})


def _division(found: order.Order, count: int) -> list[VideosPart]:
    """Everything that was asked for in so many parts."""
    asked = found.asked
    chosen = {dimension.name for dimension in asked.dimensions}
    return [
        VideosPart(
            work=jobs.GENERATE,
            videos=str(found.out.absolute()),
            model=asked.model,
            name=found.name,
            lora=None if asked.lora is None else str(asked.lora.absolute()),
            settings=tuple(asked.settings),
            dimensions=tuple(name for name in DIMENSIONS if name in chosen),
            subset=asked.subset,
            per_prompt=asked.per_prompt,
            seed=asked.seed,
            batch=asked.batch,
            fps=asked.fps,
            part=part,
            parts=count,
        )
        for part in range(1, count + 1)
    ]


def _score_part(cell: Cell, asked: scoring.Asked) -> ScorePart:
    return ScorePart(
        work=jobs.SCORE,
        videos=str(asked.videos.absolute()),
        out=str(scoring.scores_of(asked).absolute().parent),
        dimension=cell.dimension.name,
        custom=asked.custom,
        prompts_file=_absolute(asked.prompts_file),
        device=asked.device,
        python=_absolute(asked.python),
        static_filter=asked.static_filter,
        timeout=asked.timeout,
    )


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _threads(part: P, chosen: Profile) -> P:
    """The part with as many threads as the profile gives it cores."""
    return part.model_copy(update={"threads": part.resources(chosen).cpus or 1})


def _check_force(how: sweep.Asked, sent: Sequence[str], results: ResultsDir) -> None:
    if how.force and sent:
        names = ", ".join(sent) if len(sent) <= 3 else f"{len(sent)} cells"
        raise BenchError(
            f"--force: {names}: queued or running. Wait for the end, or: "
            f"python -m bench cancel {results.path}"
        )


def _not_others(left: Sequence[VideosPart], sent: dict[str, Part]) -> list[VideosPart]:
    """Those with a video that no live cell of another division is going to make."""
    own = {part.id for part in left}
    others = [part for name, part in sent.items() if name not in own and isinstance(part, VideosPart)]
    taken = {video for part in others for video in part.listed()}
    return [part for part in left if part.id in sent or not taken.issuperset(part.missing())]


def _lacks(cell: Cell, chosen: Profile, fetch: bool) -> Status | None:
    """What a dimension lacks, as its job would find it. What a profile's own environment has, only the job
    can see; videos it sees from here."""
    status = cell.missing(fetch)
    elsewhere = chosen.python is not None or chosen.setup
    return None if status is not None and elsewhere and status.videos else status


def _dry(console: Console, todo: Sequence[Work], chosen: Profile, how: sweep.Asked) -> int:
    if not todo:
        console.print("nothing would be sent")
        return 0
    return sweep.dry(console, todo, chosen, how)


def _send(
    console: Console, results: ResultsDir, todo: Sequence[Work], chosen: Profile, how: sweep.Asked, done: int
) -> int:
    if not todo:
        console.print(f"{done} cells are done: nothing to send", highlight=False)
        return 0
    return sweep.send(console, results, todo, chosen, how, done)


def _show_scores(console: Console, scores: Path, cells: Sequence[Cell]) -> None:
    """What the jobs have found."""
    known = scoring.read_status(scores)
    for cell in cells:
        if cell.dimension.name in known:
            scoring.show(console, cell.dimension, known[cell.dimension.name])
