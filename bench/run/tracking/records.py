"""What a cell has to tell trackers, step by step, read from its files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.base.files import Record, read_rows
from bench.run.checkpoints import Checkpoints
from bench.run.evaluate import summary
from bench.run.store import CellDir, WorkState

TRAIN, HELD_OUT, SAMPLES = "train", "eval", "samples"


@dataclass(frozen=True)
class Sample:
    """The held-out picture or video that a file shows (`.png`, of videos `.gif`), and its prompt."""

    name: str
    file: Path
    prompt: str


@dataclass
class StepRecord:
    """Everything of one step: numbers by their names in the tracker, and held-out samples.

    seconds: of training until then, None where nothing is trained.
    """

    step: int
    seconds: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)


def settled(cell: CellDir) -> int:
    """The last step whose lines no resume takes back and adds nothing to; -1 if there is none yet.

    A cell that is not done goes on at its newest checkpoint: later lines are taken back then, and the
    evaluation at the checkpoint's own step may still have to be made.
    """
    status = cell.status()
    if status.state is WorkState.DONE:
        return status.step
    return max(Checkpoints(cell.path / "checkpoint").newest() - 1, -1)


def records(cell: CellDir, after: int, last: int) -> list[StepRecord]:
    """The steps after one, up to another, in order. Raises Damaged for a line that cannot be read."""
    found: dict[int, StepRecord] = {}
    for row in read_rows(cell.metrics):
        if after < row["step"] <= last:
            numbers = {f"{TRAIN}/{key}": value for key, value in _numbers(row) if key != "step"}
            found[row["step"]] = StepRecord(row["step"], row["seconds"], numbers)
    evaluations: dict[int, list[Record]] = {}
    for row in read_rows(cell.evaluations):
        if after < row["step"] <= last:
            evaluations.setdefault(row["step"], []).append(row)
    for step, rows in evaluations.items():
        record = found.setdefault(step, StepRecord(step))
        for reward, (mean, error) in summary(rows).items():
            record.numbers[f"{HELD_OUT}/{reward}"] = mean
            if math.isfinite(error):  # of one prompt there is none
                record.numbers[f"{HELD_OUT}/{reward}_se"] = error
        record.samples += _samples(cell, step, rows)
    return [found[step] for step in sorted(found)]


def digest(sent: Iterable[StepRecord], before: str = "") -> str:
    """A name for all numbers that were sent, after those that `before` is the name of."""
    for record in sent:
        text = json.dumps([before, record.step, record.numbers], sort_keys=True)
        before = hashlib.sha256(text.encode()).hexdigest()[:16]
    return before


def _numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of nested settings or results, by their keys with slashes between."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{key}", value


def _samples(cell: CellDir, step: int, rows: Iterable[Record]) -> Iterator[Sample]:
    """samples/<step>/<n>.png shows the n-th prompt's first picture; of a video there is a GIF beside it."""
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    for still in sorted((cell.path / "samples" / f"{step:06d}").glob("*.png")):
        clip = still.with_suffix(".gif")
        number = int(still.stem)
        if number < len(prompts):
            yield Sample(f"{SAMPLES}/{still.stem}", clip if clip.exists() else still, str(prompts[number]))
