"""Whether the program does on this machine's GPU what it does on a CPU: `make gpu-check`, docs/gpu.md.

    python -m scripts.gpu_check                  # one GPU, no network, no weights: under 8 minutes and 20 GB
    python -m scripts.gpu_check --device cpu     # the same checks in small, which shows that they work

Prints a table, writes DIR/gpu-check.json, and ends with exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.base import devices
from bench.base.errors import BenchError
from bench.base.units import GIB
from bench.run.environment import device_name
from bench.run.load import start
from scripts.gpu import gradients, kernels, runs
from scripts.gpu.row import Place, Row

CHECKS: tuple[Callable[[Place], Iterator[Row]], ...] = (
    kernels.one,
    gradients.precision,
    gradients.cost,
    kernels.launches,
    runs.continued,
    runs.embedded,
)


def main() -> None:
    """Run all checks; exit code 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("results/gpu-check"), metavar="DIR")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here: `python -m bench doctor` says why, `--device cpu` checks in small")
    os.environ[devices.VARIABLE] = asked.device
    try:
        _, device = start(1 if asked.device == "cpu" else torch.get_num_threads())
    except BenchError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as folder:
        place = Place(device, Path(folder), small=device.type == "cpu")
        rows, seconds = _checked(place)
    _write(asked.out, device, rows, seconds)
    sys.exit(any(row.fault for row in rows))


def _checked(place: Place) -> tuple[list[Row], dict[str, float]]:
    """The rows of all checks, printed as they come, and how long each check took."""
    console, rows, seconds = Console(), list[Row](), dict[str, float]()
    for check in CHECKS:
        began, name = time.monotonic(), f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
        console.print(f"… {name}", style="dim")
        try:
            rows += check(place)
        except Exception as error:  # one check that breaks must not hide what the others find
            rows.append(Row(name, "the check itself", "broke", f"{type(error).__name__}: {error}"))
        seconds[name] = time.monotonic() - began
    rows.append(_whole(place.device, sum(seconds.values())))
    table = Table("", "check", "of", "found", title=device_name(place.device))
    for row in rows:
        table.add_row("[red]✗[/red]" if row.fault else "✓", row.check, row.subject, row.found)
    console.print(table)
    for row in rows:
        if row.fault:
            console.print(f"[red]{row.check}, {row.subject}:[/red] {row.fault}", highlight=False)
    return rows, seconds


def _whole(device: torch.device, seconds: float) -> Row:
    """What all checks took together, those that are processes of their own left out of the memory."""
    most = ""
    if device.type == "cuda":
        most = f", at most {torch.cuda.max_memory_reserved(device) / GIB:.1f} GiB of the card"
    return Row("everything", "this check", f"{seconds:.0f} s{most}")


def _write(folder: Path, device: torch.device, rows: list[Row], seconds: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "device": device_name(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "rows": [asdict(row) for row in rows],
        "seconds": {name: round(took, 1) for name, took in seconds.items()},
    }
    (folder / "gpu-check.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{folder / 'gpu-check.json'}")


if __name__ == "__main__":
    main()
