"""The commands around a run: doctor, fetch, evaluate. Parse, call, print; `bench.cli.main` registers them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.base.errors import BenchError

console = Console()


def doctor(
    model: Annotated[str | None, typer.Option(help="names", show_default="all that ship")] = None,
    reward: Annotated[str | None, typer.Option(help="names", show_default="all, or the model's")] = None,
    methods: Annotated[str | None, typer.Option(help="names", show_default="all")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="model.KEY=VALUE, REWARD.KEY=VALUE; may be repeated")
    ] = None,
) -> None:
    """Say what this machine has, what can run on it, and what to type about what is missing."""
    from bench.cli.doctor.report import run as examine

    sys.exit(examine(console, model, reward, methods, settings or ()))


def fetch(
    model: Annotated[
        str | None, typer.Option(help="names, path:DIRECTORY or hub:ORG/NAME; brings its rewards and prompts")
    ] = None,
    reward: Annotated[
        str | None, typer.Option(help="names, or `all`", show_default="the model's, those it is evaluated by")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="prompt sets, or `all`", show_default="the model's")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="directory to copy to a machine without network", show_default="the caches"),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="model.KEY=VALUE, REWARD.KEY=VALUE; may be repeated")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what is here, download nothing")] = False,
) -> None:
    """Download the weights and files that models, rewards and prompt sets need."""
    from bench.cli import fetch as fetching

    if model is reward is prompts is None:
        raise BenchError("name what to fetch: --model sd14, --reward hpsv2 or --prompts drawbench")
    if to is not None:
        fetching.use_tree(to)
    from bench.experiment.ingredients import asked

    pieces = asked(model, reward, prompts, settings or ())
    sys.exit(fetching.run(console, pieces, to, dry_run))


def evaluate(
    images: Annotated[Path | None, typer.Option(help="a directory of pictures from anywhere")] = None,
    cell: Annotated[
        list[Path] | None,
        typer.Option(help="a cell, whose held-out pictures are drawn again; may be repeated"),
    ] = None,
    rewards: Annotated[
        str, typer.Option("--rewards", "--reward", help="names, or `all` whose weights are here")
    ] = "all",
    prompts_file: Annotated[
        Path | None, typer.Option(help="prompts of the pictures: .jsonl, or text with a line for each")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="pictures at a time", show_default="8, or the cell's")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="REWARD.KEY=VALUE; may be repeated")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="every score in a table, .csv or .jsonl")] = None,
) -> None:
    """Score pictures from anywhere, or a trained cell by other rewards than its run did."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    if (images is None) == (not cell):
        raise BenchError("say what to score: either --images DIRECTORY, or --cell DIRECTORY")
    if images is None and prompts_file is not None:
        raise BenchError("--prompts-file goes with --images; a cell has its own prompts")
    from bench.run import score

    asked = score.Asked(rewards, settings or (), batch, out)
    if images is not None:
        score.score_images(console, images, prompts_file, asked)
    else:
        score.score_cells(console, cell or (), asked)
