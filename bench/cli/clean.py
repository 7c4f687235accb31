"""`bench clean`: say what can go of a results directory, ask, and remove it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from typer import Option

from bench.base.console import plain, progress
from bench.base.errors import BenchError
from bench.base.units import readable_size
from bench.cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.run.clean import Kind, Removable

console = Console()
SHOWN = 10  # cells of each kind that are named


def clean(
    directory: options.Results,
    failed: options.Failed = False,
    superseded: Annotated[
        bool, Option("--superseded", help="cells that the last request replaced by others that are done")
    ] = False,
    checkpoints: Annotated[
        bool, Option("--checkpoints", help="checkpoints of finished cells, all but the newest of each")
    ] = False,
    yes: Annotated[bool, Option("--yes", "-y", help="remove without asking")] = False,
    dry_run: options.DryRun = False,
) -> None:
    """Remove failed and superseded cells, and old checkpoints, of a results directory.

    Without one of the first three options: failed cells and old checkpoints.
    It asks before it removes; cells that somebody works on stay.
    """
    progress(f"clean: looking at {directory}")
    from bench.run import clean as cleaning
    from bench.run.clean import Kind
    from bench.run.store import ResultsDir

    asked = {Kind.FAILED: failed, Kind.SUPERSEDED: superseded, Kind.CHECKPOINTS: checkpoints}
    kinds = [kind for kind in Kind if asked[kind]] or [Kind.FAILED, Kind.CHECKPOINTS]
    findings = cleaning.find(ResultsDir(directory))
    chosen = [one for one in findings.removable if one.kind in kinds]
    for kind in Kind:
        _tell(kind, [one for one in findings.removable if one.kind is kind], kind in kinds)
    if findings.in_use:
        plain(console, f"cells in use, left alone: {len(findings.in_use)}")
    if not chosen:
        plain(console, "nothing to remove")
    elif not dry_run:
        sys.exit(_remove(chosen, yes))


def _tell(kind: "Kind", found: "Sequence[Removable]", chosen: bool) -> None:
    """How many there are, how large, and which cells would go as a whole."""
    if not found:
        return
    whole, size = not found[0].files, readable_size(sum(one.bytes for one in found))
    what = f"{kind} cells" if whole else "old checkpoints of finished cells"
    stay = "" if chosen else f"; they stay without --{kind}"
    plain(console, f"{what}: {sum(len(one.files) or 1 for one in found)}, {size}{stay}", wrap=True)
    if not (whole and chosen):
        return
    for one in found[:SHOWN]:
        plain(console, f"  {one.cell.id}")
        plain(console, f"    {one.why}", "dim", wrap=True)
    if len(found) > SHOWN:
        plain(console, f"  and {len(found) - SHOWN} more")


def _remove(chosen: "Sequence[Removable]", yes: bool) -> int:
    """Ask, and remove. Returns the exit code. Raises BenchError where there is nobody to ask."""
    from bench.run import clean as cleaning

    if not yes:
        if not sys.stdin.isatty():
            raise BenchError("clean asks before it removes, and this is no terminal: add --yes, or --dry-run")
        if not typer.confirm(f"remove {readable_size(sum(one.bytes for one in chosen))}?"):
            plain(console, "nothing was removed")
            return 1
    left = cleaning.remove(chosen)
    for one in left:
        plain(console, f"{one.cell.id} was worked on since, or is in use: it stays", "yellow")
    removed = sum(one.bytes for one in chosen if one not in left)
    plain(console, f"removed: {readable_size(removed)}")
    return int(bool(left))
