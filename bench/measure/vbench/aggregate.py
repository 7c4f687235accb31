"""Quality, Semantic and Total as VBench computes them, and the weighted average of the RLR paper's Table 3.

With n the normalised scores (`Dimension.normalised`) and w the weights (1, dynamic degree ½):

    Quality = Σ w n / Σ w   over 7 dimensions,     Semantic = mean of n over 9,
    Total   = (4 Quality + Semantic) / 5,
    weighted average = Σ w x / 5.5   over the quality dimensions without temporal flickering, x as it is.

Scores are fractions. An aggregate of which a dimension has no score is None: nothing is imputed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.measure.vbench.dimensions import DIMENSIONS, QUALITY, SEMANTIC

QUALITY_SHARE, SEMANTIC_SHARE = 4.0, 1.0
TABLE3 = tuple(name for name in QUALITY if name != "temporal_flickering")
PARTS = {  # the dimensions that each one is of
    "quality": QUALITY,
    "semantic": SEMANTIC,
    "total": (*QUALITY, *SEMANTIC),
    "weighted_average": TABLE3,
}
AGGREGATES = tuple(PARTS)
Scores = Mapping[str, float]


def _mean(scores: Scores, names: Sequence[str], normalised: bool) -> float | None:
    if any(name not in scores for name in names):
        return None
    found = [DIMENSIONS[name] for name in names]
    total = sum(d.weight * (d.normalised(scores[d.name]) if normalised else scores[d.name]) for d in found)
    return total / sum(d.weight for d in found)


def quality(scores: Scores) -> float | None:
    """Weighted mean of the seven normalised quality dimensions."""
    return _mean(scores, QUALITY, normalised=True)


def semantic(scores: Scores) -> float | None:
    """Mean of the nine normalised semantic dimensions."""
    return _mean(scores, SEMANTIC, normalised=True)


def total(scores: Scores) -> float | None:
    """(4 Quality + Semantic) / 5."""
    q, s = quality(scores), semantic(scores)
    if q is None or s is None:
        return None
    return (QUALITY_SHARE * q + SEMANTIC_SHARE * s) / (QUALITY_SHARE + SEMANTIC_SHARE)


def weighted_average(scores: Scores) -> float | None:
    """Weighted mean of six quality dimensions as they are: the last column of the paper's Table 3."""
    return _mean(scores, TABLE3, normalised=False)


FUNCTIONS: dict[str, Callable[[Scores], float | None]] = {
    "quality": quality,
    "semantic": semantic,
    "total": total,
    "weighted_average": weighted_average,
}


def rounding(aggregate: str, half_units: Mapping[str, float]) -> float:
    """How far an aggregate can be from the printed one because all printed numbers are rounded.

    half_units: dimension or aggregate → half of its last digit's unit, such as 0.00005 for percent with two
    decimals; without one it counts as exact. The bound holds for the worst case, in which all errors add up.
    """
    if aggregate == "total":
        error = QUALITY_SHARE * _error("quality", half_units) + SEMANTIC_SHARE * _error(
            "semantic", half_units
        )
        error /= QUALITY_SHARE + SEMANTIC_SHARE
    else:
        error = _error(aggregate, half_units)
    return error + half_units.get(aggregate, 0.0)


def _error(aggregate: str, half_units: Mapping[str, float]) -> float:
    """How far a mean can be off because its dimensions are rounded."""
    found = [DIMENSIONS[name] for name in PARTS[aggregate]]
    spans = [1.0 if aggregate == "weighted_average" else d.high - d.low for d in found]
    errors = [d.weight * half_units.get(d.name, 0.0) / span for d, span in zip(found, spans, strict=True)]
    return sum(errors) / sum(d.weight for d in found)


@dataclass(frozen=True)
class Check:
    """A printed aggregate beside what its own dimensions give. allowed: by rounding, in the worst case."""

    aggregate: str
    printed: float
    recomputed: float
    allowed: float

    @property
    def difference(self) -> float:
        """Recomputed − printed."""
        return self.recomputed - self.printed

    @property
    def consistent(self) -> bool:
        """Whether rounding can explain the difference."""
        return abs(self.difference) <= self.allowed + 1e-9


def checks(scores: Scores, printed: Scores, half_units: Mapping[str, float]) -> list[Check]:
    """Every printed aggregate that can be recomputed."""
    found: list[Check] = []
    for name in AGGREGATES:
        value = FUNCTIONS[name](scores)
        if name in printed and value is not None and math.isfinite(printed[name]):
            found.append(Check(name, printed[name], value, rounding(name, half_units)))
    return found
