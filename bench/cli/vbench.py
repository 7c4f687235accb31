"""The commands around VBench: generate, score, table. Parse, call, print; `bench.cli.main` registers them."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from typer import Argument, Option, Typer

from bench.base import devices
from bench.base.console import without_bars
from bench.base.errors import BenchError
from bench.cli import completing, options
from bench.cli.everywhere import with_common

if TYPE_CHECKING:
    from bench.run.slurm import sweep

console = Console()
app = Typer(help="VBench: make videos of its prompts, score them, tabulate the scores.", no_args_is_help=True)
Dimensions = Annotated[
    list[str] | None,
    Option(
        "--dimension",
        metavar="NAMES",
        help="names with commas between them, or all; may be repeated",
        show_default="all",
    ),
]
# generate
Model = Annotated[
    str | None,
    Option(metavar="NAME", help=options.MODEL, show_default="the cell's", autocompletion=completing.model),
]
Lora = Annotated[Path | None, Option(metavar="DIR", help=options.LORA)]
VideosOut = Annotated[
    Path | None, Option("--out", metavar="DIR", help=options.OUT, show_default="results/vbench/MODEL/videos")
]
Subset = Annotated[
    int | None,
    Option(min=1, metavar="N", help="prompts of each dimension, a fixed choice", show_default="all"),
]
PerPrompt = Annotated[
    int | None, Option(min=1, metavar="N", help="videos of each prompt", show_default="5; flickering 25")
]
Shard = Annotated[str | None, Option(metavar="K/N", help="only that part, for array jobs")]
AtOnce = Annotated[int, Option(min=1, metavar="N", help=options.AT_ONCE)]
Fps = Annotated[
    float | None, Option(min=1, metavar="X", help="frames per second", show_default="the model's")
]
# score
Videos = Annotated[Path, Argument(help="directory of videos")]
Custom = Annotated[
    bool, Option("--custom", help="videos of other prompts: ten dimensions, prompts from file names")
]
PromptsFile = Annotated[Path | None, Option(metavar="FILE", help=options.PROMPTS_FILE)]
ScoresOut = Annotated[
    Path | None, Option("--out", metavar="DIR", help=options.OUT, show_default="beside the videos")
]
Python = Annotated[
    Path | None, Option(metavar="FILE", help="of another environment with vbench", show_default="this one")
]
Fetch = Annotated[bool, Option("--fetch", help="download weights that are not here")]
NoStaticFilter = Annotated[
    bool, Option("--no-static-filter", help="score flickering on all videos, moving ones too")
]
Jobs = Annotated[int, Option(min=1, metavar="N", help=options.JOBS)]
Timeout = Annotated[
    float | None, Option("--timeout-per-dimension", min=1, metavar="N", help="seconds; the others go on")
]
# with --slurm
Cells = Annotated[
    int | None,
    Option(
        min=1,
        metavar="N",
        help="with --slurm: that share the videos",
        show_default="as many as run at once; 8",
    ),
]


class Unit(StrEnum):
    """What the numbers of result files are."""

    auto = "auto"
    percent = "percent"
    fraction = "fraction"


@app.command()
@with_common
def generate(
    dimension: Dimensions = None,
    model: Model = None,
    lora: Lora = None,
    out: VideosOut = None,
    subset: Subset = None,
    per_prompt: PerPrompt = None,
    shard: Shard = None,
    seed: options.Seed = 0,
    at_once: AtOnce = 1,
    fps: Fps = None,
    settings: options.Settings = None,
    force: options.Again = False,
    dry_run: options.DryRun = False,
    device: options.Device = None,
    slurm: options.Slurm = None,
    cells: Cells = None,
    changes: options.Changes = None,
    max_parallel: options.MaxParallel = None,
    wait: options.Wait = False,
) -> None:
    """Make the videos of VBench's prompts that are not there yet, here or by SLURM."""
    without_bars()
    from bench.measure.vbench import dimensions

    chosen = dimensions.chosen(dimension or ())
    if model is None and lora is None:
        raise BenchError("say whose videos: --model NAME, or --lora DIRECTORY of a trained cell")
    _with_slurm(slurm, {"--cells": cells, "--with": changes, "--max-parallel": max_parallel, "--wait": wait})
    from bench.measure.vbench import generate as making
    from bench.measure.vbench import resolve, submit

    request = resolve.request(
        chosen,
        model,
        lora,
        out=out,
        shard=shard,
        settings=settings or (),
        subset=subset,
        per_prompt=per_prompt,
        seed=seed,
        batch=at_once,
        fps=fps,
    )
    if slurm is None:
        making.generate(console, request, force=force, dry_run=dry_run)
    else:
        how = _how(slurm, changes, max_parallel, wait, dry_run, force)
        sys.exit(submit.generate(console, request, how, cells))


@app.command()
@with_common
def score(
    videos: Videos,
    dimension: Dimensions = None,
    custom: Custom = False,
    prompts_file: PromptsFile = None,
    out: ScoresOut = None,
    device: options.Device = None,
    python: Python = None,
    fetch: Fetch = False,
    no_static_filter: NoStaticFilter = False,
    jobs: Jobs = 1,
    timeout: Timeout = None,
    force: options.Again = False,
    dry_run: options.DryRun = False,
    slurm: options.Slurm = None,
    changes: options.Changes = None,
    max_parallel: options.MaxParallel = None,
    wait: options.Wait = False,
) -> None:
    """Score videos with the vbench package, each dimension in a process of its own, here or by SLURM."""
    from bench.measure.vbench import dimensions, submit
    from bench.measure.vbench import score as scoring

    chosen = dimensions.chosen(dimension or (), custom)
    needing = {"--with": changes, "--max-parallel": max_parallel, "--wait": wait, "--dry-run": dry_run}
    _with_slurm(slurm, needing)
    requests = scoring.requests(
        chosen,
        videos,
        out,
        custom=custom,
        prompts_file=prompts_file,
        device=devices.asked(),
        python=python,
        static_filter=not no_static_filter,
        timeout=timeout,
    )
    if slurm is not None:
        how = _how(slurm, changes, max_parallel, wait, dry_run, force)
        sys.exit(submit.score(console, requests, how, fetch))
    left = submit.not_sent(console, requests)
    code = scoring.score(console, left, fetch=fetch, jobs=jobs, force=force) if left else 1
    sys.exit(code if len(left) == len(requests) else 1)


def cell(directory: Path, with_parent: options.WithParent = False) -> None:
    """Do one job of `vbench generate` or `vbench score` in this process."""
    without_bars()
    from bench.measure.vbench.job_process import run_job
    from bench.run.recorded import end_with_parent
    from bench.run.store import CellDir

    if with_parent:
        end_with_parent()
    sys.exit(run_job(CellDir(directory)))


def _how(
    slurm: str, changes: list[str] | None, max_parallel: int | None, wait: bool, dry_run: bool, force: bool
) -> "sweep.SweepRequest":
    from bench.run.slurm import sweep

    return sweep.SweepRequest(slurm, tuple(changes or ()), max_parallel, wait, dry_run, force)


def _with_slurm(slurm: str | None, options: dict[str, object]) -> None:
    """Raise BenchError for options that mean nothing without --slurm."""
    alone = [name for name, value in options.items() if value]
    if slurm is None and alone:
        raise BenchError(f"{', '.join(alone)}: only with --slurm PROFILE")


@app.command()
@with_common
def table(
    files: Annotated[
        list[Path] | None,
        Argument(help="result files, tables, scored directories", show_default="all in results/vbench"),
    ] = None,
    out: Annotated[Path, Option(metavar="DIR", help=options.OUT)] = Path("results/vbench"),
    figures: Annotated[bool, Option("--figures/--no-figures", help="draw the radar and the bars")] = True,
    unit: Annotated[Unit, Option(help="of the numbers in tables")] = Unit.auto,
) -> None:
    """Tabulate scores with Quality, Semantic and Total, and check printed ones against their dimensions."""
    from bench.measure.vbench import table as tabulating

    tabulating.table(console, files or (), out, unit.value, figures)
