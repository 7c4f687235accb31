"""All dimensions of a directory of videos, each in its own process: `python -m bench vbench score`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.base.errors import BenchError
from bench.measure.vbench import dimension_run
from bench.measure.vbench.dimension_status import DimensionStatus, status_of, write_status
from bench.measure.vbench.dimensions import Dimension
from bench.measure.vbench.score_request import ScoreRequest

STYLES = {"done": "green", "missing": "yellow", "failed": "red"}


def requests(
    dimensions: Iterable[Dimension], videos: Path, out: Path | None, **options: Any
) -> list[ScoreRequest]:
    """A request for each dimension. out: None for the directory that the videos' directory is in.

    options: further fields of `ScoreRequest`. Raises BenchError for what is wrong with them.
    """
    if not videos.is_dir():
        raise BenchError(f"{videos}: no such directory. It should hold videos, such as 'a cat-0.mp4'")
    out = out or videos.absolute().parent
    found = [ScoreRequest(dimension=d.name, videos=videos, out=out, **options) for d in dimensions]
    if any(request.prompts_file is not None and not request.custom for request in found):
        raise BenchError("--prompts-file goes with --custom; VBench's own videos are named by their prompts")
    for request in found:
        request.prompts()
    return found


def score(console: Console, asked: Sequence[ScoreRequest], *, fetch: bool, jobs: int, force: bool) -> int:
    """Score what has no score yet, `jobs` dimensions at a time, and say how every dimension stands.

    fetch: download weights that are not here. Exit code 0 if all have a score. Raises BenchError for what is
    wrong with the requests themselves.
    """
    python = asked[0].python
    if python is not None and shutil.which(python) is None:
        raise BenchError(f"--python {python}: no program is there. Nothing was scored or removed")
    done = [request for request in asked if request.finished() and not force]
    todo = [request for request in asked if request not in done]
    found = list[DimensionStatus]()
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_run, request, fetch): request for request in todo}
        for ended in as_completed(running):
            status = ended.result()
            found.append(status)
            running[ended].settle(status)
            show(console, running[ended], status)
    for request in done:
        show_finished(console, request)
    show_ways(console, found)
    count = len(done) + sum(status.state == "done" for status in found)
    console.print(f"{count} of {len(asked)} dimensions have a score: {asked[0].scores}", highlight=False)
    return 0 if count == len(asked) else 1


def _run(request: ScoreRequest, fetch: bool) -> DimensionStatus:
    """Score a dimension; whatever it raises fails it and no other."""
    try:
        return dimension_run.run(request, fetch)
    except Exception as error:
        message = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        return DimensionStatus(state="failed", message=message)


def show(console: Console, request: ScoreRequest, status: DimensionStatus, remark: str = "") -> None:
    """One dimension's line, and under it what there is to say."""
    line = Text(f"{request.described.title:<24}")
    value = "" if status.score is None else f"{100 * status.score:6.2f} %  "
    line.append(value or f"{status.state:<10}", STYLES[status.state])
    took = remark or (f"{status.seconds:.0f} s" if status.seconds else "")
    line.append("  ".join(part for part in (status.partial, took) if part), "dim")
    console.print(line, soft_wrap=True)
    if status.message:
        text = status.message.replace("\n", "\n  ")
        console.print(Text(f"  {text}", "dim"), soft_wrap=True)


def show_finished(console: Console, request: ScoreRequest, keep: bool = True) -> None:
    """The line of a dimension that has its score already. Why that is not official may have come to be known
    since; keep: put it on record."""
    before = status_of(request.scores, request.dimension)
    assert before is not None
    status = before.model_copy(update={"partial": request.partial()})
    if keep and status != before:
        write_status(request.scores, request.dimension, status)
    show(console, request, status, "already scored")


def show_ways(console: Console, found: Iterable[DimensionStatus]) -> None:
    """How to get the weights that these lack."""
    ways = dict.fromkeys(way for status in found for way in status.ways)
    if ways:
        console.print("Weights that are missing: --fetch downloads them, or by hand:")
        for way in ways:
            console.print(Text(f"  {way}", "dim"), soft_wrap=True)
