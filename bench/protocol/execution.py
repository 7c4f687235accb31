"""Doing a suite: what is left of it here or by SLURM, and what there is to say about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console

from bench.base.columns import print_columns, texts
from bench.base.console import note, plain
from bench.base.units import duration
from bench.experiment import missing
from bench.experiment.request import Experiment
from bench.protocol import record, tune
from bench.protocol.suite import Part, RunState, Suite, check, final, hopeless, runs, state
from bench.run import experiment
from bench.run.process import HowToRun
from bench.run.slurm import sweep
from bench.run.slurm.sweep import SweepRequest


def run(console: Console, suite: Suite, jobs: int | None) -> int:
    """Run what is left on this machine, `jobs` cells at a time, and write the record after each part.

    Returns the exit code: 0 if all final runs are done, as for `tell`; 130 or 143 after an interruption.
    """
    show_sitting_out(console, suite)
    for title, what in _stages(suite):
        note(console, title)
        ended = experiment.run(console, experiment.plan(what, force=False), jobs, HowToRun(1, None))
        record.write(suite)
        ended.tell(console)
        if ended.code > 1:  # interrupted
            return ended.code
    return tell(console, suite)


def _stages(suite: Suite) -> Iterator[tuple[str, Experiment]]:
    """What runs next, and what it is called; each is planned when those before it are done."""
    for part in suite.parts:
        yield f"{part.name}: tuning", part.tuning.experiment
        yield f"{part.name}: final runs", final(part, runs(suite, part))


def submit(console: Console, suite: Suite, asked: SweepRequest) -> int:
    """Send to SLURM what can run now: trials, and final runs whose study has chosen. Returns the exit code.

    What failed is not sent again; `retry` does that.
    """
    show_sitting_out(console, suite)
    for part in suite.parts:
        found = [one for one in runs(suite, part) if state(part, one) is RunState.LEFT]
        left = [one for one in found if not hopeless(part, one)]
        for what in (tune.unfinished(part.tuning), final(part, left)):
            if what.combinations and (code := sweep.submit(console, what, asked)):
                return code
    if asked.dry_run:
        return 0
    record.write(suite)
    return tell(console, suite, sent=True)


def tell(console: Console, suite: Suite, sent: bool = False) -> int:
    """Say how far the suite is and how it goes on. Returns 0 if all final runs are done, else 1.

    sent: what is left waits for SLURM, which is no failure. Raises BenchError for what failed and is no miss.
    """
    states: list[RunState] = []
    for part in suite.parts:
        own = [state(part, one) for one in runs(suite, part)]
        states += own
        counts = ", ".join(f"{own.count(kind)} {kind}" for kind in RunState if kind in own)
        left, trials = len(tune.waiting(part.tuning)), len(part.tuning.trials)
        plain(console, f"{part.name}: {trials - left} of {trials} trials have ended; final runs: {counts}")
    plain(console, f"record: {suite.out / record.RECORD}")
    check(suite)
    if RunState.LEFT in states:
        when = "When the jobs have ended, the same command" if sent else "The same command"
        plain(console, f"{when} goes on:\n  {experiment.command_line()}", "yellow")
        return int(not sent)
    return int(any(one is not RunState.DONE for one in states))


class _Share(NamedTuple):
    """What a workload takes: trials, final runs, how many cells of both are left, and what they may spend."""

    trials: int
    finals: int
    left: int
    forwards: int  # forward equivalents
    seconds: float


def show(console: Console, suite: Suite) -> None:
    """What would run: cells and cost of every workload, and what has to be fetched first.

    Checks all that a run checks. Nothing is fetched or written. Raises BenchError for what could not run.
    """
    shares = [_share(suite, part) for part in suite.parts]
    shares.append(_Share(*(sum(column) for column in zip(*shares, strict=True))))
    budgets = [str(part.workload.budget) for part in suite.parts]
    columns = (
        texts("methods", [*(str(len(part.methods)) for part in suite.parts), str(len(suite.methods))]),
        texts("trials", [f"{share.trials:,}" for share in shares]),
        texts("final runs", [f"{share.finals:,}" for share in shares]),
        texts("left", [f"{share.left:,}" for share in shares]),
        texts("budget", [*budgets, ""]),
        texts("to spend", [_spending(share) for share in shares]),
    )
    names = texts("workload", [*(part.name for part in suite.parts), "all"], left=True)
    print_columns(console, names, columns, [""] * len(shares), [len(suite.parts)])
    plain(
        console, "To spend, by all that is left: at most so many forward equivalents, or hours of training."
    )
    show_sitting_out(console, suite)
    for part in suite.parts:
        missing.show(
            console, part.everything, experiment.plan(part.everything, force=False, fetch=False).cells
        )


def _share(suite: Suite, part: Part) -> _Share:
    planned = runs(suite, part)
    left = [one for one in planned if state(part, one) is RunState.LEFT]
    trials = {trial.cell for trial in tune.waiting(part.tuning)}
    trained = len(trials) + sum(one.seed is not None for one in left)
    budget = part.workload.budget
    seconds = duration(budget, "budget") if isinstance(budget, str) else 0.0
    forwards = 0 if isinstance(budget, str) else budget
    return _Share(
        trials=len(part.tuning.trials),
        finals=len(planned),
        left=len(trials) + len(left),
        forwards=forwards * trained,
        seconds=seconds * trained,
    )


def _spending(share: _Share) -> str:
    parts = [f"{share.forwards:,}"] if share.forwards or not share.seconds else []
    parts += [f"{share.seconds / 3600:.1f} h"] if share.seconds else []
    return " and ".join(parts)


def show_sitting_out(console: Console, suite: Suite) -> None:
    """One line for every workload that some methods cannot take part in."""
    for part in suite.parts:
        if part.sits_out:
            names = ", ".join(part.sits_out)
            why = f"{part.workload.reward} has no gradient to give"
            plain(console, f"{part.name}: {names} sit{'s' * (len(part.sits_out) == 1)} out: {why}", "yellow")
