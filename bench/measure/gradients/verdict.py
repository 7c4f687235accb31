"""From sums over draws to the figures of the table: bias with an interval, noise, angle, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from torch import Tensor

from bench.measure.gradients.intervals import (
    UNKNOWN,
    Interval,
    around,
    pairs,
    positive,
    product,
    ratio,
    sine2,
)
from bench.measure.gradients.moments import TERMS, Grouped, Moments, gram, norm2

ROUNDING = 1e-3  # relative differences below this are those of float32 sums in another order
MIN_GROUPS = 4


class Verdict(StrEnum):
    """What the interval of the relative bias says."""

    UNBIASED = "unbiased"
    BIASED = "biased"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Products:
    """Inner products of group means, [G, G] each: estimate · estimate, estimate · target, target · target."""

    mine: np.ndarray
    cross: np.ndarray
    target: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """Inner products of the differences of group means, estimate minus target: [G, G]."""
        return self.mine - self.cross - self.cross.T + self.target


@dataclass(frozen=True)
class Bias:
    """A mean against one target g. relative: |E ĝ - g| / |g|. direction: sine of the angle between E ĝ and
    g, which no rescaling changes. norm: |g|. scale: E ĝ · g / |g|². cosine: of one batch's ĝ with g, and its
    standard error. needed: draws that would tell 0 from the margin."""

    relative: Interval
    direction: Interval
    norm: float
    scale: float
    cosine: Interval
    verdict: Verdict
    needed: float


@dataclass(frozen=True)
class Noise:
    """relative: tr Cov ĝ of a batch over |g|². se: its standard error. pathwise: the same of the exact
    gradient of the same trajectories."""

    relative: float
    se: float
    pathwise: float


def products(estimate: Grouped, target: Grouped) -> Products | None:
    """Inner products of the groups that have both; None while those are fewer than MIN_GROUPS."""
    both = ((estimate.counts > 0) & (target.counts > 0)).nonzero()[:, 0].tolist()
    if len(both) < MIN_GROUPS:
        return None
    e, p = _means(estimate, both), _means(target, both)
    return Products(gram(e, e).numpy(), gram(e, p).numpy(), gram(p, p).numpy())


def _means(grouped: Grouped, groups: list[int]) -> list[Tensor]:
    return [grouped.vectors[a] / float(grouped.counts[a]) for a in groups]


def bias(moments: Moments, target: Grouped, margin: float, level: float) -> Bias:
    """The bias of a method's mean against the mean of the target's vectors. level: of the intervals."""
    found = products(moments.estimate, target)
    if found is None:
        return Bias(UNKNOWN, UNKNOWN, math.nan, math.nan, UNKNOWN, Verdict.UNDECIDED, math.nan)
    squared = _squared(found, level)
    relative, known = squared.root(), positive(found.target, level)
    sine = sine2(found.mine, found.cross, found.target, level)
    norm = math.sqrt(pairs(found.target)) if known else math.nan
    return Bias(
        relative,
        sine if math.isnan(sine.value) else sine.root(),
        norm,
        pairs(found.cross) / norm**2,
        _cosine(moments, found, norm, level),
        _verdict(relative, margin),
        _needed(moments.draws, squared, margin),
    )


def _squared(found: Products, level: float) -> Interval:
    """|E ĝ - g|² / |g|²."""
    difference, target = found.difference, found.target
    if np.abs(difference).max() <= ROUNDING**2 * np.diag(target).mean():
        return Interval(0.0, 0.0, 0.0, 0.0)  # the same vectors
    if positive(target, level):
        return ratio(difference, target, level)
    # |g| is not known to be above 0 yet: what is certain all the same is that the difference is not 0.
    top, bottom = around(difference, level), around(target, level)
    if bottom.high <= 0:
        return UNKNOWN  # a reward that no step can change
    value = top.value / bottom.value if bottom.value > 0 else math.nan
    return Interval(value, math.nan, max(0.0, top.low) / bottom.high, math.inf)


def _verdict(relative: Interval, margin: float) -> Verdict:
    if relative.high < margin:
        return Verdict.UNBIASED
    return Verdict.BIASED if relative.low > ROUNDING else Verdict.UNDECIDED


def _needed(draws: int, squared: Interval, margin: float) -> float:
    """Draws after which an unbiased estimator's interval would end below the margin.

    Around zero the half-width of the squared bias shrinks as 1 / n.
    """
    return draws * max(1.0, (squared.high - max(squared.value, 0.0)) / margin**2)


def _cosine(moments: Moments, found: Products, norm: float, level: float) -> Interval:
    """E ĝ · g / (|g| √E|ĝ|²)."""
    length = math.sqrt(float(moments.estimate.squares.sum()) / moments.draws) * norm
    dot = product(found.cross, level)
    return Interval(*(v / length if length > 0 else math.nan for v in (dot.value, dot.se, dot.low, dot.high)))


def mean_length(vectors: Grouped, level: float) -> float:
    """|mean of the vectors| without the noise's part; nan while it may be zero."""
    found = products(vectors, vectors)
    known = found is not None and positive(found.target, level)
    return math.sqrt(pairs(found.target)) if found is not None and known else math.nan


def relative_length(vectors: Grouped, level: float) -> Interval:
    """|mean of the vectors| in units of its estimate: an interval around 1."""
    found = products(vectors, vectors)
    length = UNKNOWN if found is None else around(found.target, level).root()
    if not length.value > 0:
        return UNKNOWN
    return Interval(1.0, length.se / length.value, length.low / length.value, length.high / length.value)


def noise(moments: Moments, target: Grouped, norm: float) -> Noise:
    """target: of the method's own objective; norm: its |g|."""
    if not norm > 0:
        return Noise(math.nan, math.nan, math.nan)
    spread, groups = moments.estimate.spread(), moments.estimate
    some = groups.counts > 1
    each = (groups.squares[some] / groups.counts[some]).numpy()
    total = float(groups.squares.sum()) / moments.draws
    # The error of a variance is mostly that of the mean squared norm.
    error = float(each.std(ddof=1)) / math.sqrt(len(each)) if len(each) > 2 else math.nan
    if math.isnan(error) and moments.draws > 3:
        singles = groups.squares[groups.counts > 0] / groups.counts[groups.counts > 0]
        error = float(singles.std()) / math.sqrt(len(singles))
    relative_error = error / total if total > 0 else 0.0
    relative = spread / norm**2
    return Noise(relative, relative * relative_error, target.spread() / norm**2)


@dataclass(frozen=True)
class Contribution:
    """A term's or a step's share of the batch gradient, relative to |g|: |mean| (debiased), variance, root
    mean square; and of the exact gradient's step, |mean|."""

    name: str
    step: int | None
    mean: float
    variance: float
    rms: float
    exact: float | None


def step_parts(moments: Moments, norm: float) -> list[Contribution]:
    """Contributions by kind and step, in the order of steps. norm: |g|."""
    found = []
    for (kind, i), s in sorted(moments.parts.items(), key=lambda item: (item[0][1], item[0][0])):
        mean2, second = _debiased(norm2(s.vector), s.square, moments.draws)
        exact = None
        if i in moments.exact_steps:
            e = moments.exact_steps[i]
            exact = math.sqrt(max(0.0, _debiased(norm2(e.vector), e.square, moments.exact.total)[0])) / norm
        found.append(_part(str(kind).lower(), i, mean2, second, norm, exact))
    return found


def term_parts(moments: Moments, norm: float) -> list[Contribution]:
    """Contributions of whole terms. norm: |g|."""
    found = []
    for kind, vector in sorted(moments.terms.items()):
        square = float(moments.products.diagonal()[TERMS.index(kind)])
        mean2, second = _debiased(norm2(vector), square, moments.draws)
        found.append(_part(str(kind).lower(), None, mean2, second, norm, None))
    return found


def _debiased(sum_square: float, squares: float, n: int) -> tuple[float, float]:
    """(|E x|² without the noise's part, E|x|²) from |Σ x|² and Σ|x|²."""
    if n < 2:
        return math.nan, squares / max(n, 1)
    return (sum_square - squares) / (n * (n - 1)), squares / n


def _part(
    name: str, i: int | None, mean2: float, second: float, norm: float, exact: float | None
) -> Contribution:
    variance = (second - mean2) / norm**2
    return Contribution(name, i, math.sqrt(max(0.0, mean2)) / norm, variance, math.sqrt(second) / norm, exact)
