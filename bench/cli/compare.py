"""The commands for several results directories: compare them, merge them."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.console import plain, progress
from bench.cli import options

console = Console()


def compare(
    a: Annotated[Path, Argument(metavar="A", help="the reference: a results directory, or a record")],
    b: Annotated[Path, Argument(metavar="B", help="what is new")],
    tolerance: Annotated[
        str,
        Option(metavar="X", help="what B may lose, in units of the reward; clip:0.01,jpeg:0.2 of several"),
    ] = "0",
    methods: Annotated[
        str | None,
        Option(metavar="NAMES", help=options.METHODS, show_default="all that both have"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare two results directories, B with A; exit code 1 if a method is worse in B.

    --methods ddpo:grpo holds A's ddpo against B's grpo.
    """
    from bench.protocol import compare_table
    from bench.protocol.compare import compare as held_against
    from bench.protocol.compare import parse_tolerance
    from bench.protocol.matching import parse_methods
    from bench.protocol.sides import read_side

    allowed, names = parse_tolerance(tolerance), None if methods is None else parse_methods(methods)
    progress(f"compare: reading {a} and {b}")
    found = held_against(read_side(a), read_side(b), allowed, names)
    if as_json:
        sys.stdout.write(compare_table.as_json(found) + "\n")
    else:
        compare_table.show(found, console)
    sys.exit(int(bool(found.alarms)))


def merge(
    directories: Annotated[list[Path], Argument(metavar="DIR...", help="two results directories or more")],
    out: Annotated[Path, Option(metavar="DIR", help=options.OUT)],
    link: Annotated[
        bool, Option("--link", help="hard links to checkpoints, features and pictures instead of copies")
    ] = False,
) -> None:
    """Merge results directories into a new one, --out; one cell with different numbers is refused by name."""
    from bench.run.merge import merge as joined

    progress(f"merge: looking at {', '.join(map(str, directories))}")
    found = joined(directories, out, link)
    shared = f", {found.shared} of them in several directories with the same numbers" if found.shared else ""
    profiles = f" and {found.profiles} gradient profiles" if found.profiles else ""
    plain(console, f"{found.out}: {found.cells} cells{profiles}{shared}", wrap=True)
    if found.left:
        plain(console, f"not merged: {', '.join(map(str, found.left))}", "yellow", wrap=True)
    plain(console, f"report it with: python -m bench report {shlex.quote(str(found.out))}")
