"""The leaderboard's command: check records, and write the page and its figures."""

import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.console import plain, progress
from bench.base.errors import BenchError
from bench.cli import options

console = Console()

REFERENCE = Path("results/reference")
PAGE = Path("docs/leaderboard.md")


def leaderboard(
    folders: Annotated[
        list[Path] | None,
        Argument(metavar="[FOLDER]...", help="records", show_default=f"those in {REFERENCE}"),
    ] = None,
    out: Annotated[Path, Option(metavar="FILE", help=options.OUT)] = PAGE,
    check: Annotated[
        bool, Option("--check", help="write nothing, list what is against the protocol")
    ] = False,
) -> None:
    """Check the records of suites, and write the leaderboard that they make, a page and its images/."""
    progress("reading records")
    from bench.protocol.check import across
    from bench.protocol.check import check as faults_of
    from bench.protocol.faults import told
    from bench.protocol.leaderboard_page import write
    from bench.protocol.reading import read_record
    from bench.protocol.workload import all_workloads

    places, workloads = _places(folders), all_workloads()
    records = [read_record(place) for place in places]
    others = [read_record(place) for place in _references() if check and place not in places]
    found = {record.name: faults_of(record, workloads) for record in records}
    faults = [*(fault for some in found.values() for fault in some), *across(records, others)]
    if check or not all(fault.missing for fault in faults):
        for line in told(faults):
            plain(console, line)
        nothing = "nothing is against the protocol"
        refused = "nothing is written: a leaderboard takes records that keep the protocol"
        plain(console, refused if not check else f"{len(faults)} faults" if faults else nothing)
        sys.exit(int(bool(faults)))
    files = write(records, workloads, {name: len(some) for name, some in found.items()}, out)
    plain(console, f"written: {', '.join(map(str, files))}")


def _references() -> list[Path]:
    """The folders of the records that the repository has."""
    return [path.parent.resolve() for path in sorted(REFERENCE.glob("*/suite.yaml"))]


def _places(folders: list[Path] | None) -> list[Path]:
    """Those of the records that are asked for. Raises BenchError if there are none, or two of one name."""
    places = [folder.resolve() for folder in folders] if folders else _references()
    if not places:
        raise BenchError(f"{REFERENCE}: no folder in it has a suite.yaml: name the records' folders")
    names = [place.name for place in places]
    if len(set(names)) < len(names):
        raise BenchError(f"two records are called '{max(names, key=names.count)}': rename one of the folders")
    return places
