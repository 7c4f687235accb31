"""`bench.gradients`, and what it and the command have in common."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.api import words
from bench.api.words import Names, Settings
from bench.base import units
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.experiment.request import Options, build
from bench.run.experiment import Ended

if TYPE_CHECKING:
    import pandas as pd

OUT = Path("results/gradients")
BUDGET = "5m"  # where nothing else says when to stop


def gradients(
    methods: Names = "all",
    model: str | None = None,
    reward: str | None = None,
    prompts: str | None = None,
    at: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    seed: int = 0,
    budget: str | None = None,
    draws: int | None = None,
    precision: float | None = None,
    settings: Settings | None = None,
    out: str | os.PathLike[str] = OUT,
    jobs: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    force: bool = False,
    *,
    check: bool = True,
) -> pd.DataFrame:
    """Measure bias, variance and cost of each method's gradient, as `bench gradients`. Imports torch.

    methods: names, in a list or a text with commas. at: θ, "init" or directories of trained cells or LoRAs.
    budget: time of drawing for all together ("5m"); draws: batch gradients of each; precision: the bias to be
    known to ±; without any of them a budget of 5 minutes. Draws are added to earlier ones below `out`, unless
    `force`. settings, jobs, threads, device: as in `bench.run`.

    Returns a row for every profile below `out` (docs/python.md). Raises BenchError for a mistake, before
    anything runs; CellsFailed after all have ended if one of them is not done, unless `check` is false.
    """
    said = words.call(gradients, locals())
    from bench.api import results

    asked = Options(
        methods=words.names(methods), model=model, reward=reward, prompts=prompts, seeds=str(seed),
        settings=words.settings(settings), threads=threads, out=Path(out),
    )  # fmt: skip
    places = [at] if isinstance(at, str | os.PathLike) else at or ()
    with words.asked_by(said, device):
        ended = measure(
            words.console(), asked, [str(place) for place in places], budget, draws, precision, jobs, force,
            Console(quiet=True),
        )  # fmt: skip
    return results.checked(results.load_if_there(Path(out)), ended, check).gradients


def measure(
    console: Console,
    asked: Options,
    places: Sequence[str],
    budget: str | None,
    draws: int | None,
    precision: float | None,
    jobs: int | None,
    force: bool,
    tables: Console,
) -> Ended:
    """Draw gradients, then write everything that is derived: gradients*.csv and report/. Raises BenchError.

    console: where progress goes. tables: where the tables go.
    """
    from bench.measure.gradients import plan, run
    from bench.report.report import write_report

    if budget is None and draws is None and precision is None:
        budget = BUDGET
    seconds = None if budget is None else units.duration(budget, "--budget")
    planned = plan.plan(build(asked), places or [plan.INIT], plan.Limits(seconds, draws, precision), jobs)
    ended = run.run(console, planned, force)
    try:
        write_report(planned.out, tables)
    except BenchError as error:  # nothing was measured; the reason is told after this
        plain(console, str(error), "red")
    return ended
