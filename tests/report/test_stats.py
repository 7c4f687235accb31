"""Paired statistics against numbers worked out by hand, and against simulation."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.report.stats import (
    NOTHING,
    Estimate,
    adjusted,
    by_picture,
    estimate,
    half_width,
    holm,
    of_both,
    p_value,
    probability_of_improvement,
    side_by_side,
    standard_error,
)


def lines(scores: dict[tuple[str, int], float]) -> pd.DataFrame:
    """Rows as eval.jsonl has them."""
    return pd.DataFrame([{"prompt": p, "image": i, "score": s} for (p, i), s in scores.items()])


BASE = {("a", 0): 1.0, ("a", 1): 2.0, ("b", 0): 3.0, ("b", 1): 4.0, ("c", 0): 5.0, ("c", 1): 6.0}
TUNED = {("a", 0): 1.5, ("a", 1): 2.5, ("b", 0): 4.0, ("b", 1): 5.0, ("c", 0): 5.0, ("c", 1): 7.0}


def test_gain_matches_the_hand_computed_mean_and_standard_error() -> None:
    gain = estimate(side_by_side([by_picture(lines(TUNED))], by_picture(lines(BASE))))
    # By prompt: a 0.5, b 1.0, c 0.5. Mean 2/3, variance 1/12, over three prompts 1/36.
    assert gain.mean == pytest.approx(2 / 3)
    assert gain.se == pytest.approx(1 / 6)
    assert (gain.units, gain.seeds) == (3, 1)
    half = pytest.approx(stats.t.ppf(0.975, 2) / 6)
    assert (gain.high - gain.mean, gain.mean - gain.low) == (half, half)
    assert gain.p == pytest.approx(2 * stats.t.sf(4.0, 2))
    assert not gain.claims  # of the method: one seed is one run


def test_pairing_goes_by_prompt_and_image_and_not_by_order() -> None:
    shuffled = dict(reversed(TUNED.items()))
    expected = estimate(side_by_side([by_picture(lines(TUNED))], by_picture(lines(BASE))))
    assert estimate(side_by_side([by_picture(lines(shuffled))], by_picture(lines(BASE)))) == expected


def test_pictures_that_only_one_side_has_are_left_out() -> None:
    more = {**TUNED, ("d", 0): 100.0}
    fewer = {key: score for key, score in BASE.items() if key != ("c", 1)}
    table = side_by_side([by_picture(lines(more))], by_picture(lines(fewer)))
    assert set(table.index) == set(fewer)
    assert table.loc[("c", 0), 0] == 0.0


def test_the_only_prompts_pictures_are_the_units() -> None:
    one = {("a", i): s for i, s in enumerate([1.0, 2.0, 3.0])}
    result = estimate(side_by_side([by_picture(lines(one))]))
    assert (result.mean, result.units) == (2.0, 3)
    assert result.se == pytest.approx(1 / math.sqrt(3))


def test_a_figure_of_the_whole_evaluation_has_a_mean_and_no_error() -> None:
    rows = pd.DataFrame([{"prompt": None, "image": None, "score": 0.4}])
    result = estimate(side_by_side([by_picture(rows)]))
    assert result.mean == 0.4
    assert math.isnan(result.se) and math.isnan(result.low)


def test_no_common_pictures_is_no_estimate() -> None:
    other = {("z", 0): 1.0}
    assert estimate(side_by_side([by_picture(lines(TUNED))], by_picture(lines(other)))) is NOTHING


def test_equal_differences_leave_a_point_for_an_interval() -> None:
    raised = {key: score + 0.5 for key, score in BASE.items()}
    gain = estimate(side_by_side([by_picture(lines(raised))], by_picture(lines(BASE))))
    assert (gain.low, gain.high) == (0.5, 0.5)


def test_the_interval_is_the_same_each_time() -> None:
    table = side_by_side([by_picture(lines(TUNED)), by_picture(lines(BASE))])
    assert estimate(table) == estimate(table)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_squared_standard_error_is_the_variance_of_the_mean(seeds: int) -> None:
    # A crossed model with effects of prompt, seed and both; 4000 replicates leave about 4 % of error here.
    rng, runs, units = np.random.default_rng(3), 4000, 12
    values = rng.normal(size=(runs, units, 1)) + rng.normal(scale=0.7, size=(runs, units, seeds))
    if seeds > 1:
        values += rng.normal(scale=0.4, size=(runs, 1, seeds))
    claimed = np.mean(standard_error(values) ** 2)
    assert claimed == pytest.approx(values.mean(axis=(1, 2)).var(), rel=0.12)


def test_seeds_that_disagree_widen_the_error_of_prompts_that_agree() -> None:
    prompts = np.array([[0.1], [0.12], [0.11], [0.09]])
    agreeing = np.hstack([prompts, prompts])
    assert standard_error(agreeing + np.array([0.0, 0.2])) > 5 * standard_error(agreeing)


def test_probability_of_improvement_counts_wins_and_half_the_ties() -> None:
    a, b = side_by_side([by_picture(lines(TUNED))]), side_by_side([by_picture(lines(BASE))])
    assert probability_of_improvement(a, b).mean == pytest.approx(5.5 / 6)  # c's first picture is a tie
    assert probability_of_improvement(b, a).mean == pytest.approx(0.5 / 6)
    assert probability_of_improvement(a, b, higher_is_better=False).mean == pytest.approx(0.5 / 6)


@pytest.mark.parametrize(("prompts", "seeds", "claims"), [(2, 2, False), (3, 1, False), (3, 2, True)])
def test_a_claim_takes_three_prompts_and_two_seeds(prompts: int, seeds: int, claims: bool) -> None:
    table = pd.DataFrame([[-0.5 - 0.01 * n * (1 + k) for k in range(seeds)] for n in range(prompts)])
    table.index = pd.MultiIndex.from_tuples([(f"p{n}", 0) for n in range(prompts)], names=["prompt", "image"])
    found = estimate(table)
    assert found.se > 0 and found.claims is claims


@pytest.mark.parametrize("seeds", [1, 3])
def test_p_is_where_the_interval_reaches_zero(seeds: int) -> None:
    values = 0.2 + np.random.default_rng(5).normal(size=(9, seeds))
    level = 1 - p_value(values)
    assert half_width(values, level) == pytest.approx(abs(values.mean()), rel=1e-6)


def test_holm_multiplies_the_smallest_by_the_number_of_claims_and_never_falls() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def an_estimate(mean: float, p: float, seeds: int = 2) -> Estimate:
    return Estimate(mean, 0.1, mean - 0.2, mean + 0.2, p, 6, seeds)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_claim_of_two_differences_is_the_one_that_is_less_sure(sign: int) -> None:
    sure, unsure = an_estimate(sign * 0.5, 0.001), an_estimate(sign * 0.2, 0.04)
    assert of_both(sure, unsure) == of_both(unsure, sure) == unsure


@pytest.mark.parametrize("other", [-0.2, 0.0])
def test_two_differences_on_different_sides_claim_nothing_and_count_as_a_claim(other: float) -> None:
    found = of_both(an_estimate(0.5, 0.001), an_estimate(other, 0.01))
    assert found.p == 1.0 and found.claims
    assert adjusted([found, an_estimate(0.3, 0.03)]) == pytest.approx([1.0, 0.06])


@pytest.mark.parametrize("other", [an_estimate(0.5, 0.001, seeds=1), an_estimate(0.5, math.nan), NOTHING])
def test_there_is_no_claim_of_two_differences_unless_both_claim(other: Estimate) -> None:
    assert of_both(an_estimate(0.5, 0.001), other) is NOTHING
    assert of_both(other, an_estimate(0.5, 0.001)) is NOTHING


# Standard deviations of units, seeds, and both together; 64 units at most, as an evaluation has.
SPREADS = [(1.0, 0.0, 1.0), (1.0, 0.25, 1.0), (1.0, 0.5, 0.5), (1.0, 1.0, 1.0), (0.5, 2.0, 1.0)]


REPLICATES = 10_000  # leave 0.2 % of standard error


def crossed(rng: np.random.Generator, units: int, seeds: int, spread: tuple[float, ...]) -> np.ndarray:
    """Made-up scores [replicates, units, seeds] with mean zero."""
    shapes = (units, 1), (1, seeds), (units, seeds)
    return np.asarray(
        sum(
            scale * rng.normal(size=(REPLICATES, *shape)) for scale, shape in zip(spread, shapes, strict=True)
        )
    )


def coverage(values: np.ndarray) -> float:
    """How many of the intervals hold zero."""
    return float(np.mean(half_width(values) >= abs(values.mean(axis=(1, 2)))))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover_the_mean_as_often_as_they_say(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    covered = [
        coverage(crossed(rng, units, seeds, spread)) for units, spread in itertools.product((8, 32), SPREADS)
    ]
    assert min(covered) > 0.94 and max(covered) < (0.99 if seeds == 2 else 0.98)
    assert 0.95 <= np.mean(covered) <= (0.975 if seeds == 2 else 0.97)


@pytest.mark.parametrize(
    # apart: standard deviation of studies; that of prompts is 1 (0.5 in the last spread).
    ("apart", "least", "most"),
    [(0.25, 0.92, 0.98), (0.5, 0.84, 0.97), (1.0, 0.76, 0.95), (4.0, 0.68, 0.83)],
)
def test_intervals_cover_other_runs_of_the_settings_that_shared_studies_chose(
    apart: float, least: float, most: float
) -> None:
    """Four runs of two studies. Whatever these differ by, intervals cover the mean of other runs with their
    settings. That of another tuning they cover less often: least and most say how often."""
    rng, of_run = np.random.default_rng(4), [0, 1, 0, 1]  # seed n takes what study n mod 2 chose
    same_settings, tuned_anew = [], []
    for units, spread in itertools.product((8, 32), SPREADS):
        values = crossed(rng, units, 4, spread)
        same_settings.append(coverage(values + apart * np.array([1.0, -1.0])[of_run]))
        tuned_anew.append(coverage(values + apart * rng.normal(size=(REPLICATES, 1, 2))[..., of_run]))
    assert min(same_settings) > 0.94
    assert least < min(tuned_anew) and max(tuned_anew) < most
