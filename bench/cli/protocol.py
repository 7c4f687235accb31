"""The commands of the fair fight: tune."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from typer import Option

from bench.base import units
from bench.base.columns import print_columns, texts
from bench.base.console import plain
from bench.base.errors import BenchError
from bench.cli import options
from bench.cli.run import Jobs, Slurm

if TYPE_CHECKING:
    from bench.protocol.tune import Tuning

console = Console()
Methods = Annotated[str, Option(metavar="NAMES", help="with commas between them")]
Trials = Annotated[int, Option(min=1, metavar="N", help="of every method in every study")]
Studies = Annotated[int, Option(min=1, metavar="N", help="each with a seed and trials of its own")]
Workload = Annotated[str, Option(metavar="NAME", help="a shipped workload, or a YAML file")]


def tune(
    methods: Methods,
    workload: Workload,
    trials: Trials = 4,
    studies: Studies = 1,
    out: options.NamedOut = None,
    jobs: Jobs = None,
    slurm: Slurm = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="check everything, print the trials, run nothing")
    ] = False,
) -> None:
    """Tune methods with equal effort: as many quasi-random trials for each, from its own search space."""
    from bench.protocol import tune as tuning
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
            if code or dry_run or tuning.waiting(found):
                sys.exit(code)
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
    columns = (
        texts("study", [str(line["study"]) for line in lines]),
        texts("held-out", [f"{line['score']:.4f}" for line in lines]),
        texts("settings", [_said(line["settings"]) for line in lines], left=True),
    )
    names_of = texts("method", [line["method"] for line in lines], left=True)
    print_columns(console, names_of, columns, [""] * len(lines))
    plain(console, f"chosen: {found.experiment.out / tuning.CHOSEN}; all trials: {tuning.RECORD} beside it")
    if missed:
        plain(console, f"nothing but misses in a study of {', '.join(missed)}", "yellow")
    sys.exit(int(bool(missed)))


def _said(settings: dict[str, object], above: str = "") -> str:
    """`train.lr=0.003 k=5`."""
    said = [
        _said(value, f"{above}{key}.") if isinstance(value, dict) else f"{above}{key}={value}"
        for key, value in settings.items()
    ]
    return " ".join(said) or "as shipped"
