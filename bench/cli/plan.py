"""The command that plans before a GPU is booked. Parse, call, print; `bench.cli.main` registers it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()


def plan(
    budget: Annotated[str, typer.Option(help="memory, such as 40GB (10^9 bytes) or 24GiB (2^30)")],
    model: Annotated[str, typer.Option(help="a name, path:DIRECTORY or hub:ORG/NAME")] = "tiny",
    method: Annotated[str, typer.Option(help="one with a half-order block of h steps")] = "rlr",
    batch: Annotated[int, typer.Option(min=1, help="samples of an optimizer step")] = 4,
    deadline: Annotated[
        str | None, typer.Option(help="time such as 24h: how many optimizer steps fit")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, such as model.steps=20")
    ] = None,
    gradients: Annotated[Path, typer.Option(help="results of `bench gradients`, for variances")] = Path(
        "results/gradients"
    ),
    profiles: Annotated[Path, typer.Option(help="results of `bench profile`, for seconds")] = Path(
        "results/profile"
    ),
) -> None:
    """Say which h, batch and checkpointing fit a memory budget, and why. Needs no GPU and no weights."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # loading takes a moment
    from bench.base import units
    from bench.measure.cost import plan_report, planner

    limit = units.size(budget, "--budget")
    time = None if deadline is None else units.duration(deadline, "--deadline")
    config = planner.cell(method, model, batch, settings or ())
    plan_report.run(console, config, limit, time, gradients, profiles)
