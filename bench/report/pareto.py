"""Which methods are worth their cost."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each (cost, gain) is on the Pareto front: no other gains as much for less, or more for as much.

    The base model, which costs nothing and gains nothing, is one of the others. Equal points do not beat
    each other.
    """
    others = [(0.0, 0.0), *points]
    return [not any(_beats(other, point) for other in others) for point in points]


def _beats(other: tuple[float, float], point: tuple[float, float]) -> bool:
    (other_cost, other_gain), (cost, gain) = other, point
    return other_cost <= cost and other_gain >= gain and other != point
