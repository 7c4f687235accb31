"""Least-squares weights of terms: against brute force on draws whose means are known."""

import numpy as np
import pytest
import torch

from bench.engine.plan import Kind
from bench.measure.gradients.moments import TERMS, Draw, Moments
from bench.measure.gradients.term_factors import least_squares

DIM, STEPS, BATCH = 4, 3, 8
STEP_MEANS = torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0.5, 0]])
KIND_OF = {0: Kind.HO, 1: Kind.HO, 2: Kind.FO}
NOISE = {Kind.HO: 3.0, Kind.FO: 0.1}


def filled(count: int) -> Moments:
    """Terms with known means and independent noise; the exact steps are a little noisy, too."""
    rng = torch.Generator().manual_seed(0)
    moments = Moments(DIM, STEPS)
    occupancy = torch.zeros(3, STEPS)
    for i, kind in KIND_OF.items():
        occupancy[TERMS.index(kind), i] = 1
    for _ in range(count):
        exact = STEP_MEANS + 0.3 * torch.randn(STEPS, DIM, generator=rng)
        parts = {
            (kind, i): STEP_MEANS[i] + NOISE[kind] * torch.randn(DIM, generator=rng)
            for i, kind in KIND_OF.items()
        }
        gradient = torch.stack(list(parts.values())).sum(0)
        moments.add(Draw(gradient, parts, dict(enumerate(exact)), False, occupancy, True, 1.0, 1, 1, 0.0))
    return moments


@pytest.mark.slow
def test_weights_and_errors_are_those_of_the_known_means_and_variances() -> None:
    found = {w.batch: w for w in least_squares(filled(4000), BATCH, (BATCH, 100 * BATCH))}
    ho, fo = STEP_MEANS[:2].sum(0).numpy(), STEP_MEANS[2].numpy()
    g = ho + fo
    for size, measured in found.items():
        spread = np.diag([0.1**2 * DIM, 2 * 3.0**2 * DIM]) * BATCH / size
        second = np.array([[fo @ fo, fo @ ho], [fo @ ho, ho @ ho]]) + spread
        w = np.linalg.solve(second, np.array([fo @ g, ho @ g]))
        assert measured.factors[Kind.FO] == pytest.approx(w[0], rel=0.05)
        assert measured.factors[Kind.HO] == pytest.approx(w[1], rel=0.05)
        error = w @ second @ w - 2 * w @ np.array([fo @ g, ho @ g]) + g @ g
        assert measured.error == pytest.approx(error / (g @ g), rel=0.05)
        assert measured.error_at_one == pytest.approx(np.trace(spread) / (g @ g), rel=0.1)


@pytest.mark.slow
def test_noisy_term_counts_more_in_larger_batches_and_never_more_than_fully() -> None:
    found = least_squares(filled(1000), BATCH, tuple(8 * 4**k for k in range(8)))
    factors = [w.factors[Kind.HO] for w in found]
    assert factors == sorted(factors)
    assert factors[0] < 0.1
    assert 0.9 < factors[-1] <= 1.01


def test_too_few_draws_say_nothing() -> None:
    assert least_squares(filled(3), BATCH, (8,)) == []
