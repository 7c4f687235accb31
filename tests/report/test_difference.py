"""The difference of two groups of runs, against numbers worked out elsewhere and against simulation."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.report.stats import (
    LEAST_PAIRS,
    Runs,
    difference,
    estimate,
    pairs_of_seeds,
    side_by_side,
)

UNITS = 16


def runs(values: np.ndarray, first_seed: int = 0, first_prompt: int = 0) -> Runs:
    """Scores [prompts, seeds] as runs."""
    prompts = [(f"p{first_prompt + n:03d}", 0) for n in range(len(values))]
    index = pd.MultiIndex.from_tuples(prompts, names=["prompt", "image"])
    return {first_seed + k: pd.Series(values[:, k], index) for k in range(values.shape[1])}


def drawn(rng: np.random.Generator, prompts: np.ndarray, seeds: int, of_seed: float = 0.3) -> np.ndarray:
    """Runs of one method on prompts [units]: a crossed model."""
    own = of_seed * rng.normal(size=(1, seeds))
    return prompts[:, None] + own + 0.3 * rng.normal(size=(len(prompts), seeds))


def test_runs_of_other_seeds_that_agree_on_all_prompts_are_students_two_samples() -> None:
    left, right = np.array([[1.0, 1.4, 1.1]]), np.array([[0.6, 0.9]])
    prompts = np.arange(5.0)[:, None]  # they cancel
    found = difference(runs(prompts + left), runs(prompts + right, 7), paired=True)
    expected: Any = stats.ttest_ind(left[0], right[0])
    interval = expected.confidence_interval()
    assert (found.mean, found.p) == pytest.approx((left.mean() - right.mean(), float(expected.pvalue)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.units, found.seeds) == (5, 4)  # five runs, three degrees of freedom


def test_enough_runs_of_the_same_seeds_are_pairs() -> None:
    rng = np.random.default_rng(0)
    left, right = (runs(drawn(rng, rng.normal(size=UNITS), LEAST_PAIRS)) for _ in range(2))
    expected = estimate(side_by_side([left[seed].sub(right[seed]) for seed in left]))
    assert difference(left, right, paired=True) == expected
    assert pairs_of_seeds(left, right) == [0, 1, 2]


def test_two_runs_of_the_same_seeds_are_samples_that_know_more_than_their_two_pairs() -> None:
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=UNITS)
    left, right = (runs(drawn(rng, prompts, 2)) for _ in range(2))
    found, pairs = difference(left, right, True), [left[seed].sub(right[seed]) for seed in left]
    assert pairs_of_seeds(left, right) == [] and found.seeds == 3
    assert found.high - found.low < 0.5 * (estimate(side_by_side(pairs)).high - found.low)


def test_single_runs_are_compared_over_prompts_alone_and_claim_nothing() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(UNITS, 1)), rng.normal(size=(UNITS, 1))
    found = difference(runs(left), runs(right, 1), paired=True)
    expected: Any = stats.ttest_rel(left[:, 0], right[:, 0])
    assert found.p == pytest.approx(float(expected.pvalue)) and not found.claims


def test_one_run_is_held_against_the_spread_of_several() -> None:
    prompts = np.arange(5.0)[:, None]
    several, one = np.array([[1.0, 1.2, 1.1, 1.3]]), np.array([[0.8]])
    found = difference(runs(prompts + one, 9), runs(prompts + several), paired=True)
    spread = several.std(ddof=1) * math.sqrt(1 + 1 / 4)
    assert found.se == pytest.approx(spread) and found.claims
    assert found.p == pytest.approx(2 * float(stats.t.sf(0.35 / spread, 3)))


def test_prompts_that_differ_are_samples_too() -> None:
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=(20, 1)), rng.normal(size=(9, 1))
    found = difference(runs(left), runs(right, first_prompt=100), paired=False)
    assert found.mean == pytest.approx(left.mean() - right.mean())
    assert found.se == pytest.approx(math.sqrt(left.var(ddof=1) / 20 + right.var(ddof=1) / 9))
    assert found.units == 9


def test_pictures_that_only_one_side_has_are_left_out_of_pairs() -> None:
    values = np.random.default_rng(3).normal(size=(6, 2))
    left, right = runs(values), runs(values[1:] - 0.5, 4, first_prompt=1)
    found = difference(left, right, paired=True)
    assert (found.mean, found.units) == (pytest.approx(0.5), 5)


def test_without_common_pictures_there_is_no_difference() -> None:
    values = np.random.default_rng(3).normal(size=(6, 2))
    found = difference(runs(values), runs(values, first_prompt=50), paired=True)
    assert found.units == 0 and math.isnan(found.mean) and math.isnan(found.p)
    assert difference({}, runs(values), paired=True).units == 0


def test_equal_runs_differ_by_nothing_and_claim_nothing() -> None:
    values = np.random.default_rng(3).normal(size=(6, 3))
    found = difference(runs(values), runs(values), paired=True)
    assert (found.mean, found.low, found.high) == (0, 0, 0) and math.isnan(found.p)


def test_p_is_of_what_lies_beyond_the_tolerance() -> None:
    rng = np.random.default_rng(4)
    prompts = rng.normal(size=UNITS)
    left, right = runs(drawn(rng, prompts, 3) - 2), runs(drawn(rng, prompts, 3), 5)
    exact = difference(left, right, True)
    p = [difference(left, right, True, tolerance).p for tolerance in (0.0, 0.5, 1.0, 5.0)]
    assert p == sorted(p) and p[0] == exact.p and p[-1] == 1
    moved = runs(np.stack([run.to_numpy() for run in left.values()], axis=1) + 0.5)
    assert p[1] == pytest.approx(difference(moved, right, True).p)


REPLICATES = 100  # leave 2.2 % of standard error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "same_seeds", "same_pictures", "power"),
    [
        ((2, 2), False, True, 0.5),
        ((1, 2), False, True, 0.1),
        ((1, 4), False, True, 0.6),
        ((4, 4), True, True, 0.9),
        ((2, 2), False, False, 0.15),
    ],
)
def test_false_alarms_are_rare_and_a_true_loss_is_found(
    seeds: tuple[int, int], same_seeds: bool, same_pictures: bool, power: float
) -> None:
    """Prompts have a spread of 1, runs and single scores of 0.3; the loss is five times that of runs."""
    rng, p = np.random.default_rng(sum(seeds)), np.empty((REPLICATES, 2))
    for n in range(REPLICATES):
        prompts = rng.normal(size=UNITS)
        left = drawn(rng, prompts, seeds[0])
        right = drawn(rng, prompts if same_pictures else rng.normal(size=UNITS), seeds[1])
        for k, loss in enumerate((0.0, 1.5)):
            ours, theirs = runs(left - loss), runs(right, 0 if same_seeds else 9)
            p[n, k] = difference(ours, theirs, same_pictures).p
    false, found = (p < 0.05).mean(axis=0)
    assert false < 0.05 + 3 * math.sqrt(0.05 * 0.95 / REPLICATES)
    assert found > power
