"""Profiles planned cells one after the other and writes what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.base.console import plain, progress
from bench.base.errors import BenchError
from bench.experiment.settings import CellConfig
from bench.measure.cost import table
from bench.measure.cost.calibrate import FILE, Calibration, load
from bench.measure.cost.plan import PlannedCosts
from bench.measure.cost.step import trained
from bench.measure.cost.table import Profiled
from bench.measure.cost.usage import Usage


def run(console: Console, planned: PlannedCosts, calibration: Path | None) -> int:
    """Returns the exit code: 1 if a method that was named, or every one, could not be profiled.

    calibration: a file that seconds of simulated steps are predicted from; None: the results directory's, if
    it has one.
    """
    speed = _speed(planned, calibration)
    found, failed = list[Profiled](), list[str]()
    profile = _way(planned)
    for n, cell in enumerate(planned.cells, start=1):
        progress(f"{n} of {len(planned.cells)}: {cell.config.label}")
        try:
            usage = profile(cell.config)
            if speed is not None:
                usage = replace(usage, seconds=speed.predict(usage.operations))
            found.append(Profiled(cell, trained(cell.config), planned.mode, usage))
        except BenchError as error:
            failed.append(f"{cell.config.label}: {error}")
    if found:
        table.print_table(console, found)
        if speed is not None:
            console.print(_words(speed, found), style="dim", highlight=False)
        written = table.write(planned.out, found)
        drawn = [path for path in _figures(planned.out, found) if path.suffix == ".png"]
        for path in [*written, *drawn]:
            plain(console, f"wrote {path}")
    for message in failed:
        plain(console, message, "red")
    return 1 if failed and not (planned.everything and found) else 0


def calibrate(console: Console, planned: PlannedCosts) -> int:
    """Measure this device's throughput, and how well it predicts the planned cells. Returns the exit code."""
    from bench.measure.cost import calibrate as speed
    from bench.run.load import start

    configs = [cell.config for cell in planned.cells]
    _, device = start(max(config.threads for config in configs))
    with console.status("throughput of the model's parts"):
        found = speed.calibrate(configs[0], device)
    with console.status("checking it on short chains"):
        found = speed.check(found, configs, device)
    shown = Table("part", "GFLOP/s", title=f"{found.model}, {found.device}", title_justify="left", box=None)
    for part, rate in found.throughput.items():
        shown.add_row(part, table.number(rate / 1e9))
    checks = Table("method", "predicted s", "measured s", "error", box=None)
    for method, one in found.checks.items():
        checks.add_row(method, table.number(one.predicted), table.number(one.measured), f"{one.error:+.0%}")
    console.print(shown, checks)
    plain(console, f"wrote {found.save(planned.out)}")
    return 0


def _speed(planned: PlannedCosts, path: Path | None) -> Calibration | None:
    if planned.mode == "measured":
        return None
    own = planned.out / FILE
    return load(path or own) if path is not None or own.is_file() else None


def _words(speed: Calibration, found: Sequence[Profiled]) -> str:
    """Where predicted seconds come from and how far they were off."""
    error = "unchecked" if speed.error is None else f"off by up to {speed.error:.0%} on short chains there"
    model = found[0].cell.config.model.name
    other = "" if model == speed.model else f" Calibrated with {speed.model}, not {model}."
    return f"s: predicted from the throughput of {speed.device}, {speed.threads} threads; {error}.{other}"


def _figures(out: Path, found: list[Profiled]) -> list[Path]:
    """What the peaks consist of, and the course of one step: RLR's where it was profiled."""
    from bench.measure.cost import figures

    rows = [
        figures.Setting(
            method=one.training.method.name,
            graphs=one.training.train.least_graphs,
            steps=one.cell.config.model.config.steps,
            h=table.block(one.training),
            peak=one.usage.device,
            flops=one.usage.flops,
            seconds=None if one.usage.seconds is None else one.usage.seconds.total,
            components=one.usage.components,
        )
        for one in found
    ]
    shown = next((one for one in found if one.training.method.name == "rlr"), found[0])
    return figures.draw(out, rows, {f"One step of {shown.training.method.name}": shown.usage.timeline})


def _way(planned: PlannedCosts) -> Callable[[CellConfig], Usage]:
    if planned.mode == "simulated":
        from bench.measure.cost.simulate import Simulator

        return Simulator()
    from bench.measure.cost.measure import measure
    from bench.run.load import start

    _, device = start(max(cell.config.threads for cell in planned.cells))
    return lambda config: measure(config, device)
