"""Whether a record's final runs keep the protocol: all seeds, chosen settings, the budget, whole scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bench.base.units import duration
from bench.protocol.faults import ANEW, GO_ON, Fault, at, same
from bench.protocol.reading import CURVES, DONE, ENDED, RUNS, SCORES, Run, Suite, Tables, column
from bench.protocol.workload import Workload
from bench.report.load import BASE

ROUNDING = 1e-5  # of numbers with six digits
MISSED = "missed"


def run_faults(suite: Suite, name: str, tables: Tables, workload: Workload) -> Iterator[Fault]:
    """Faults of runs.csv, curves.csv and scores.csv of one workload."""
    yield from _complete(suite, name, tables)
    for run in tables.runs:
        if not _known(suite, name, run):
            what = f"{_named(run)}: suite.yaml knows no such run"
            yield Fault(at(tables.folder / RUNS, run.line), what, ANEW)
            continue
        yield from _run(suite, tables, workload, run)
        if run.state == DONE:
            yield from _scores(tables, workload, run)
    yield from _strangers(tables)


def _strangers(tables: Tables) -> Iterator[Fault]:
    """Lines and columns of runs that runs.csv does not have, and lines of scores that are there twice."""
    known = {(run.method, run.seed) for run in tables.runs} | {(BASE, None)}
    first = {(point.method, point.seed): point.line for point in reversed(tables.curves)}
    for method, seed in sorted(first.keys() - known, key=first.__getitem__):
        where = at(tables.folder / CURVES, first[method, seed])
        yield Fault(where, f"{method}, seed {seed}: {RUNS} has no such run", ANEW)
    columns = {column(method, seed) for method, seed in known}
    for name in dict.fromkeys(name for line in tables.scores for name in line.runs):
        if name not in columns:
            yield Fault(at(tables.folder / SCORES, 1), f"column {name}: {RUNS} has no such run", ANEW)
    seen = set[tuple[str, str]]()
    for line in tables.scores:
        if (line.prompt, line.reward) in seen:
            what = f"{line.reward} of {line.prompt!r} is there twice"
            yield Fault(at(tables.folder / SCORES, line.line), what, ANEW)
        seen.add((line.prompt, line.reward))


def _known(suite: Suite, name: str, run: Run) -> bool:
    if run.method == BASE:
        return run.seed is None
    return run.method in suite.takes_part(name) and run.seed is not None and 0 <= run.seed < suite.seeds


def _named(run: Run) -> str:
    return "the base model" if run.method == BASE else f"{run.method}, seed {run.seed}"


def _complete(suite: Suite, name: str, tables: Tables) -> Iterator[Fault]:
    """Every run of every method is there once, and so is the base model."""
    there = [(run.method, run.seed) for run in tables.runs]
    wanted = [(BASE, None), *((m, seed) for m in suite.takes_part(name) for seed in range(suite.seeds))]
    for method, seed in wanted:
        count = there.count((method, seed))
        if count != 1:
            who = "the base model" if method == BASE else f"{method}, seed {seed}"
            what = f"{who} is {'not there' if not count else 'there twice'}"
            yield Fault(at(tables.folder / RUNS), what, GO_ON if not count else ANEW, missing=not count)


def _run(suite: Suite, tables: Tables, workload: Workload, run: Run) -> Iterator[Fault]:
    """Of one run by itself: how it ended, with which settings, and what it has spent."""
    where = at(tables.folder / RUNS, run.line)
    if run.state not in ENDED:
        yield Fault(where, f"{_named(run)}: {run.state}", GO_ON, missing=True)
        return
    if run.method == BASE:
        return
    if run.study != (run.seed or 0) % suite.studies:
        what = f"{_named(run)}: takes the choice of study {run.study}, not {(run.seed or 0) % suite.studies}"
        yield Fault(where, what, ANEW)
    elif tables.chosen is not None:
        choices = tables.chosen.methods.get(run.method, ())
        settings = next((choice.settings for choice in choices if choice.study == run.study), None)
        if settings is None and run.state != MISSED:
            what = f"{_named(run)}: {run.state}, and its study chose no settings: it is a miss"
            yield Fault(where, what, ANEW)
        elif settings is not None and (run.state == MISSED or not same(settings, run.settings)):
            what = f"{_named(run)}: its settings are not what study {run.study} chose"
            yield Fault(where, what, "run it with the chosen ones, as `bench suite` does")
    yield from _spent(workload, run, where)


def _spent(workload: Workload, run: Run, where: str) -> Iterator[Fault]:
    """No budget is exceeded by more than an average step: where batches cost unequally, as those of a random
    length do, the last one is judged by the average of those before it."""
    if isinstance(workload.budget, str):
        spent, most, unit = run.seconds, duration(workload.budget, "budget"), "seconds"
    else:
        spent, most, unit = run.forwards, float(workload.budget), "forward equivalents"
    if spent is None:
        if run.state == DONE:
            yield Fault(where, f"{_named(run)}: no {unit}", ANEW)
    elif spent > (most + spent / max(run.steps or 1, 1)) * (1 + ROUNDING):
        what = f"{_named(run)}: spent {spent:.6g} {unit}, and the budget is {most:.6g}"
        yield Fault(where, what, "run it within the budget, as `bench suite` does")


def _scores(tables: Tables, workload: Workload, run: Run) -> Iterator[Fault]:
    """A finished run has scores of every prompt in every reward, which its curve ends in."""
    path, name = tables.folder / SCORES, column(run.method, run.seed)
    base = tables.by_prompt(BASE, None, workload.reward)
    for reward in workload.scored:
        scores = tables.by_prompt(run.method, run.seed, reward)
        if scores is None:
            yield Fault(at(path), f"{_named(run)}: no scores in {reward}", ANEW)
        elif len(scores) != workload.reported.prompts:
            empty = (line.line for line in tables.scores_in(reward) if name not in line.runs)
            what = f"{_named(run)}: scores of {len(scores)} prompts in {reward}"
            do = f"score the {workload.reported.prompts} prompts that are reported"
            yield Fault(at(path, next(empty, None)), what, do)
        elif base is not None and list(scores.index) != list(base.index):
            what = f"{_named(run)}: the prompts scored in {reward} are not those of the base model"
            yield Fault(at(path), what, "score the prompts that are reported")
    if run.method == BASE:
        return
    for reward in workload.scored:
        yield from _curve(tables, run, reward)


def _curve(tables: Tables, run: Run, reward: str) -> Iterator[Fault]:
    curve, path = tables.curve(run.method, run.seed, reward), tables.folder / CURVES
    if not curve:
        yield Fault(at(path), f"{_named(run)}: no evaluations in {reward}", ANEW)
        return
    last, scores = curve[-1], tables.by_prompt(run.method, run.seed, reward)
    if run.steps is not None and last.step != run.steps:
        what = f"{_named(run)}: the last evaluation is of step {last.step:g}, and the run took {run.steps:g}"
        yield Fault(at(path, last.line), what, ANEW)
    if scores is not None and not _agree(last.score, scores.tolist()):
        what = f"{_named(run)}: {reward} ends at {last.score:.6g}, and {SCORES} has {scores.mean():.6g}"
        yield Fault(at(path, last.line), what, ANEW)


def _agree(mean: float, scores: Sequence[float]) -> bool:
    """Whether a mean is that of some scores, all of six digits."""
    largest = max(map(abs, scores), default=0.0)
    return math.isclose(mean, sum(scores) / len(scores), abs_tol=2 * ROUNDING * largest)
