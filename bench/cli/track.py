"""The commands that send cells to experiment trackers: track, and track-cell, which runs beside a cell."""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Option

from bench.base.console import caution, plain, progress
from bench.base.errors import BenchError
from bench.cli import options

console = Console()


def track(
    directory: options.Results,
    to: Annotated[
        str, Argument(metavar="NAMES", help="tensorboard, wandb, mlflow, with commas between them")
    ],
) -> None:
    """Send what a results directory has stored to experiment trackers: what they do not have yet."""
    from bench.run.store import CellInUse, ResultsDir
    from bench.run.tracking.asked import checked
    from bench.run.work import CellWork, kind_of

    names, bad = checked(to, "NAMES"), False
    if not names:
        raise BenchError("NAMES: names no tracker")
    cells = [cell for cell in ResultsDir(directory).cells() if kind_of(cell) is CellWork]
    if not cells:
        raise BenchError(f"{directory}: no cells there: name a results directory")
    progress(f"track: loading {', '.join(names)}")
    from bench.run.tracking.sending import send_stored

    for cell in cells:
        try:
            sent, failed = send_stored(cell, names)
        except CellInUse as error:
            caution(str(error))
            sent, failed = {}, True
        bad = bad or failed
        plain(console, f"{cell.id}: " + ", ".join(f"{n} steps to {name}" for name, n in sent.items()))
    sys.exit(int(bad))


def track_cell(directory: Path, to: Annotated[str, Option()]) -> None:
    """Send a cell while it runs, until standard input closes."""
    from bench.run.store import CellDir
    from bench.run.tracking.asked import checked
    from bench.run.tracking.sending import follow

    ended = threading.Event()

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: its lock would be held at exit
            pass
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    sys.exit(follow(CellDir(directory), checked(to, "--to"), ended))
