"""The commands of the fair fight: tune, suite."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from typer import Option

from bench.base import units
from bench.base.columns import print_columns, texts
from bench.base.console import plain, progress
from bench.base.errors import BenchError
from bench.base.labels import flat
from bench.cli import completing, options

if TYPE_CHECKING:
    from bench.protocol.tune import Tuning

console = Console()
Trials = Annotated[int, Option(min=1, metavar="N", help="of every method in every study")]
Studies = Annotated[int, Option(min=1, metavar="N", help="each with a seed and trials of its own")]
Workload = Annotated[
    str,
    Option(metavar="NAME", help="a shipped workload, or a YAML file", autocompletion=completing.workload),
]


def tune(
    methods: options.MethodsToCompare,
    workload: Workload,
    trials: Trials = 4,
    studies: Studies = 1,
    out: options.NamedOut = None,
    jobs: options.Jobs = None,
    device: options.Device = None,
    track: options.Track = None,
    slurm: options.Slurm = None,
    dry_run: options.DryRun = False,
) -> None:
    """Tune methods with equal effort: as many quasi-random trials for each, from its own search space."""
    from bench.protocol import tune as tuning
    from bench.protocol.endings import check_failures
    from bench.run import experiment
    from bench.run.process import HowToRun

    names = units.names(methods)
    if not names:
        raise BenchError("--methods: names no method")
    found = tuning.plan(workload, names, trials, studies, out, fetch=not dry_run)
    if slurm is not None:
        from bench.run.slurm import sweep

        request = sweep.SweepRequest(slurm, (), jobs, False, dry_run, False, "--slurm")
        left = tuning.unfinished(found)
        if dry_run or left.combinations:
            code = sweep.submit(console, left, request)
            if code or dry_run:
                sys.exit(code)
            check_failures(tuning.named(found))
            if tuning.waiting(found):
                sys.exit(0)
    else:
        planned = experiment.plan(found.experiment, force=False, fetch=not dry_run)
        if dry_run:
            experiment.show(console, planned)
            return
        ended = experiment.run(console, planned, jobs, HowToRun(1, None))
        if ended.tell(console) not in (0, 1):
            sys.exit(ended.code)
    _tell(found, names, studies)


def _tell(found: "Tuning", names: Sequence[str], studies: int) -> None:
    """Write and print what was chosen, and end."""
    from bench.protocol import tune as tuning

    chosen = tuning.write(found)
    lines = [line for choices in chosen.values() for line in choices]
    missed = [method for method in names if len(chosen[method]) < studies]
    said = [(f"{key}={value}" for key, value in flat(line["settings"]).items()) for line in lines]
    settings = [" ".join(one) or "as shipped" for one in said]
    columns = (
        texts("study", [str(line["study"]) for line in lines]),
        texts("held-out", [f"{line['score']:.4f}" for line in lines]),
        texts("settings", settings, left=True),
    )
    names_of = texts("method", [line["method"] for line in lines], left=True)
    print_columns(console, names_of, columns, [""] * len(lines))
    plain(console, f"chosen: {found.experiment.out / tuning.CHOSEN}; all trials: {tuning.RECORD} beside it")
    if missed:
        plain(console, f"nothing but misses in a study of {', '.join(missed)}", "yellow")
    sys.exit(int(bool(missed)))


def suite(
    methods: options.MethodsToCompare,
    workloads: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help="shipped ones, or YAML files",
            show_default="all that ship",
            autocompletion=completing.workloads,
        ),
    ] = None,
    trials: Trials = 4,
    studies: Studies = 2,
    runs: Annotated[
        int, Option("--runs", min=1, max=1000, metavar="N", help="final runs of every method, seeds 0 to N-1")
    ] = 4,
    seeds: Annotated[int | None, Option(hidden=True, min=1, max=1000)] = None,  # what --runs was called
    out: options.Out = Path("results/suite"),
    jobs: options.Jobs = None,
    device: options.Device = None,
    track: options.Track = None,
    slurm: options.Slurm = None,
    dry_run: options.DryRun = False,
    record_only: Annotated[
        bool, Option("--record-only", help="write the tables as far as the suite is, run nothing")
    ] = False,
) -> None:
    """Run the whole protocol: tune methods on every workload, then compare them; the same command goes on."""
    names, files = units.names(methods), None if workloads is None else units.names(workloads)
    if not names:
        raise BenchError("--methods: names no method")
    if files == []:
        raise BenchError("--workloads: names no workload; leave it out for all that ship")
    if record_only and dry_run:
        raise BenchError("--record-only writes tables, and --dry-run writes nothing: say one of them")
    progress("suite: planning")
    from bench.protocol import execution, record
    from bench.protocol.suite import Effort, plan

    found = plan(
        names, files, Effort(trials, studies, runs if seeds is None else seeds), out, fetch=not dry_run
    )
    if record_only:
        plain(console, f"record: {record.write_again(found)}")
        return
    if dry_run:
        execution.show(console, found)
    if slurm is not None:
        from bench.run.slurm.sweep import SweepRequest

        request = SweepRequest(slurm, (), jobs, False, dry_run, False, "--slurm")
        sys.exit(execution.submit(console, found, request))
    if not dry_run:
        sys.exit(execution.run(console, found, jobs))
