"""The commands of a sweep by SLURM: submit, status, cancel, retry, logs."""

import sys
from typing import Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.errors import BenchError
from bench.cli import completing, options
from bench.cli.as_json import tell

console = Console()


def submit(
    profile: options.Profile,
    config: options.Config = None,
    methods: options.Methods = None,
    model: options.Models = None,
    reward: options.Rewards = None,
    prompts: options.Prompts = None,
    seeds: options.Seeds = None,
    steps: options.Steps = None,
    budget: options.Budget = None,
    settings: options.Settings = None,
    weights: options.Weights = None,
    threads: options.Threads = None,
    device: options.Device = None,
    track: options.Track = None,
    dcot: options.Dcot = None,
    out: options.NamedOut = None,
    changes: options.Changes = None,
    max_parallel: options.MaxParallel = None,
    wait: options.Wait = False,
    dry_run: options.DryRun = False,
    force: options.Again = False,
) -> None:
    """Send an experiment's cells to SLURM: those that are neither done, nor queued, nor running."""
    from bench.experiment.request import Options, build
    from bench.run.slurm import sweep

    asked = Options(
        methods=methods, model=model, reward=reward, prompts=prompts, seeds=seeds, steps=steps, budget=budget,
        config=config, settings=settings or (), weights=weights, dcot=dcot, threads=threads, out=out,
    )  # fmt: skip
    how = sweep.SweepRequest(profile, tuple(changes or ()), max_parallel, wait, dry_run, force)
    sys.exit(sweep.submit(console, build(asked), how))


def status(
    directory: options.Results,
    watch: Annotated[bool, Option("--watch", help="look again until nothing runs or waits")] = False,
    seconds: Annotated[float, Option(min=0.5, metavar="SECONDS", help="between two looks")] = 5.0,
    as_json: options.AsJson = False,
) -> None:
    """Show where every cell stands: state, step, reward, time left, node, job."""
    from bench.run.slurm import status as standing
    from bench.run.store import ResultsDir

    results = ResultsDir(directory)
    if watch:
        standing.watch(console, results, seconds)
    elif as_json:
        tell(standing.standings(results))
    else:
        standing.show(console, results, standing.standings(results))


def cancel(
    directory: options.Results,
    cells: Annotated[
        list[str] | None, Argument(metavar="[CELL]...", help="their names", show_default="all")
    ] = None,
) -> None:
    """Take cells out of the queue; running ones write a checkpoint and stop."""
    from bench.run.slurm import control
    from bench.run.store import ResultsDir

    sys.exit(control.cancel(console, ResultsDir(directory), cells or ()))


def retry(
    directory: options.Results,
    failed: options.Failed = False,
    timeout: Annotated[bool, Option("--timeout", help="cells that ran out of time")] = False,
    everything: Annotated[
        bool, Option("--all", help="all that are not done and that nobody has, cancelled ones too")
    ] = False,
    profile: Annotated[
        str | None,
        Option(
            metavar="PROFILE",
            help=options.PROFILE,
            show_default="the last submission's",
            autocompletion=completing.profile,
        ),
    ] = None,
    changes: options.Changes = None,
    max_parallel: options.MaxParallel = None,
    wait: options.Wait = False,
    device: options.Device = None,
    track: options.Track = None,
    dry_run: options.DryRun = False,
) -> None:
    """Send cells that ended badly once more; they continue from their last checkpoints.

    Without --timeout or --all: failed and killed cells.
    """
    from bench.run.slurm import control, sweep
    from bench.run.store import ResultsDir

    if failed + timeout + everything > 1:
        raise BenchError("say one of --failed, --timeout and --all")
    which = control.ALL if everything else control.TIMEOUT if timeout else control.FAILED
    asked = sweep.SweepRequest(profile, tuple(changes or ()), max_parallel, wait, dry_run, False)
    sys.exit(sweep.retry(console, ResultsDir(directory), which, asked))


def logs(
    directory: options.Results,
    cell: Annotated[str, Argument(metavar="CELL", help="its name, or a part of it that only it has")],
    follow: Annotated[bool, Option("--follow", "-f", help="print what is added until it ends")] = False,
) -> None:
    """Print what a cell's process, its job and SLURM said."""
    from bench.run.slurm import control
    from bench.run.store import ResultsDir

    control.logs(console, ResultsDir(directory), cell, follow)
