"""The command line. A command parses, calls and prints, and imports what is slow only when it is called."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Argument, Option

from bench.base.console import plain, speak
from bench.base.errors import BenchError
from bench.cli import (
    clean,
    compare,
    completing,
    completion,
    cost,
    export,
    gradients,
    leaderboard,
    new,
    options,
    protocol,
    run,
    schema,
    slurm,
    track,
    vbench,
)
from bench.cli.as_json import tell
from bench.cli.everywhere import with_common

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)


def main() -> None:
    """Run a command; a user's mistake is one message and exit code 2."""
    speak(None)
    completion.answer_shells()
    try:
        app()
    except BenchError as error:
        plain(errors, f"error: {error}", "red")
        sys.exit(2)


def _tell_version(asked: bool) -> None:
    if asked:
        from bench.cli.version import version

        plain(console, version())
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        Option("--version", help="print versions and the commit", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    """Benchmark of gradient estimators for fine-tuning diffusion models on rewards."""


def list_(
    words: Annotated[
        list[str] | None,
        Argument(
            metavar="KIND|TEXT",
            help="methods, rewards, prompts, models, experiments, workloads, profiles; a part of a name",
            show_default="everything",
            autocompletion=completing.kind,
        ),
    ] = None,
    gradient: Annotated[
        bool | None,
        Option(
            "--gradient/--no-gradient", help="methods that need the reward's gradient, rewards that have one"
        ),
    ] = None,
    here: Annotated[bool, Option("--here", help="models, rewards and prompts whose files are here")] = False,
    long: Annotated[bool, Option("--long", "-l", help="a line for each: what it is")] = False,
    as_json: options.AsJson = False,
) -> None:
    """List methods, rewards, prompts, models, experiments, workloads and SLURM profiles."""
    from bench.cli import catalogue

    found = catalogue.chosen(catalogue.Wanted(words or (), gradient, here))
    if as_json:
        tell(catalogue.with_gradient(found))
    else:
        catalogue.show(console, found, long)


def describe(
    name: Annotated[
        str, Argument(help="what `list` names, or a section", autocompletion=completing.anything)
    ],
    as_json: options.AsJson = False,
) -> None:
    """Explain anything that `list` names, or the sections train, eval, model, sampler, dcot, experiment."""
    from bench.cli import describe as describing

    if as_json:
        tell(describing.as_object(describing.describe(name)))
    else:
        describing.show(console, name)


def doctor(
    model: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help=options.MODEL,
            show_default="all that ship",
            autocompletion=completing.models,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help=options.REWARD,
            show_default="all, or the model's",
            autocompletion=completing.rewards,
        ),
    ] = None,
    methods: options.Methods = None,
    settings: options.Settings = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what this machine has, what can run on it, and what to type about what is missing."""
    from bench.cli.doctor.report import run as examine

    sys.exit(examine(console, model, reward, methods, settings or (), as_json))


def fetch(
    model: Annotated[
        str | None,
        Option(metavar="NAMES", help=options.MODEL, autocompletion=completing.models),
    ] = None,
    reward: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help=options.REWARD,
            show_default="the model's, those it is evaluated by",
            autocompletion=completing.rewards,
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help=options.PROMPTS,
            show_default="the model's",
            autocompletion=completing.prompt_sets,
        ),
    ] = None,
    to: Annotated[
        Path | None,
        Option(metavar="DIR", help=options.FILES, show_default="the caches"),
    ] = None,
    settings: options.Settings = None,
    dry_run: options.DryRun = False,
) -> None:
    """Download the weights and files that models, rewards and prompt sets need.

    A model brings its rewards and prompts. `all` takes all rewards, or all prompt sets.
    """
    from bench.cli import fetch as fetching

    if model is reward is prompts is None:
        raise BenchError("name what to fetch: --model sd14, --reward hpsv2 or --prompts drawbench")
    if to is not None:
        fetching.use_tree(to)
    from bench.experiment.ingredients import named

    sys.exit(fetching.run(console, named(model, reward, prompts, settings or ()), to, dry_run))


COMMANDS = (
    *(list_, describe),
    *(run.run, gradients.gradients, run.sample, run.report, run.verify, clean.clean),
    *(compare.compare, compare.merge),
    *(doctor, fetch, run.evaluate, new.new, completion.completion, schema.schema),
    *(protocol.suite, protocol.tune, leaderboard.leaderboard),
    *(export.export, track.track),
    *(slurm.submit, slurm.status, slurm.cancel, slurm.retry, slurm.logs),
    *(cost.profile, cost.plan),
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"))(with_common(command))
for command in (run.cell, gradients.probe):  # this program's own: one piece of work in a process
    app.command(hidden=True)(command)
app.command("vbench-cell", hidden=True)(vbench.cell)
app.command("track-cell", hidden=True)(track.track_cell)
app.add_typer(vbench.app, name="vbench")
