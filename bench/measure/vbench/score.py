"""All dimensions of a directory of videos, each in its own process: `python -m bench vbench score`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from bench.base.errors import BenchError
from bench.base.files import write_atomically
from bench.measure.vbench.dimension_run import SUFFIXES, Cell, Status
from bench.measure.vbench.dimensions import Dimension

STYLES = {"done": "green", "missing": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Asked:
    """The command's options. out: None for the directory that the videos' directory is in."""

    videos: Path
    dimensions: Sequence[Dimension]
    out: Path | None = None
    custom: bool = False
    prompts_file: Path | None = None
    device: str = "auto"
    python: Path | None = None
    static_filter: bool = True
    fetch: bool = False
    jobs: int = 1
    timeout: float | None = None
    force: bool = False


def score(console: Console, asked: Asked) -> int:
    """Score what has no score yet and say how every dimension stands. Exit code 0 if all have one.

    Raises BenchError for what is wrong with the request itself.
    """
    cells, scores = cells_of(asked), scores_of(asked)
    if asked.python is not None and shutil.which(asked.python) is None:
        raise BenchError(f"--python {asked.python}: no program is there. Nothing was scored or removed")
    known, found = read_status(scores), dict[str, Status]()
    todo = [cell for cell in cells if asked.force or not finished(cell, known)]
    with ThreadPoolExecutor(asked.jobs) as pool:
        running = {pool.submit(cell.run, asked.fetch): cell for cell in todo}
        for ended in as_completed(running):
            cell = running[ended]
            status = found[cell.dimension.name] = _ended(ended)
            settle(cell, status, known)
            show(console, cell.dimension, status)
    for cell in cells:
        if cell not in todo:
            found[cell.dimension.name] = show_finished(console, cell, known)
    show_ways(console, [found[cell.dimension.name] for cell in todo])
    done = [cell for cell in cells if found[cell.dimension.name].state == "done"]
    console.print(f"{len(done)} of {len(cells)} dimensions have a score: {scores}", highlight=False)
    return 0 if len(done) == len(cells) else 1


def _ended(ended: Future[Status]) -> Status:
    """How a dimension ended; whatever it raised fails it and no other."""
    try:
        return ended.result()
    except Exception as error:
        message = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        return Status(state="failed", message=message)


def settle(cell: Cell, status: Status, known: Mapping[str, Status]) -> None:
    """Put on record how it ended. A score of these very videos outlives that something is missing now; one of
    other videos does not."""
    if status.state == "missing" and finished(cell, known):
        return
    if status.state != "done":
        cell.result.unlink(missing_ok=True)
    write_status(cell.scores, cell.dimension.name, status)


def scores_of(asked: Asked) -> Path:
    """The directory that the scores go to."""
    return (asked.out or asked.videos.absolute().parent) / "scores"


def cells_of(asked: Asked) -> list[Cell]:
    """The dimensions as work. Raises BenchError for what is wrong with the request."""
    if not asked.videos.is_dir():
        raise BenchError(f"{asked.videos}: no such directory. It should hold videos, such as 'a cat-0.mp4'")
    if asked.prompts_file is not None and not asked.custom:
        raise BenchError("--prompts-file goes with --custom; VBench's own videos are named by their prompts")
    prompts = {} if asked.prompts_file is None else _prompts(asked.prompts_file, asked.videos)
    return [
        Cell(
            dimension=dimension,
            videos=asked.videos,
            scores=scores_of(asked),
            custom=asked.custom,
            prompts=prompts,
            device=asked.device,
            python=asked.python,
            static_filter=asked.static_filter,
            timeout=asked.timeout,
        )
        for dimension in asked.dimensions
    ]


def finished(cell: Cell, known: Mapping[str, Status]) -> bool:
    """Whether there is a score of these very videos."""
    name = cell.dimension.name
    if name not in known or known[name].state != "done" or not cell.result.is_file():
        return False
    return known[name].fingerprint == cell.fingerprint(cell.given()[0])


def show(console: Console, dimension: Dimension, status: Status, remark: str = "") -> None:
    """One dimension's line, and under it what there is to say."""
    line = Text(f"{dimension.title:<24}")
    value = "" if status.score is None else f"{100 * status.score:6.2f} %  "
    line.append(value or f"{status.state:<10}", STYLES[status.state])
    took = remark or (f"{status.seconds:.0f} s" if status.seconds else "")
    line.append("  ".join(part for part in (status.partial, took) if part), "dim")
    console.print(line, soft_wrap=True)
    if status.message:
        text = status.message.replace("\n", "\n  ")
        console.print(Text(f"  {text}", "dim"), soft_wrap=True)


def show_finished(console: Console, cell: Cell, known: Mapping[str, Status], keep: bool = True) -> Status:
    """The line of a dimension that has its score already. Why that is not official may have come to be known
    since; keep: put it on record. Returns how it stands."""
    before, partial = known[cell.dimension.name], cell.partial()
    status = before.model_copy(update={"partial": partial})
    if keep and status != before:
        write_status(cell.scores, cell.dimension.name, status)
    show(console, cell.dimension, status, "already scored")
    return status


def show_ways(console: Console, found: Iterable[Status]) -> None:
    """How to get the weights that these lack."""
    ways = dict.fromkeys(way for status in found for way in status.ways)
    if ways:
        console.print("Weights that are missing: --fetch downloads them, or by hand:")
        for way in ways:
            console.print(Text(f"  {way}", "dim"), soft_wrap=True)


def forget(cell: Cell) -> None:
    """Drop a dimension's score."""
    (cell.scores / "status" / f"{cell.dimension.name}.json").unlink(missing_ok=True)
    cell.result.unlink(missing_ok=True)


def read_status(scores: Path) -> dict[str, Status]:
    """How the dimensions stand, by name; nothing if none was ever asked for. Raises BenchError if damaged."""
    found: dict[str, Status] = {}
    for path in sorted((scores / "status").glob("*.json")):
        try:
            found[path.stem] = Status.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise BenchError(f"{path}: damaged, or of another version. Remove it to score again") from error
    return found


def write_status(scores: Path, name: str, status: Status) -> None:
    """Record how a dimension stands, in a file of its own: several processes may score at once."""
    write_atomically(scores / "status" / f"{name}.json", status.model_dump_json(indent=2) + "\n")


def _prompts(path: Path, videos: Path) -> dict[str, str]:
    """File name → prompt, from a JSON object. Raises BenchError if one of the videos is not in it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchError(f"--prompts-file {path}: cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise BenchError(f'--prompts-file {path}: expected an object such as {{"a.mp4": "a cat"}}')
    lacking = sorted(p.name for p in videos.iterdir() if p.suffix.lower() in SUFFIXES and p.name not in found)
    if lacking:
        raise BenchError(f"--prompts-file {path}: no prompt for {', '.join(lacking[:3])}")
    return found
