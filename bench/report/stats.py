"""Paired statistics over held-out pictures.

Every method and the untuned model draw the same pictures (same prompt, same starting noise), so a gain is a
mean of differences of matching pictures. Pictures of one prompt are not independent of each other: with two
prompts or more the prompt is the unit, otherwise the picture is. Seeds are a second kind of unit, crossed
with the first: a training run that got lucky is lucky on all prompts. So one seed says nothing about another
run of the method: its interval is over prompts only, and no claim is made of it.

Crossed model: score = mean + unit + seed + rest, all three random. The spread of the units' means shows the
parts of unit and rest, that of the seeds' means the parts of seed and rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from scipy import optimize, special, stats

PAIR = ["prompt", "image"]
LEVEL = 0.95  # of intervals
LEAST_UNITS, LEAST_SEEDS = 3, 2  # for a claim
LEAST_PAIRS = 3  # of runs with one seed: two pairs have one degree of freedom, their four runs have two


@dataclass(frozen=True)
class Estimate:
    """A mean over `units` (prompts, or pictures of the only prompt) and `seeds` runs.

    se: standard error; low, high: 95 % interval; p: two-sided, that the mean is zero. With one seed they are
    of its prompts alone. nan where one unit leaves no spread to measure, or was not asked for.
    """

    mean: float
    se: float
    low: float
    high: float
    p: float
    units: int
    seeds: int

    @property
    def claims(self) -> bool:
        """Whether there are seeds and units enough to say something about the method, not just of a run."""
        return self.seeds >= LEAST_SEEDS and self.units >= LEAST_UNITS and math.isfinite(self.p)


NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0)


def by_picture(rows: pd.DataFrame) -> pd.Series:
    """Scores of one reward at one evaluation, indexed by (prompt, image).

    A figure of the whole evaluation (both null) stands under ("", 0): one unit.
    """
    named = rows.assign(prompt=rows["prompt"].fillna(""), image=rows["image"].fillna(0).astype(int))
    return cast(pd.Series, named.groupby(PAIR, sort=True)["score"].mean())


def by_prompt(scores: pd.Series) -> pd.Series:
    """Scores by picture as means of prompts, which are then the only picture of each."""
    means = cast(pd.Series, scores.groupby(level="prompt", sort=True).mean())
    return by_picture(means.rename("score").reset_index().assign(image=0))


def side_by_side(runs: Sequence[pd.Series], base: pd.Series | None = None) -> pd.DataFrame:
    """Pictures that every run (and the base) has, one column per run; minus the base's score if given."""
    table = pd.concat(list(runs), axis=1, join="inner", keys=range(len(runs)))
    if base is not None:
        table = table.loc[table.index.intersection(base.index)]
        table = table.sub(base.loc[table.index], axis=0)
    return table.dropna().sort_index()


def estimate(table: pd.DataFrame, interval: bool = True) -> Estimate:
    """Mean, standard error, interval and p of a [pictures x seeds] table from `side_by_side`."""
    values = _units(table)
    if values.size == 0:
        return NOTHING
    mean, half, p = float(values.mean()), math.nan, math.nan
    if interval and len(values) > 1:
        half, p = float(half_width(values)), p_value(values)
    return Estimate(mean, float(standard_error(values)), mean - half, mean + half, p, *values.shape)


class Parts(NamedTuple):
    """Variances of the mean of values [..., units, seeds]: as the spread of the units' means has it (parts of
    unit and rest), as that of the seeds' means has it (seed and rest), and of the rest alone."""

    by_unit: np.ndarray
    by_seed: np.ndarray
    rest: np.ndarray


def parts(values: np.ndarray) -> Parts:
    """values: [..., units, seeds], two or more of both. Unbiased."""
    *_, units, seeds = values.shape
    of_units, of_seeds = values.mean(axis=-1), values.mean(axis=-2)
    rest = (_rest(values) ** 2).sum(axis=(-2, -1))
    return Parts(
        of_units.var(axis=-1, ddof=1) / units,
        of_seeds.var(axis=-1, ddof=1) / seeds,
        rest / ((units - 1) * (seeds - 1)) / (units * seeds),
    )


def standard_error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean of values [..., units, seeds]; nan of one unit.

    One seed: std / sqrt(units). Several: of the crossed model; a part that comes out negative counts as zero.
    """
    *others, units, seeds = values.shape
    if units < 2:
        return np.full(others, math.nan)
    if seeds < 2:
        return values[..., 0].std(axis=-1, ddof=1) / math.sqrt(units)
    by_unit, by_seed, rest = parts(values)
    return np.sqrt(rest + np.maximum(by_unit - rest, 0.0) + np.maximum(by_seed - rest, 0.0))


class Chance(NamedTuple):
    """A part of the variance of a mean, and the degrees of freedom with which it is known."""

    variance: np.ndarray
    freedom: int


def half_width(values: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Half of the interval for the mean of values [..., units, seeds], two units or more.

    Student's t has units - 1 degrees of freedom for what units contribute and seeds - 1 for seeds, which the
    rest is counted with; the squares of both halves add up (variance estimates recovery: Zou & Donner 2008).
    A t with Satterthwaite's degrees of freedom covers as little as 88 % with two seeds; this covers 94 % to
    99 % with two and 94 % to 98 % with three and more (tests/report/test_stats.py).
    """
    return _half_width(_chances(values), level)


def _chances(values: np.ndarray) -> list[Chance]:
    *_, units, seeds = values.shape
    if seeds < 2:
        return [Chance(standard_error(values) ** 2, units - 1)]
    by_unit, by_seed, rest = parts(values)
    return [Chance(np.maximum(by_unit - rest, 0.0), units - 1), Chance(by_seed, seeds - 1)]


def _half_width(chances: Sequence[Chance], level: float) -> np.ndarray:
    tail = (1 + level) / 2
    return np.sqrt(sum(special.stdtrit(one.freedom, tail) ** 2 * one.variance for one in chances))


def p_value(values: np.ndarray) -> float:
    """That the mean of values [units, seeds] is zero: where the interval just reaches zero. nan without any
    spread."""
    return _p_value(abs(float(values.mean())), _chances(values))


def _p_value(distance: float, chances: Sequence[Chance]) -> float:
    """The same of a mean that lies so far away from what it may be."""
    least = 1e-12

    def beyond(level: float) -> float:
        return float(_half_width(chances, level)) - distance

    if not _half_width(chances, LEVEL) > 0:
        return math.nan
    if beyond(1 - least) < 0:
        return least
    level: float = optimize.brentq(beyond, 0.0, 1 - least)  # pyright: ignore[reportAssignmentType]
    return 1 - level


def holm(p: Sequence[float]) -> list[float]:
    """p values of several claims, adjusted so that all claims below a level together err with that level at
    most (Holm 1979)."""
    adjusted, largest = [math.nan] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[k]))
        adjusted[k] = largest
    return adjusted


def of_both(a: Estimate, b: Estimate) -> Estimate:
    """The claim that two means lie on the same side of zero: the estimate with the larger p.

    An intersection-union test (Berger 1982): true only if both are, so that neither p is adjusted for the
    other. p is 1 for means on different sides. NOTHING unless both claim something.
    """
    if not (a.claims and b.claims):
        return NOTHING
    weaker = max(a, b, key=lambda one: one.p)
    return weaker if a.mean * b.mean > 0 else replace(weaker, p=1.0)


def adjusted(claims: Sequence[Estimate]) -> list[float]:
    """p of each estimate, adjusted for all that claim something (`holm`); nan of those that do not."""
    claimed = iter(holm([one.p for one in claims if one.claims]))
    return [next(claimed) if one.claims else math.nan for one in claims]


Runs = Mapping[int | None, pd.Series]  # seed → scores by picture


def pairs_of_seeds(left: Runs, right: Runs) -> list[int | None]:
    """The seeds by which `difference` takes runs in pairs; none if fewer than LEAST_PAIRS are in both."""
    shared = [seed for seed in left if seed in right]
    return shared if len(shared) >= LEAST_PAIRS else []


def difference(left: Runs, right: Runs, paired: bool, tolerance: float = 0.0) -> Estimate:
    """Mean of the runs on the left minus that of the runs on the right, with a p that it lies within
    ± tolerance of zero (1 where the estimate does).

    paired: whether both sides drew the same pictures; otherwise each side's prompts are a sample of their
    own. Runs of one seed are pairs if there are enough of them (`pairs_of_seeds`). Otherwise the runs of both
    sides are samples with one spread, as in Student's test with a pooled variance: it is exact where both
    sides are the same program, which a comparison supposes until it finds otherwise, and takes a single run
    on one side. `seeds` is one more than the degrees of freedom of runs: pairs, or all runs but one.
    """
    if not (left and right):
        return NOTHING
    seeds = pairs_of_seeds(left, right) if paired else []
    others = np.empty(0)
    if seeds:
        values = _units(side_by_side([left[seed].sub(right[seed]).dropna() for seed in seeds]))
        units, runs, mean = len(values), len(seeds), float(values.mean()) if values.size else math.nan
    else:
        one, other = side_by_side(list(left.values())), side_by_side(list(right.values()))
        if paired:
            common = one.index.intersection(other.index)
            one, other = one.loc[common], other.loc[common]
        values, others = _units(one), _units(other)
        units, runs = min(len(values), len(others)), len(left) + len(right) - 1
        mean = float(values.mean() - others.mean()) if units else math.nan
    if units < 2:
        return replace(NOTHING, mean=mean, units=units, seeds=runs) if units else NOTHING
    if seeds:
        se, chances = float(standard_error(values)), _chances(values)
    else:
        se, chances = _of_samples(values, others, paired)
    half, beyond = float(_half_width(chances, LEVEL)), max(abs(mean) - tolerance, 0.0)
    return Estimate(mean, se, mean - half, mean + half, _p_value(beyond, chances), units, runs)


def _of_samples(left: np.ndarray, right: np.ndarray, paired: bool) -> tuple[float, list[Chance]]:
    """Standard error and chances of the difference of two means, of values [units, seeds] on each side."""
    sides = (left, right)
    freedom = sum(side.shape[1] - 1 for side in sides)
    by_seed, rests = 0.0, [0.0, 0.0]
    if freedom:
        of_seeds = sum(float(((side.mean(axis=0) - side.mean()) ** 2).sum()) for side in sides) / freedom
        by_seed = of_seeds * sum(1 / side.shape[1] for side in sides)
        left_over = sum(float((_rest(side) ** 2).sum()) for side in sides)
        each = left_over / sum((len(side) - 1) * (side.shape[1] - 1) for side in sides)
        rests = [each / side.size for side in sides]
    means = [side.mean(axis=1) for side in sides]
    of_units = [(means[0] - means[1], sum(rests))] if paired else list(zip(means, rests, strict=True))
    units = [
        Chance(np.maximum(mean.var(ddof=1) / len(mean) - rest, 0.0), len(mean) - 1) for mean, rest in of_units
    ]
    se = math.sqrt(sum(float(one.variance) for one in units) + max(by_seed, sum(rests)))
    return se, [*units, *([Chance(np.asarray(by_seed), freedom)] if freedom else [])]


def _rest(values: np.ndarray) -> np.ndarray:
    """What units and seeds leave of values [..., units, seeds]."""
    mean = values.mean(axis=(-2, -1))[..., None, None]
    return values - values.mean(axis=-1)[..., None] - values.mean(axis=-2)[..., None, :] + mean


def probability_of_improvement(a: pd.DataFrame, b: pd.DataFrame, higher_is_better: bool = True) -> Estimate:
    """How often a's picture scores better than b's of the same prompt and noise; a tie counts one half.

    a, b: [pictures x seeds]. Seeds of different methods have nothing in common: all their combinations count.
    """
    common = a.index.intersection(b.index)
    left, right = a.loc[common].to_numpy(), b.loc[common].to_numpy()
    difference = left[:, :, None] - right[:, None, :]
    wins = (np.sign(difference if higher_is_better else -difference) + 1) / 2
    # One column per seed of a: b's seeds are averaged over, as they are the yardstick here.
    found = estimate(pd.DataFrame(wins.mean(axis=2), index=common))
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high)) if found.units else found


def _units(table: pd.DataFrame) -> np.ndarray:
    """[units, seeds]: prompt means if there are two or more prompts, single pictures otherwise."""
    prompts = table.index.get_level_values("prompt")
    if prompts.nunique() >= 2:
        table = cast(pd.DataFrame, table.groupby(level="prompt", sort=True).mean())
    return table.to_numpy(dtype=float)


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one value per run, with Student's interval over runs; without one if there is a single run."""
    array = np.asarray(values, dtype=float)
    se, half = math.nan, math.nan
    if len(array) >= LEAST_SEEDS:
        se = float(array.std(ddof=1)) / math.sqrt(len(array))
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(array) - 1)) * se
    mean = float(array.mean())
    return Estimate(mean, se, mean - half, mean + half, math.nan, 1, len(array))
