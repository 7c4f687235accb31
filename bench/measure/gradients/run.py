"""Runs planned profiles within a budget, several at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from rich.console import Console

from bench.measure.gradients.plan import Limits, PlannedProbes, unfinished
from bench.measure.gradients.work import ProbeWork
from bench.run import launch
from bench.run.experiment import INTERRUPTED, Ended, command_line, default_jobs
from bench.run.process import HowToRun
from bench.run.progress import watcher
from bench.run.store import ResultsDir

RESERVE = 15.0  # seconds for tables and figures at the end
LEAST = 10.0  # seconds that a process needs to load and draw at all


class Slots:
    """Shares what is left of the budget among those that wait; what ends early leaves its time to them."""

    def __init__(self, limits: Limits, jobs: int, shares: Sequence[float], started: float) -> None:
        """shares: of each that will run, in order. started: when the budget began, on the monotonic clock."""
        self.jobs, self.limits, self.shares = jobs, limits, shares
        self.deadline = None if limits.budget is None else started + limits.budget - RESERVE

    def __call__(self, waiting: int, running: list[float]) -> HowToRun:
        """waiting: this one included. running: seconds that the others still have."""
        extra = []
        if self.limits.draws is not None:
            extra += ["--draws", str(self.limits.draws)]
        if self.limits.precision is not None:
            extra += ["--precision", str(self.limits.precision)]
        if self.deadline is None:
            return HowToRun(extra=tuple(extra))
        left = max(0.0, self.deadline - time.monotonic())
        to_come = self.shares[len(self.shares) - waiting :]
        free = self.jobs * left - sum(min(r, left) for r in running)
        # As many equal slots as fit one after the other, so that the last one is as long as the others.
        rounds = max(1, math.ceil(left * sum(to_come) / free - 0.25)) if free > 0 else 1
        share = to_come[0] * left / rounds
        return HowToRun(timeout=max(LEAST, min(left, share)), extra=tuple(extra))


def run(console: Console, planned: PlannedProbes, force: bool, started: float) -> Ended:
    """Measure. started: when the budget began, on the monotonic clock."""
    todo = unfinished(planned, force)
    launch.check_disk(ResultsDir(planned.out), len(todo))
    ready, busy = launch.prepare(todo, force)
    jobs = planned.jobs or default_jobs(
        planned.probes[0][0].threads, {p.model.name for p, _ in planned.probes}
    )
    at_once = min(jobs, max(len(ready), 1))
    kept = f", {len(planned.probes) - len(todo)} done before" if len(todo) < len(planned.probes) else ""
    told = f"{len(ready)} profiles, {at_once} at a time{kept}; results in {planned.out}"
    console.print(told, soft_wrap=True)
    with watcher(console, len(ready)) as progress:
        slots = Slots(planned.limits, at_once, [_share(work) for work in ready], started)
        outcomes, interrupted = launch.run(ready, at_once, slots, progress, command_line())
    if interrupted:
        return Ended(INTERRUPTED, True, (f"stopped. Go on with:\n  {command_line()}",))
    bad = [outcome for outcome in [*busy, *outcomes] if not outcome.ok]
    messages = (
        f"{one.work.title}: {one.status.state} after {one.status.step} draws: {one.status.message}\n"
        f"  see {one.work.directory.path}; the same command goes on"
        for one in bad
    )
    return Ended(int(bool(bad)), True, tuple(messages))


def _share(work: ProbeWork) -> float:
    """Of the budget: double for the exact gradient, because all others are compared with it."""
    return 2.0 if work.config.deployed else 1.0
