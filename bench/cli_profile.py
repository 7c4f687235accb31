"""The commands about cost: profile. Parse, call, print; `bench.cli` registers them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()


def profile(
    methods: Annotated[str, typer.Option(help="names with commas between them, or `all`")] = "all",
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
        typer.Option(help="staged, or joint: the memory of direct implementations", show_default="staged"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="SECTION.KEY=VALUE, such as model.offload=true; may be repeated"),
    ] = None,
    out: Annotated[Path, typer.Option(help="results directory")] = Path("results/profile"),
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads", show_default="the model's")
    ] = None,
) -> None:
    """Show what one optimizer step of each method takes: memory by component, evaluations, operations."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    from bench import request
    from bench.profile import plan, run

    options = request.Options(methods, model, reward, None, "0", None, threads, None, settings or (), out)
    sys.exit(run.run(console, plan.plan(request.build(options), measure, batch, graphs)))
