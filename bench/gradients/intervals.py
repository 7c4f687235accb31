"""Intervals for functions of inner products of means, from a few groups of noisy vectors.

A squared distance |E x|² is estimated by the mean of <x_a, x_b> over pairs of different groups (a U-statistic
of second order), which is unbiased for any noise. With h_ab its centred kernel over G groups,

    Var = (4 (G - 2) ζ₁ + 2 ζ₂) / (G (G - 1)),   ζ₁ = Cov(h_ab, h_ac),   ζ₂ = Var(h_ab)     (Hoeffding 1948)

and both are estimated from the matrix h itself. Where the means agree (ζ₁ = 0) the statistic is not normal
but a weighted sum of centred χ² variables; its upper tail is matched by one χ² (Satterthwaite 1946).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2, norm, t

Matrix = np.ndarray


@dataclass(frozen=True)
class Interval:
    """An estimate, its standard error and its limits."""

    value: float
    se: float
    low: float
    high: float

    def root(self) -> Interval:
        """Of the square root, for a squared norm: negative parts count as zero."""
        if math.isnan(self.low):
            return self
        low, high = math.sqrt(max(0.0, self.low)), math.sqrt(max(0.0, self.high))
        value = self.value if math.isnan(self.value) else math.sqrt(max(0.0, self.value))
        return Interval(value, self.se / (2 * value) if value > 0 else math.sqrt(self.se), low, high)


UNKNOWN = Interval(math.nan, math.nan, math.nan, math.nan)


def pairs(matrix: Matrix) -> float:
    """Mean over pairs of different groups."""
    size = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (size * (size - 1)))


def u_interval(value: float, kernel: Matrix, level: float) -> Interval:
    """Around the value of a U-statistic with this centred kernel: symmetric [G, G], G ≥ 3.

    The diagonal holds the products of groups with themselves; it only tells how skewed the statistic is.
    """
    size = len(kernel)
    diagonal = np.diag(kernel).copy()
    h = kernel - np.diag(diagonal)
    second = float((h**2).sum()) / (size * (size - 1))
    rows = h.sum(1)
    first = float((rows**2).sum() - (h**2).sum()) / (size * (size - 1) * (size - 2))
    variance = (4 * (size - 2) * max(0.0, first) + 2 * second) / (size * (size - 1))
    se = math.sqrt(variance)
    tail = 0.5 + level / 2
    quantile, normal = float(t.ppf(tail, size - 1)), float(norm.ppf(tail))
    spread = float(diagonal.mean())
    freedom = max(1.0, spread**2 / second) if second > 0 and spread > 0 else math.inf
    skewed = normal
    if freedom < 1e4:
        skewed = max(normal, float(chi2.ppf(tail, freedom) - freedom) / math.sqrt(2 * freedom))
    below = quantile * skewed / normal
    return Interval(value, se, value - below * se, max(value, 0.0) + quantile * se)


def ratio(top: Matrix, bottom: Matrix, level: float) -> Interval:
    """pairs(top) / pairs(bottom), by the delta method; unknown while the bottom's interval touches zero."""
    n, m = pairs(top), pairs(bottom)
    if not positive(bottom, level):
        return UNKNOWN
    return u_interval(n / m, (top - n / m * bottom) / m, level)


def around(matrix: Matrix, level: float) -> Interval:
    """pairs(matrix), a squared norm."""
    m = pairs(matrix)
    return u_interval(m, matrix - m, level)


def positive(matrix: Matrix, level: float) -> bool:
    """Whether pairs(matrix) is above zero beyond doubt."""
    return around(matrix, level).low > 0


def sine2(mine: Matrix, cross: Matrix, other: Matrix, level: float) -> Interval:
    """sin² of the angle between two means, from their inner products; unknown while one may be zero."""
    if not (positive(mine, level) and positive(other, level)):
        return UNKNOWN
    e, c, p = pairs(mine), pairs(cross), pairs(other)
    share = c * c / (e * p)
    both = (cross + cross.T) / 2
    kernel = -2 * c / (e * p) * both + share / e * mine + share / p * other
    return u_interval(1 - share, kernel, level)


def product(matrix: Matrix, level: float) -> Interval:
    """pairs(matrix) of two different vectors: may be negative."""
    both, m = (matrix + matrix.T) / 2, pairs(matrix)
    found = u_interval(m, both - m, level)
    return Interval(m, found.se, found.low, m + (m - found.low))
