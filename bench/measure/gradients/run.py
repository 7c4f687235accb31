"""Runs planned profiles within a budget, several at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console

from bench.base.console import note, plain
from bench.base.files import read_rows
from bench.experiment.checks import cautions
from bench.measure.gradients.plan import Limits, PlannedProbes, unfinished
from bench.measure.gradients.work import ProbeWork
from bench.run import launch
from bench.run.experiment import Ended, command_line, places
from bench.run.gpus import on_this_machine
from bench.run.process import HowToRun
from bench.run.progress import tell_settings, watcher
from bench.run.store import ResultsDir, WorkState

LEAST = 1.0  # seconds of drawing that are granted at least; every profile makes one draw in any case


class Slots:
    """Shares the budget among the profiles that wait; what ends early leaves its time to them.

    The budget is of drawing: seconds in which a process loads its model are nobody's, or a small budget would
    end before the first draw.
    """

    def __init__(self, limits: Limits, jobs: int, works: Sequence[ProbeWork]) -> None:
        """works: all that will run, in order."""
        self.jobs, self.limits, self.works = jobs, limits, works
        self._before = [_drawn(work)[0] for work in works]
        self._granted: list[float] = []

    def __call__(self, waiting: int, running: list[float]) -> HowToRun:
        """waiting: this one included. running: not used, because loading is in it."""
        extra = []
        if self.limits.draws is not None:
            extra += ["--draws", str(self.limits.draws)]
        if self.limits.precision is not None:
            extra += ["--precision", str(self.limits.precision)]
        if self.limits.budget is not None:
            self._granted.append(self._share(self.limits.budget, waiting))
            extra += ["--timeout", str(self._granted[-1])]
        return HowToRun(extra=tuple(extra))

    def _share(self, budget: float, waiting: int) -> float:
        to_come = [_weight(work) for work in self.works[len(self.works) - waiting :]]
        free = self.jobs * budget - sum(self._used(n) for n in range(len(self._granted)))
        left = min(budget, free)
        # As many equal slots as fit one after the other, so that the last one is as long as the others.
        rounds = max(1, math.ceil(left * sum(to_come) / free - 0.25)) if free > 0 else 1
        return max(LEAST, min(left, to_come[0] * left / rounds))

    def _used(self, n: int) -> float:
        """Seconds of the budget that a started profile has: what it drew for, once it has ended."""
        if self.works[n].directory.status().state in (WorkState.PENDING, WorkState.RUNNING):
            return self._granted[n]
        draws, seconds = _drawn(self.works[n])
        return min(seconds, self._granted[n]) if draws > self._before[n] else 0.0


def _drawn(work: ProbeWork) -> tuple[int, float]:
    """The draws of a profile, and the seconds that its newest process has been drawing."""
    rows = read_rows(work.log)
    return (rows[-1]["step"], float(rows[-1].get("drawing", 0.0))) if rows else (0, 0.0)


def run(console: Console, planned: PlannedProbes, force: bool) -> Ended:
    """Measure."""
    todo = unfinished(planned, force)
    launch.check_disk(ResultsDir(planned.out), len(todo))
    gpus = on_this_machine()
    models = {p.model.name for p, _ in planned.probes}
    jobs = places(console, planned.jobs, gpus, 1, planned.probes[0][0].threads, models)
    ready, busy = launch.prepare(todo, force)
    at_once = min(jobs, max(len(ready), 1))
    kept = f", {len(planned.probes) - len(todo)} done before" if len(todo) < len(planned.probes) else ""
    told = f"{len(ready)} profiles, {at_once} at a time{kept}; results in {planned.out}"
    note(console, told)
    if planned.limits.budget is not None:
        told = f"{planned.limits.budget:g} s of drawing on each of {at_once} places; loading comes on top"
        note(console, told)
    tell_settings(ready)
    for text in cautions((work.config.method, work.config.model) for work in todo):
        plain(console, text, "yellow")
    with watcher(console, len(ready)) as progress:
        slots = Slots(planned.limits, at_once, ready)
        outcomes, interrupted = launch.run(ready, at_once, slots, progress, command_line(), gpus)
    if interrupted:
        return Ended(interrupted, True, (f"stopped. Go on with:\n  {command_line()}",))
    bad = [outcome for outcome in [*busy, *outcomes] if not outcome.ok]
    messages = (
        f"{one.work.title}: {one.status.state} after {one.status.step} draws: {one.status.message}\n"
        f"  see {one.work.directory.path}; the same command goes on"
        for one in bad
    )
    return Ended(int(bool(bad)), True, tuple(messages))


def _weight(work: ProbeWork) -> float:
    """Of the budget: double for the exact gradient, because all others are compared with it."""
    return 2.0 if work.config.deployed else 1.0
