"""The command that makes a folder of a trained LoRA, to share or to put on a hub."""

from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.console import caution, plain, progress, without_bars
from bench.base.errors import BenchError
from bench.cli import options

console = Console()


def export(
    cell: Annotated[Path, Argument(metavar="CELL", help="the directory of a finished cell")],
    to: Annotated[Path, Option(metavar="DIR", help=options.FILES)],
    push: Annotated[
        str | None, Option(metavar="ORG/NAME", help="put them into that repository on the hub, too")
    ] = None,
    public: Annotated[
        bool, Option("--public", help="with --push: a new repository is for everyone to see")
    ] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="overwrite files of the same names, there and on the hub")
    ] = False,
) -> None:
    """Make a folder of a trained LoRA: weights, a model card with its numbers, pictures."""
    without_bars()
    if public and push is None:
        raise BenchError("--public: only with --push ORG/NAME")
    from bench.data import hub_push
    from bench.run.store import CellDir

    directory = CellDir(cell.resolve())
    if push is not None:
        hub_push.check(push, overwrite)
    progress(f"export: reading {cell} and the results beside it")
    from bench.report.export import folder

    made = folder.build(directory, push)
    for file in folder.write(made, to, overwrite):
        plain(console, str(file))
    for lack in made.lacks:
        caution(lack)
    if push is not None:
        progress(f"export: sending {len(made.files)} files to {push}")
        plain(console, hub_push.push(push, to, list(made.files), public))
