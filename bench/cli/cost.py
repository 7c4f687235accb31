"""The commands about cost: profile. Parse, call, print; `bench.cli.main` registers them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()
CHECKED = "rlr,zo,truncated_bp"  # what a calibration is checked on, unless others are named


def profile(
    methods: Annotated[
        str | None, typer.Option(help="names with commas between them, or `all`", show_default="all")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="a name, path:DIRECTORY or hub:ORG/NAME", show_default="tiny")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="as for run", show_default="the model's")] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="samples, all at once through the network", show_default="the model's"),
    ] = None,
    measure: Annotated[
        bool | None,
        typer.Option(
            "--measure/--simulate",
            help="on this machine, or without weights on fake tensors",
            show_default="simulate, but measure the embedded model",
        ),
    ] = None,
    graphs: Annotated[
        str | None,
        typer.Option(
            help="staged, joint (the memory of direct implementations) or both: staged,joint",
            show_default="staged",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="SECTION.KEY=VALUE, such as model.offload=true; may be repeated"),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="SECTION.KEY=VALUE,VALUE…: profile with each, such as model.steps=10,25,50"),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="measure this device's throughput, to predict seconds with"),
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="predict seconds from it", show_default="OUT/calibration.json")
    ] = None,
    out: Annotated[Path, typer.Option(help="results directory")] = Path("results/profile"),
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads", show_default="the model's")
    ] = None,
) -> None:
    """Show what one optimizer step of each method takes: memory by component, evaluations, time."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from bench.experiment import request
    from bench.measure.cost import plan, run

    names = methods or (CHECKED if calibrate else "all")
    planned = [
        plan.plan(request.build(options), True if calibrate else measure, batch, kind)
        for layer in plan.varied(vary or ())
        for options in [
            request.Options(
                names,
                model,
                reward,
                seeds="0",
                threads=threads,
                settings=[*(settings or ()), *layer],
                out=out,
            )
        ]
        for kind in (graphs.split(",") if graphs else [None])
    ]
    together = plan.merged(planned)
    sys.exit(run.calibrate(console, together) if calibrate else run.run(console, together, calibration))
