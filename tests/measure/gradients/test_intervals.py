"""Intervals of squared norms and angles between means: what they promise, and how often they keep it."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from bench.measure.gradients.intervals import Interval, around, pairs, positive, product, ratio, sine2

LEVEL = 0.95
TRIALS = 400
# Of 400 intervals at 95 %, more than 38 misses have a probability below 1e-4.
WORST = 38


def noisy(rng: np.random.Generator, mean: np.ndarray, spectrum: np.ndarray, groups: int) -> np.ndarray:
    """[groups, d]: the mean plus normal noise with these variances."""
    return mean + rng.standard_normal((groups, len(mean))) * np.sqrt(spectrum)


def misses(make: Callable[[np.random.Generator], Interval], truth: float) -> int:
    """How many of TRIALS intervals do not hold the truth."""
    rng = np.random.default_rng(0)
    found = [make(rng) for _ in range(TRIALS)]
    return sum(not i.low <= truth + 1e-9 or not truth <= i.high for i in found)


@pytest.mark.slow
@pytest.mark.parametrize("squared", [0.0, 0.03, 0.3, 3.0])
@pytest.mark.parametrize("dim", [1, 4, 100])
@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_squared_norms_interval_holds_the_truth_whatever_the_noise(
    squared: float, dim: int, decay: float
) -> None:
    spectrum = np.arange(1, dim + 1) ** -decay
    spectrum /= spectrum.sum()
    direction = np.random.default_rng(1).standard_normal(dim)
    mean = direction / np.linalg.norm(direction) * math.sqrt(squared)

    def make(rng: np.random.Generator) -> Interval:
        x = noisy(rng, mean, spectrum, 32)
        return around(x @ x.T, LEVEL)

    assert misses(make, squared) <= WORST


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.0, 0.1, 0.8])
def test_relative_bias_holds_the_truth_when_estimate_and_target_share_their_noise(bias: float) -> None:
    dim, target = 20, np.full(20, 1 / math.sqrt(20))
    flat = np.full(dim, 1 / dim)

    def make(rng: np.random.Generator) -> Interval:
        p = noisy(rng, target, flat, 32)
        e = p * (1 - bias) + noisy(rng, np.zeros(dim), 0.3 * flat, 32)
        difference = (e - p) @ (e - p).T
        return ratio(difference, p @ p.T, LEVEL).root()

    assert misses(make, bias) <= WORST


@pytest.mark.slow
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_sine_of_the_angle_does_not_feel_a_rescaling(angle: float) -> None:
    dim = 10
    target, other = np.eye(dim)[0], math.cos(angle) * np.eye(dim)[0] + math.sin(angle) * np.eye(dim)[1]
    flat = np.full(dim, 0.5 / dim)

    def make(rng: np.random.Generator) -> Interval:
        p, e = noisy(rng, target, flat, 32), 7 * noisy(rng, other, flat, 32)
        return sine2(e @ e.T, e @ p.T, p @ p.T, LEVEL).root()

    assert misses(make, math.sin(angle)) <= WORST


def test_squared_norm_is_estimated_without_the_noises_share() -> None:
    rng = np.random.default_rng(0)
    found = [pairs(x @ x.T) for x in (noisy(rng, np.zeros(50), np.ones(50), 8) for _ in range(400))]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(len(found))


def test_ratio_to_a_norm_that_may_be_zero_is_unknown() -> None:
    rng = np.random.default_rng(0)
    x = noisy(rng, np.zeros(5), np.ones(5), 8)
    assert not positive(x @ x.T, LEVEL)
    assert math.isnan(ratio(x @ x.T, x @ x.T, LEVEL).low)


def test_product_of_two_means_may_be_negative() -> None:
    rng = np.random.default_rng(0)
    mean = np.ones(4)
    a, b = noisy(rng, mean, np.full(4, 0.1), 32), noisy(rng, -mean, np.full(4, 0.1), 32)
    found = product(a @ b.T, LEVEL)
    assert found.low < -4 < found.high < 0
