"""Whether a record's final runs keep the protocol: all seeds, chosen settings, the budget, whole scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import product

from bench.base.units import duration
from bench.protocol.faults import ANEW, Fault, at, not_yet, once, same
from bench.protocol.reading import CURVES, DONE, ENDED, RUNS, SCORES, Run, Suite, Tables, called, column
from bench.protocol.workload import Workload
from bench.report.load import BASE

ROUNDING = 1e-5  # of numbers with six digits
MISSED = "missed"
AS_SUITE = "as `bench suite` does"


def run_faults(suite: Suite, name: str, tables: Tables, workload: Workload) -> Iterator[Fault]:
    """Faults of runs.csv, curves.csv and scores.csv of one workload."""
    path, there = tables.folder / RUNS, Counter((run.method, run.seed) for run in tables.runs)
    wanted = [(BASE, None), *product(suite.takes_part(name), range(suite.seeds))]
    for method, seed in wanted:
        yield from once(path, called(method, seed), there[method, seed])
    for run in tables.runs:
        where = at(path, run.line)
        if (run.method, run.seed) not in wanted:
            yield Fault(where, f"{run.name}: suite.yaml knows no such run")
        elif run.state not in ENDED:
            yield not_yet(where, f"{run.name}: {run.state}")
        else:
            for what, do in (*_settings(suite, tables, run), *_spent(workload, run)):
                yield Fault(where, f"{run.name}: {what}", do)
            if run.state == DONE:
                yield from _scores(tables, workload, run)
                yield from _curves(tables, workload, run)
    yield from _strangers(tables)


def _settings(suite: Suite, tables: Tables, run: Run) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) of a run that does not have the settings of its study."""
    if run.seed is None:  # the base model
        return
    if run.study != run.seed % suite.studies:
        yield f"takes the choice of study {run.study}, not {run.seed % suite.studies}", ANEW
    elif tables.chosen is not None:
        choices = tables.chosen.methods.get(run.method, ())
        settings = next((choice.settings for choice in choices if choice.study == run.study), None)
        if settings is None and run.state != MISSED:
            yield f"{run.state}, and its study chose no settings: it is a miss", ANEW
        elif settings is not None and (run.state == MISSED or not same(settings, run.settings)):
            yield (
                f"its settings are not what study {run.study} chose",
                f"run it with the chosen ones, {AS_SUITE}",
            )


def _spent(workload: Workload, run: Run) -> Iterator[tuple[str, str]]:
    """No budget is exceeded by more than an average step: where batches cost unequally, as those of a random
    length do, the last one is judged by the average of those before it."""
    if run.seed is None:
        return
    if isinstance(workload.budget, str):
        spent, most, unit = run.seconds, duration(workload.budget, "budget"), "seconds"
    else:
        spent, most, unit = run.forwards, float(workload.budget), "forward equivalents"
    if spent is None:
        if run.state == DONE:
            yield f"no {unit}", ANEW
    elif spent > (most + spent / max(run.steps or 1, 1)) * (1 + ROUNDING):
        yield (
            f"spent {spent:.6g} {unit}, and the budget is {most:.6g}",
            f"run it within the budget, {AS_SUITE}",
        )


def _scores(tables: Tables, workload: Workload, run: Run) -> Iterator[Fault]:
    """A finished run has scores of every prompt in every reward."""
    path, prompts = tables.folder / SCORES, workload.reported.prompts
    base = tables.by_prompt(BASE, None, workload.reward)
    for reward in workload.scored:
        scores = tables.by_prompt(run.method, run.seed, reward)
        if scores is None:
            yield Fault(at(path), f"{run.name}: no scores in {reward}")
        elif len(scores) != prompts:
            own = column(run.method, run.seed)
            empty = next((line.line for line in tables.scores_in(reward) if own not in line.runs), None)
            what = f"{run.name}: scores of {len(scores)} prompts in {reward}"
            yield Fault(at(path, empty), what, f"score the {prompts} prompts that are reported")
        elif base is not None and list(scores.index) != list(base.index):
            what = f"{run.name}: the prompts scored in {reward} are not those of the base model"
            yield Fault(at(path), what, "score the prompts that are reported")


def _curves(tables: Tables, workload: Workload, run: Run) -> Iterator[Fault]:
    """Its curves end in the means of these, at its last step."""
    path = tables.folder / CURVES
    for reward in workload.scored if run.seed is not None else ():
        curve = tables.curve(run.method, run.seed, reward)
        if not curve:
            yield Fault(at(path), f"{run.name}: no evaluations in {reward}")
            continue
        last, scores = curve[-1], tables.by_prompt(run.method, run.seed, reward)
        where = at(path, last.line)
        if run.steps is not None and last.step != run.steps:
            what = f"the last evaluation is of step {last.step:g}, and the run took {run.steps:g}"
            yield Fault(where, f"{run.name}: {what}")
        rounding = 2 * ROUNDING * (0.0 if scores is None else float(scores.abs().max()))
        if scores is not None and not math.isclose(last.score, scores.mean(), abs_tol=rounding):
            what = f"{reward} ends at {last.score:.6g}, and {SCORES} has {scores.mean():.6g}"
            yield Fault(where, f"{run.name}: {what}")


def _strangers(tables: Tables) -> Iterator[Fault]:
    """Lines and columns of runs that runs.csv does not have, and lines of scores that are there twice."""
    known = {(run.method, run.seed) for run in tables.runs} | {(BASE, None)}
    first = {(point.method, point.seed): point.line for point in reversed(tables.curves)}
    for method, seed in sorted(first.keys() - known, key=first.__getitem__):
        what = f"{called(method, seed)}: {RUNS} has no such run"
        yield Fault(at(tables.folder / CURVES, first[method, seed]), what)
    columns = {column(method, seed) for method, seed in known}
    for name in dict.fromkeys(name for line in tables.scores for name in line.runs):
        if name not in columns:
            yield Fault(at(tables.folder / SCORES, 1), f"column {name}: {RUNS} has no such run")
    seen = set[tuple[str, str]]()
    for line in tables.scores:
        if (line.prompt, line.reward) in seen:
            what = f"{line.reward} of {line.prompt!r} is there twice"
            yield Fault(at(tables.folder / SCORES, line.line), what)
        seen.add((line.prompt, line.reward))
