"""What a leaderboard says of a method on a workload: pure functions of a record's tables.

Gain at the budget: scores are paired by prompt; prompts and runs are random effects (bench.report.stats).

Time to target, as AlgoPerf has it (Dahl et al. 2023, arXiv:2306.07179): what a run has spent, in forward
equivalents, when its held-out curve first reaches the workload's target. A run that never does, failed, or
had no settings because tuning missed takes infinitely long, and takes part.

Performance profile (Dolan & Moré 2002): on which share of the workloads a method is at most τ times as slow
as the fastest method there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import pandas as pd

from bench.protocol.reading import DONE, ENDED, Point, Tables
from bench.protocol.workload import direction
from bench.report.load import BASE
from bench.report.over_optimised import collapse_step
from bench.report.stats import NOTHING, Estimate, estimate, side_by_side
from bench.report.tables import CLEAR, tone
from bench.report.target import crossing
from bench.run.evaluations import DIVERSITY

LARGEST_RATIO = 4.0  # τ up to which a profile is integrated: AlgoPerf's
DRAWS, HELD = 1000, 0.9  # of runs for the range of a profile's integral, and the share of them that it holds

Times = Mapping[str, float]  # workload → median time of a method


def scored(tables: Tables, method: str, reward: str) -> Estimate:
    """Mean held-out score of a method's finished runs."""
    return _estimate(list(_finished(tables, method, reward).values()))


def gain(tables: Tables, method: str, reward: str, seeds: int) -> Estimate:
    """Mean difference of a method's finished runs to the base model, prompt by prompt.

    Its p, here and in `over`, is nan unless all `seeds` runs are finished: of runs that are chosen by how
    they end, or of a suite that is looked at half way, nothing is claimed.
    """
    base = tables.by_prompt(BASE, None, reward)
    if base is None:
        return NOTHING
    return _of_all([run.sub(base).dropna() for run in _finished(tables, method, reward).values()], seeds)


def over(tables: Tables, method: str, other: str, reward: str, seeds: int) -> Estimate:
    """Mean difference of a method's runs to another's of the same seed, prompt by prompt."""
    left, right = _finished(tables, method, reward), _finished(tables, other, reward)
    return _of_all([left[seed].sub(right[seed]).dropna() for seed in left if seed in right], seeds)


def _finished(tables: Tables, method: str, reward: str) -> dict[int | None, pd.Series]:
    """Seed → scores of the finished runs."""
    found = {r.seed: tables.by_prompt(method, r.seed, reward) for r in tables.of(method) if r.state == DONE}
    return {seed: scores for seed, scores in found.items() if scores is not None}


def _of_all(runs: Sequence[pd.Series], seeds: int) -> Estimate:
    found = _estimate(runs)
    return found if len(runs) == seeds else replace(found, p=math.nan)


def _estimate(runs: Sequence[pd.Series]) -> Estimate:
    return estimate(side_by_side(runs)) if runs else NOTHING


def times(tables: Tables, method: str, reward: str, target: float) -> list[float]:
    """Time to target, in forward equivalents, of every run of a method that has ended."""
    base, sign = tables.base(reward), direction(reward)
    ended = [run for run in tables.of(method) if run.state in ENDED]
    return [
        time_to_target(tables.curve(method, run.seed, reward), base, target, sign)
        if run.state == DONE
        else math.inf
        for run in ended
    ]


def time_to_target(curve: Sequence[Point], base: float, target: float, sign: int = 1) -> float:
    """Forward equivalents at which a held-out curve first reaches a target; infinite if it never does.

    The curve goes straight from evaluation to evaluation, and begins at 0 with the base model's score. sign:
    1 where a score from the target up counts, -1 where one from the target down does.
    """
    points = [(point.forwards or 0.0, sign * point.score) for point in curve]
    return crossing([(0.0, sign * base), *points], sign * target)


def median_time(found: Sequence[float]) -> float:
    """Median over runs; nan of none.

    Of an even number it is the mean of the two middle ones, infinite if one of them is: a method solves a
    workload only if more than half of its runs do. The lower median would call it solved by luck in half.
    """
    return median(found) if found else math.nan


def ratios(found: Mapping[str, Times]) -> dict[str, dict[str, float]]:
    """Method → workload → its time over that of the fastest method. found: method → its times.

    A method without a time on a workload, for whatever reason, takes infinitely long there. Workloads that
    nobody solves are left out.
    """
    everywhere = sorted({workload for times in found.values() for workload in times})
    filled = {m: {w: _known(times, w) for w in everywhere} for m, times in found.items()}
    best = {w: min(times[w] for times in filled.values()) for w in everywhere}
    solved = [w for w in everywhere if math.isfinite(best[w])]
    return {m: {w: _ratio(times[w], best[w]) for w in solved} for m, times in filled.items()}


def _known(times: Times, workload: str) -> float:
    return times[workload] if workload in times and not math.isnan(times[workload]) else math.inf


def _ratio(time: float, best: float) -> float:
    """1 for the best, also where its time is 0: a target that the base model reaches."""
    return 1.0 if time == best else time / best if best > 0 else math.inf


def profile(found: Sequence[float], tau: float) -> float:
    """The share of workloads on which a method is within tau times the best. found: its ratios."""
    return sum(ratio <= tau for ratio in found) / len(found) if found else math.nan


def integral(found: Sequence[float], largest: float = LARGEST_RATIO) -> float:
    """Mean of the profile over tau from 1 to `largest`: 1 for a method that is fastest on all workloads, 0
    for one that is never within `largest` times the best. found: its ratios; nan of none."""
    if not found:
        return math.nan
    return sum(max(0.0, largest - ratio) for ratio in found) / (largest - 1) / len(found)


def integral_ranges(runs: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, tuple[float, float]]:
    """Method → between which values nine tenths of its profile's integrals lie if runs are drawn anew.

    runs: method → workload → times of its runs. A draw takes as many of them as there are, with replacement
    (bootstrap), each method and workload for itself. Draws are the same each time. nan where no draw has a
    workload that somebody solves.
    """
    rng = np.random.default_rng(0)
    medians = {m: {w: _drawn(times, rng) for w, times in own.items()} for m, own in runs.items()}
    draws = [
        ratios({m: {w: drawn[n] for w, drawn in own.items()} for m, own in medians.items()})
        for n in range(DRAWS)
    ]
    return {m: _middle([integral(list(found[m].values())) for found in draws]) for m in runs}


def _drawn(times: Sequence[float], rng: np.random.Generator) -> list[float]:
    """The median time of each draw."""
    if not times:
        return [math.nan] * DRAWS
    return [median_time(some) for some in rng.choice(np.asarray(times), (DRAWS, len(times))).tolist()]


def _middle(found: Sequence[float]) -> tuple[float, float]:
    known = [value for value in found if not math.isnan(value)]
    if not known:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - HELD) / 2, (1 + HELD) / 2]).tolist()
    return low, high


@dataclass(frozen=True)
class Collapse:
    """How many of a method's finished runs collapsed, and the median step from which on (nan: none did)."""

    runs: int
    of: int
    step: float


def collapses(tables: Tables, method: str) -> Collapse:
    """What became of the diversity of a method's finished runs."""
    base = tables.base(DIVERSITY)
    curves = [tables.curve(method, run.seed, DIVERSITY) for run in tables.of(method) if run.state == DONE]
    steps = [collapse_step({int(point.step): point.score for point in curve}, base) for curve in curves]
    found = [step for step in steps if step is not None]
    return Collapse(len(found), len(curves), median(found) if found else math.nan)


def over_optimised(trained: Estimate, untouched: Mapping[str, Estimate], reward: str) -> bool:
    """Whether the trained reward clearly rises while every untouched one clearly falls (p below CLEAR each).

    Rises and falls are meant as better and worse where a reward counts downwards.
    """
    rises = tone(trained) * direction(reward) > 0
    return rises and bool(untouched) and all(tone(e) * direction(r) < 0 for r, e in untouched.items())


def improves(claim: Estimate, p: float, reward: str) -> bool:
    """Whether a claimed difference, with its adjusted p, is one for the better."""
    return p < CLEAR and claim.mean * direction(reward) > 0
