"""Profiles planned cells one after the other and writes what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench.errors import BenchError
from bench.profile import table
from bench.profile.plan import Planned
from bench.profile.table import Profiled
from bench.profile.usage import Usage
from bench.settings import CellConfig


def run(console: Console, planned: Planned) -> int:
    """Returns the exit code: 1 if a method that was named, or every one, could not be profiled."""
    found, failed = list[Profiled](), list[str]()
    profile = _way(planned)
    with console.status("") as status:
        for cell in planned.cells:
            training = cell.config.training
            assert training is not None  # of bench.profile.plan
            status.update(f"{cell.config.label} ({len(found) + len(failed) + 1} of {len(planned.cells)})")
            try:
                found.append(Profiled(cell, training, planned.mode, profile(cell.config)))
            except BenchError as error:
                failed.append(f"{cell.config.label}: {error}")
    if found:
        table.show(console, found)
        written = table.write(planned.out, found)
        drawn = [path for path in _figures(planned.out, found) if path.suffix == ".png"]
        for path in [*written, *drawn]:
            console.print(f"wrote {path}", soft_wrap=True, highlight=False)
    for message in failed:
        console.print(message, style="red", soft_wrap=True, highlight=False, markup=False)
    return 1 if failed and not (planned.everything and found) else 0


def _figures(out: Path, found: list[Profiled]) -> list[Path]:
    """What the peaks consist of, and the course of one step: RLR's where it was profiled."""
    from bench.profile import figures

    rows = [
        figures.Row(
            method=one.training.method.name,
            graphs=one.training.train.graphs,
            steps=one.cell.config.model.config.steps,
            h=table.block(one.training),
            peak=one.usage.device,
            flops=one.usage.flops,
            seconds=one.usage.seconds,
            components=one.usage.components,
        )
        for one in found
    ]
    shown = next((one for one in found if one.training.method.name == "rlr"), found[0])
    return figures.draw(out, rows, {f"One step of {shown.training.method.name}": shown.usage.timeline})


def _way(planned: Planned) -> Callable[[CellConfig], Usage]:
    if planned.mode == "simulated":
        from bench.profile.simulate import Simulator

        return Simulator()
    from bench.profile.measure import measure
    from bench.runtime import start

    _, device = start(max(cell.config.threads for cell in planned.cells))
    return lambda config: measure(config, device)
