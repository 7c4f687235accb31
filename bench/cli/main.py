"""The command line: parse, call, print. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.base.console import plain
from bench.base.errors import BenchError
from bench.cli import cost, plan, sweep, tools, vbench

app = typer.Typer(
    help="Benchmark of gradient estimators for fine-tuning diffusion models on rewards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)
NO_BARS = ("TQDM_DISABLE", "1")  # loading takes half a second


def main() -> None:
    """Run a command; a user's mistake is one message and exit code 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of an image processor nobody uses
    try:
        app()
    except BenchError as error:
        plain(errors, f"error: {error}", "red")
        sys.exit(2)


@app.command("list")
def list_() -> None:
    """List methods, rewards, models and experiments."""
    from bench.cli.catalogue import show_list

    show_list(console)


@app.command()
def describe(name: str) -> None:
    """Explain anything that `list` names, or the sections train, eval, model, sampler, dcot, experiment."""
    from bench.cli.catalogue import show

    show(console, name)


@app.command()
def run(
    methods: Annotated[
        str | None,
        typer.Option(help="names with commas between them", show_default="all; the demo's without options"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="names, path:DIRECTORY or hub:ORG/NAME", show_default="tiny")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="what to train on: names, a sum hpsv2:1,aes:0.5, or python:module.function",
            show_default="the model's",
        ),
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="prompt sets or files", show_default="the model's")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="numbers with commas between them", show_default="0")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="optimizer steps of every method")] = None,
    config: Annotated[str | None, typer.Option(help="an experiment: a YAML file or a shipped name")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, such as rlr.h=3; may be repeated")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="results directory", show_default="results/NAME")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="cells at a time", show_default="one per CPU core")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each cell", show_default="1")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="data-parallel processes of each cell")] = 1,
    timeout_per_cell: Annotated[
        float | None, typer.Option(min=1, help="seconds; the cell can be continued")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, print the cells, run nothing")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(help="random (true shapes, random numbers), path:DIRECTORY or hub:ORG/NAME"),
    ] = None,
    dcot: Annotated[
        bool | None, typer.Option("--dcot/--no-dcot", help="other prompts for coarse, mid and fine steps")
    ] = None,
    report: Annotated[bool, typer.Option(help="tables and figures at the end")] = True,
    force: Annotated[bool, typer.Option("--force", help="start the cells again, also finished ones")] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="one cell after the other in this process, for a debugger")
    ] = False,
    slurm: Annotated[
        str | None, typer.Option(help="send the cells to SLURM by this profile; see `submit`")
    ] = None,
) -> None:
    """Fine-tune a model by several methods and compare them. Without options: the demo."""
    from bench.experiment import request
    from bench.run import experiment, launch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BenchError("start `run` itself only once: `--processes N` makes every cell data-parallel")
    options = request.Options(
        methods, model, reward, prompts, seeds, steps, threads, config, settings or (), out, weights, dcot
    )
    if slurm is not None:
        from bench.run.slurm import sweep

        sys.exit(sweep.submit(console, options, sweep.Asked(slurm, (), jobs, False, dry_run, force)))
    if in_process and (processes > 1 or jobs is not None):
        raise BenchError("--in-process runs one cell at a time in one process: leave --jobs and --processes")
    planned = experiment.plan(request.build(options), force, fetch=not dry_run)
    if dry_run:
        experiment.show(console, planned)
        return
    way = launch.Way(processes, timeout_per_cell)
    sys.exit(experiment.run(console, planned, jobs, way, report, in_process))


@app.command(hidden=True)
def cell(
    directory: Path,
    timeout: Annotated[float | None, typer.Option()] = None,
    with_parent: Annotated[bool, typer.Option("--with-parent")] = False,
) -> None:
    """Run one planned cell in this process. --with-parent: end when standard input closes."""
    os.environ.setdefault(*NO_BARS)
    from bench.run.cell import end_with_parent, run_cell
    from bench.run.store import CellDir

    if with_parent:
        end_with_parent()
    sys.exit(run_cell(CellDir(directory), timeout))


@app.command("vbench-cell", hidden=True)
def vbench_cell(
    directory: Path,
    with_parent: Annotated[bool, typer.Option("--with-parent")] = False,
) -> None:
    """Do one job of `vbench generate` or `vbench score` in this process."""
    os.environ.setdefault(*NO_BARS)
    from bench.measure.vbench.job_process import run_job
    from bench.run.cell import end_with_parent
    from bench.run.store import CellDir

    if with_parent:
        end_with_parent()
    sys.exit(run_job(CellDir(directory)))


@app.command()
def gradients(
    methods: Annotated[str, typer.Option(help="names with commas between them, or `all`")] = "all",
    model: Annotated[
        str | None, typer.Option(help="a name, path:DIRECTORY or hub:ORG/NAME", show_default="tiny")
    ] = None,
    reward: Annotated[str | None, typer.Option(help="differentiable", show_default="the model's")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="a prompt set or a file", show_default="the model's")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="θ: init, or the directory of a trained cell or LoRA; may be repeated", show_default="init"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the LoRA's initial values and of all draws")] = 0,
    budget: Annotated[str | None, typer.Option(help="time for all together, such as 90s, 5m, 2h")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="batch gradients of each method, earlier ones included")
    ] = None,
    precision: Annotated[
        float | None, typer.Option(min=1e-4, help="stop where the bias is known to ± this")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, such as rlr.h=3; may be repeated")
    ] = None,
    out: Annotated[Path, typer.Option(help="results directory")] = Path("results/gradients"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="methods at a time", show_default="one per CPU core")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each", show_default="1")] = None,
    force: Annotated[bool, typer.Option("--force", help="forget what was measured before")] = False,
) -> None:
    """Measure bias, variance and cost of each method's gradient against the exact one.

    Without --budget, --draws or --precision: a budget of 5 minutes. Draws are added to earlier ones.
    """
    started = time.monotonic()
    from bench.experiment import request
    from bench.measure.gradients import plan, run

    if budget is None and draws is None and precision is None:
        budget = "5m"
    limits = plan.Limits(None if budget is None else plan.seconds(budget), draws, precision)
    options = request.Options(
        methods, model, reward, prompts, str(seed), None, threads, None, settings or (), out
    )
    planned = plan.plan(request.build(options), at or [plan.INIT], limits, jobs)
    sys.exit(run.run(console, planned, force, started))


@app.command(hidden=True)
def probe(
    directory: Path,
    timeout: Annotated[float | None, typer.Option()] = None,
    draws: Annotated[int | None, typer.Option()] = None,
    precision: Annotated[float | None, typer.Option()] = None,
    with_parent: Annotated[bool, typer.Option("--with-parent")] = False,
) -> None:
    """Measure one planned profile in this process."""
    os.environ.setdefault(*NO_BARS)
    from bench.measure.gradients.store import ProbeDir
    from bench.measure.gradients.worker import run_probe
    from bench.run.cell import end_with_parent

    if with_parent:
        end_with_parent()
    sys.exit(run_probe(ProbeDir(directory), timeout, draws, precision))


@app.command()
def sample(
    prompt: Annotated[str, typer.Option(help="what to draw")],
    model: Annotated[str | None, typer.Option(help="as for run", show_default="the cell's, or tiny")] = None,
    lora: Annotated[Path | None, typer.Option(help="a cell's directory, or one with a LoRA in it")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="pictures")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="of the starting noise")] = 0,
    out: Annotated[Path, typer.Option(help="directory for the pictures")] = Path("samples"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="model.KEY=VALUE; may be repeated")
    ] = None,
    dcot: Annotated[
        bool | None,
        typer.Option(
            "--dcot/--no-dcot",
            help="other prompts for coarse, mid and fine steps",
            show_default="as the cell",
        ),
    ] = None,
) -> None:
    """Draw pictures with a model, with or without a trained LoRA."""
    os.environ.setdefault(*NO_BARS)
    from bench.run.sample import write_samples

    for path in write_samples(prompt, model, lora, n, seed, out, settings or (), dcot):
        plain(console, str(path))


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="a results directory")]) -> None:
    """Build the tables and figures of a results directory again, and print the summary."""
    from bench.report.report import write_report

    write_report(directory, console)


SWEEP = (sweep.submit, sweep.status, sweep.cancel, sweep.retry, sweep.logs)
PROFILE = (cost.profile, plan.plan)
for command in (tools.doctor, tools.fetch, tools.evaluate, *SWEEP, *PROFILE):
    app.command()(command)
app.add_typer(vbench.app, name="vbench")
