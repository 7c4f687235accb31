"""Paired statistics over held-out pictures.

Every method and the untuned model draw the same pictures (same prompt, same starting noise), so a gain is a
mean of differences of matching pictures. Pictures of one prompt are not independent of each other: with two
prompts or more the prompt is the unit that is resampled, otherwise the picture is. Seeds are a second way of
resampling, crossed with the first: a training run that got lucky is lucky on all prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

PAIR = ["prompt", "image"]
RESAMPLES = 4000
LEAST_UNITS = 3  # for a ratio to the standard error
_RNG_SEED = 20250202


@dataclass(frozen=True)
class Estimate:
    """A mean over `units` (prompts, or pictures of the only prompt) and `seeds` runs.

    se: standard error; low, high: 95 % bootstrap interval. nan where one unit leaves no spread to measure.
    """

    mean: float
    se: float
    low: float
    high: float
    units: int
    seeds: int

    @property
    def in_se(self) -> float:
        """The mean in units of its standard error; nan where that is zero, unknown, or of too few units.

        The standard error of two prompts is itself hardly known: where both happen to agree, a mean that is
        chance looks like fifty standard errors.
        """
        return self.mean / self.se if self.se > 0 and self.units >= LEAST_UNITS else math.nan


NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0)


def by_picture(rows: pd.DataFrame) -> pd.Series:
    """Scores of one reward at one evaluation, indexed by (prompt, image).

    A figure of the whole evaluation (both null) stands under ("", 0): one unit.
    """
    named = rows.assign(prompt=rows["prompt"].fillna(""), image=rows["image"].fillna(0).astype(int))
    return cast(pd.Series, named.groupby(PAIR, sort=True)["score"].mean())


def side_by_side(runs: Sequence[pd.Series], base: pd.Series | None = None) -> pd.DataFrame:
    """Pictures that every run (and the base) has, one column per run; minus the base's score if given."""
    table = pd.concat(list(runs), axis=1, join="inner", keys=range(len(runs)))
    if base is not None:
        table = table.loc[table.index.intersection(base.index)]
        table = table.sub(base.loc[table.index], axis=0)
    return table.dropna().sort_index()


def estimate(table: pd.DataFrame, interval: bool = True) -> Estimate:
    """Mean, standard error and interval of a [pictures x seeds] table from `side_by_side`."""
    values = _units(table)
    if values.size == 0:
        return NOTHING
    low, high = _interval(values) if interval else (math.nan, math.nan)
    return Estimate(float(values.mean()), standard_error(values), low, high, *values.shape)


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of values [units, seeds].

    One seed: std / sqrt(units). Several: the variance of the mean in the crossed model value = mean + unit +
    seed + rest. The spread of the units' means shows the parts of unit and rest, that of the seeds' means the
    parts of seed and rest; a part that comes out negative counts as zero.
    """
    units, seeds = values.shape
    if units < 2:
        return math.nan
    by_unit = float(np.var(values.mean(axis=1), ddof=1)) / units
    if seeds < 2:
        return math.sqrt(by_unit)
    by_seed = float(np.var(values.mean(axis=0), ddof=1)) / seeds
    rest = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0, keepdims=True) + values.mean()
    noise = float((rest**2).sum()) / ((units - 1) * (seeds - 1)) / values.size
    return math.sqrt(noise + max(by_unit - noise, 0.0) + max(by_seed - noise, 0.0))


def probability_of_improvement(a: pd.DataFrame, b: pd.DataFrame, higher_is_better: bool = True) -> Estimate:
    """How often a's picture scores better than b's of the same prompt and noise; a tie counts one half.

    a, b: [pictures x seeds]. Seeds of different methods have nothing in common: all their combinations count.
    """
    common = a.index.intersection(b.index)
    left, right = a.loc[common].to_numpy(), b.loc[common].to_numpy()
    difference = left[:, :, None] - right[:, None, :]
    wins = (np.sign(difference if higher_is_better else -difference) + 1) / 2
    # One column per seed of a: b's seeds are averaged over, as they are the yardstick here.
    return estimate(pd.DataFrame(wins.mean(axis=2), index=common))


def _units(table: pd.DataFrame) -> np.ndarray:
    """[units, seeds]: prompt means if there are two or more prompts, single pictures otherwise."""
    prompts = table.index.get_level_values("prompt")
    if prompts.nunique() >= 2:
        table = cast(pd.DataFrame, table.groupby(level="prompt", sort=True).mean())
    return table.to_numpy(dtype=float)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval; units and seeds are resampled independently (Owen 2007)."""
    units, seeds = values.shape
    if units < 2:
        return math.nan, math.nan
    if np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())

    def resampled_mean(unit: np.ndarray, seed: np.ndarray, axis: int) -> np.ndarray:
        unit, seed = unit.astype(int), seed.astype(int)
        return values[unit[..., :, None], seed[..., None, :]].mean(axis=(-2, -1))

    samples: tuple[Any, ...] = (np.arange(units), np.arange(seeds))
    if seeds == 1:  # scipy refuses to resample a sample of one
        samples, statistic = (values[:, 0],), np.mean
    else:
        statistic = resampled_mean
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=500,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(_RNG_SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
