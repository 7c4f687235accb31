"""Quality, Semantic and Total as VBench computes them, and the weighted average of the RLR paper's Table 3.

With n the normalised scores (`Dimension.normalised`) and w the weights (1, dynamic degree ½):

    Quality = Σ w n / Σ w   over 7 dimensions,     Semantic = mean of n over 9,
    Total   = (4 Quality + Semantic) / 5,
    weighted average = Σ w x / 5.5   over the quality dimensions without temporal flickering, x as it is.

Scores are fractions. An aggregate of which a dimension has no score is None: nothing is imputed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def value(name: str, scores: Scores) -> float | None:
    """An aggregate of scores, or the score of a dimension; None if there is none."""
    if name in DIMENSIONS:
        return scores.get(name)
    if any(part not in scores for part in PARTS[name]):
        return None
    return _aggregate(name, scores)


def _aggregate(name: str, scores: Scores) -> float:
    if name == "total":
        quality, semantic = _aggregate("quality", scores), _aggregate("semantic", scores)
        return (QUALITY_SHARE * quality + SEMANTIC_SHARE * semantic) / (QUALITY_SHARE + SEMANTIC_SHARE)
    parts = [DIMENSIONS[part] for part in PARTS[name]]
    plain = name == "weighted_average"
    numbers = [d.weight * (scores[d.name] if plain else d.normalised(scores[d.name])) for d in parts]
    return sum(numbers) / sum(d.weight for d in parts)


def rounding(name: str, half_units: Mapping[str, float]) -> float:
    """How far an aggregate can be from the printed one because all printed numbers are rounded.

    half_units: dimension or aggregate → half of its last digit's unit, such as 0.00005 for percent with two
    decimals; without one it counts as exact. The bound holds for the worst case, in which all errors add up:
    aggregates grow linearly with each score.
    """
    errors = {dimension: half_units.get(dimension, 0.0) for dimension in DIMENSIONS}
    own = _aggregate(name, errors) - _aggregate(name, dict.fromkeys(DIMENSIONS, 0.0))
    return own + half_units.get(name, 0.0)


@dataclass(frozen=True)
class Check:
    """A printed aggregate beside what its own dimensions give. allowed: by rounding, in the worst case."""

    aggregate: str
    printed: float
    recomputed: float
    allowed: float

    @property
    def difference(self) -> float:
        """The recomputed value minus the printed one."""
        return self.recomputed - self.printed

    @property
    def consistent(self) -> bool:
        """Whether rounding can explain the difference."""
        return abs(self.difference) <= self.allowed + 1e-9


def checks(scores: Scores, printed: Scores, half_units: Mapping[str, float]) -> list[Check]:
    """Every printed aggregate that can be recomputed."""
    return [
        Check(name, printed[name], recomputed, rounding(name, half_units))
        for name in AGGREGATES
        if name in printed
        and math.isfinite(printed[name])
        and (recomputed := value(name, scores)) is not None
    ]
