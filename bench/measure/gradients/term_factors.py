"""Factors of an estimator's terms that make the mean squared error least, by batch size.

With terms G_k of one batch, Ĝ = Σ w_k G_k and g the exact gradient, E|Ĝ - g|² is least at w = M⁻¹ v with M_kl
= E[G_k · G_l] = μ_k · μ_l + Cov_kl and v_k = μ_k · g. The means follow from the exact gradient's steps p_i
and the share o_ki of samples (times their weight) that treat step i as kind k: μ_k = Σ_i o_ki p_i. That is
exact for unbiased terms whose plans do not depend on noise or reward; measured means would drown in noise.
Covariances are measured; they fall as one over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.engine.plan import Kind
from bench.measure.gradients.moments import TERMS, Moments, gram


@dataclass(frozen=True)
class Factors:
    """The best factors of one batch size, by kind; relative mean squared error with them, and with ones."""

    batch: int
    factors: dict[Kind, float]
    error: float
    error_at_one: float


def least_squares(moments: Moments, batch: int, sizes: tuple[int, ...]) -> list[Factors]:
    """The best factors at each of `sizes`; batch: the size that was measured.

    Empty while there is too little to tell, and for PPO's objective, whose terms have another scale. With
    noise only at the end of a drawn block, as RLR has it, μ_k is approximate: p_i is a mean over blocks.
    """
    n, exact = moments.draws, moments.exact.total
    kinds = [kind for kind in TERMS if kind in moments.terms]
    if n < 4 or exact < 4 or not kinds or not moments.plain:
        return []
    steps = _steps(moments, exact)
    whole = float(steps.sum())
    if whole <= 0:
        return []
    rows = [TERMS.index(kind) for kind in kinds]
    share = moments.occupancy.double().numpy()[rows] / n
    means, v = share @ steps @ share.T, share @ steps.sum(1)
    sums = np.array(
        [[float(moments.terms[a].double() @ moments.terms[b].double()) for a in kinds] for b in kinds]
    )
    seen = moments.products.numpy()[np.ix_(rows, rows)]
    covariance = (seen - sums / n) / (n - 1)
    ones = np.ones(len(kinds))
    found = []
    for size in sizes:
        second = means + covariance * batch / size
        w = np.linalg.lstsq(second, v, rcond=None)[0]
        errors = [float(x @ second @ x - 2 * x @ v + whole) / whole for x in (w, ones)]
        found.append(Factors(size, dict(zip(kinds, map(float, w), strict=True)), *errors))
    return found


def _steps(moments: Moments, n: int) -> np.ndarray:
    """E p_i · E p_j without the noise's part: [T, T]."""
    sums, order = np.zeros((moments.steps, moments.steps)), sorted(moments.exact_steps)
    vectors = [moments.exact_steps[i].vector for i in order]
    sums[np.ix_(order, order)] = gram(vectors, vectors).numpy()
    return (sums - moments.exact_products.numpy()) / (n * (n - 1))
