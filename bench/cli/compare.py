"""The commands for several results directories: compare them, merge them."""

import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.console import progress

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
        Option(metavar="NAMES", help="names, or NAME_IN_A:NAME_IN_B", show_default="all that both have"),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Compare two results directories, B with A; exit code 1 if a method is worse in B."""
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
    sys.exit(int(bool(found.regressions)))
