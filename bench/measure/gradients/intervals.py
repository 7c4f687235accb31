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
        """The interval of a norm, from that of its square: negative parts count as zero."""
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


def u_interval(value: float, kernel: Matrix, level: float, signed: bool = False) -> Interval:
    """The interval of a U-statistic of this value and centred kernel: symmetric [G, G], G ≥ 3.

    The diagonal holds the products of groups with themselves; it only tells how skewed the statistic is.
    signed: it estimates a product, which may be anything; otherwise a squared norm b, to which ζ₁ is
    proportional, so that the limits are the b with |value - b| = q √Var(b), Var(b) = s₀² + s₁² b (a score
    interval: around b = 0 it is as sharp as a test of b = 0). s₁² comes from ζ₁, and for the upper limit, as
    a small value says little about ζ₁, is at least what a difference in a typical direction of the noise
    would give.
    """
    size = len(kernel)
    diagonal = np.diag(kernel)
    h = kernel - np.diag(diagonal)
    second = float((h**2).sum()) / (size * (size - 1))
    first = float((h.sum(1) ** 2).sum() - (h**2).sum()) / (size * (size - 1) * (size - 2))
    first = min(max(0.0, first), second / 2)  # Var(h_ab) ≥ 2 Cov(h_ab, h_ac)
    linear = (4 * (size - 2) + 4) * first / (size * (size - 1))
    degenerate = 2 * (second - 2 * first) / (size * (size - 1))
    low, high = _quantiles(size, float(diagonal.mean()), second - 2 * first, level)
    se = math.sqrt(linear + degenerate)
    if signed:
        return Interval(value, se, value - high * se, value + high * se)
    slope, trace = linear / value if value > 0 else 0.0, float(diagonal.mean())
    typical = 4 * (second - 2 * first) / (trace * size) if trace > 0 else 0.0
    lower = _limit(value, slope, degenerate, -low)
    return Interval(value, se, lower, _limit(value, max(slope, typical), degenerate, high))


def _limit(value: float, slope: float, fixed: float, q: float) -> float:
    """The b above (q > 0) or below (q < 0) the value with (b - value)² = q² (fixed + slope b)."""
    half = value + q * q * slope / 2
    root = math.sqrt(max(0.0, half * half - value * value + q * q * fixed))
    return half + math.copysign(root, q)


def _quantiles(size: int, spread: float, second: float, level: float) -> tuple[float, float]:
    """Standard errors from the value down to the lower limit and up to the upper one.

    spread, second: trace of the covariance of a group's vector, and the mean square of products of two: the
    χ² that matches them has spread² / second degrees of freedom; its upper tail counts for the lower limit.
    """
    tail = 0.5 + level / 2
    student, normal = float(t.ppf(tail, size - 1)), float(norm.ppf(tail))
    freedom = max(1.0, spread**2 / second) if second > 0 and spread > 0 else math.inf
    skewed = normal
    if freedom < 1e4:
        skewed = max(normal, float(chi2.ppf(tail, freedom) - freedom) / math.sqrt(2 * freedom))
    return student * skewed / normal, student


def ratio(top: Matrix, bottom: Matrix, level: float) -> Interval:
    """pairs(top) / pairs(bottom), by the delta method; unknown while the bottom's interval touches zero."""
    n, m = pairs(top), pairs(bottom)
    if not positive(bottom, level):
        return UNKNOWN
    return u_interval(n / m, (top - n / m * bottom) / m, level)


def around(matrix: Matrix, level: float) -> Interval:
    """The interval of pairs(matrix), a squared norm."""
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
    """The interval of pairs(matrix) where the vectors differ, so that it may be negative."""
    both, m = (matrix + matrix.T) / 2, pairs(matrix)
    return u_interval(m, both - m, level, signed=True)
