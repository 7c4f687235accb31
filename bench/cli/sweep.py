"""The commands of a sweep: submit, status, cancel, retry, logs. `bench.cli.main` registers them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.base.errors import BenchError
from bench.run.store import ResultsDir

console = Console()
Directory = Annotated[Path, typer.Argument(help="a results directory")]
With = Annotated[
    list[str] | None, typer.Option("--with", help="KEY=VALUE over the profile, such as mem=80GB; repeatable")
]


def submit(
    profile: Annotated[str, typer.Option(help="a YAML file, or the name of one in slurm/profiles")],
    config: Annotated[
        str | None,
        typer.Option(help="an experiment: a YAML file or a shipped name", show_default="the demo"),
    ] = None,
    methods: Annotated[str | None, typer.Option(help="as for run")] = None,
    model: Annotated[str | None, typer.Option(help="as for run")] = None,
    reward: Annotated[str | None, typer.Option(help="as for run")] = None,
    prompts: Annotated[str | None, typer.Option(help="as for run")] = None,
    seeds: Annotated[str | None, typer.Option(help="as for run")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="as for run")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="as for run")] = None,
    weights: Annotated[str | None, typer.Option(help="as for run")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="as for run")] = None,
    dcot: Annotated[bool | None, typer.Option("--dcot/--no-dcot", help="as for run")] = None,
    out: Annotated[Path | None, typer.Option(help="results directory", show_default="results/NAME")] = None,
    changes: With = None,
    max_parallel: Annotated[
        int | None, typer.Option(min=1, help="cells that run at once", show_default="the profile's")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="to the end; exit code 1 if a cell failed")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, show the cells and arrays, send nothing")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="start the cells again, also finished ones")] = False,
) -> None:
    """Send an experiment's cells to SLURM: those that are neither done, nor queued, nor running."""
    from bench.experiment import request
    from bench.run.slurm import sweep

    options = request.Options(
        methods, model, reward, prompts, seeds, steps, threads, config, settings or (), out, weights, dcot
    )
    asked = sweep.Asked(profile, tuple(changes or ()), max_parallel, wait, dry_run, force)
    sys.exit(sweep.submit(console, options, asked))


def status(
    directory: Directory,
    watch: Annotated[bool, typer.Option("--watch", help="look again until nothing runs or waits")] = False,
    seconds: Annotated[float, typer.Option(min=0.5, help="between two looks")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="one object for each cell")] = False,
) -> None:
    """Show where every cell stands: state, step, reward, time left, node, job."""
    from bench.run.slurm import status as standing

    results = ResultsDir(directory)
    if watch:
        standing.watch(console, results, seconds)
    elif as_json:
        print(standing.as_json(standing.standings(results)))
    else:
        standing.show(console, results, standing.standings(results))


def cancel(
    directory: Directory,
    cells: Annotated[list[str] | None, typer.Argument(help="cells", show_default="all")] = None,
) -> None:
    """Take cells out of the queue; running ones write a checkpoint and stop."""
    from bench.run.slurm import control

    sys.exit(control.cancel(console, ResultsDir(directory), cells or ()))


def retry(
    directory: Directory,
    failed: Annotated[bool, typer.Option("--failed", help="failed and killed cells (the default)")] = False,
    timeout: Annotated[bool, typer.Option("--timeout", help="cells that ran out of time")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="all that are not done and that nobody has, cancelled ones too")
    ] = False,
    profile: Annotated[
        str | None, typer.Option(help="as for submit", show_default="the last submission's")
    ] = None,
    changes: With = None,
    max_parallel: Annotated[int | None, typer.Option(min=1, help="cells that run at once")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="until all have ended")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show what would be sent")] = False,
) -> None:
    """Send cells that ended badly once more; they continue from their last checkpoints."""
    from bench.run.slurm import control, sweep

    if failed + timeout + everything > 1:
        raise BenchError("say one of --failed, --timeout and --all")
    which = control.ALL if everything else control.TIMEOUT if timeout else control.FAILED
    asked = sweep.Asked(profile, tuple(changes or ()), max_parallel, wait, dry_run, False)
    sys.exit(sweep.retry(console, ResultsDir(directory), which, asked))


def logs(
    directory: Directory,
    cell: Annotated[str, typer.Argument(help="its name, or a part of it that only it has")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="print what is added until it ends")] = False,
) -> None:
    """Print what a cell's process, its job and SLURM said."""
    from bench.run.slurm import control

    control.logs(console, ResultsDir(directory), cell, follow)
