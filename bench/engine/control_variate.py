"""The control variate of the half-order term, and the scales that are fitted to earlier batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Scale:
    """c, κ and m of one step: how far g and v are to be trusted, and the typical v."""

    slope: float = 0.0
    value: float = 0.0
    centre: float = 0.0


Sums = tuple[float, ...]


SUMS = 7  # numbers in them


LIMIT = 3.0


DOUBT = 16.0  # rows at which a fit counts for half


ControlMode = Literal["network", "linear", "value"]


def scale_of(sums: Sums) -> Scale:
    """Least squares of A on σ εᵀg and on v, from sums over rows: (1, v, v², A, A v, A σεᵀg, (σεᵀg)²).

    A perfect prediction has slope and value 1, a useless one 0. Fits to few rows are wild, so they are kept
    between 0 and LIMIT and shrunk towards 0.
    """
    n, v, v2, a, av, a_slope, slope2 = sums
    centre = v / n if n > 0 else 0.0
    spread = v2 - n * centre**2
    trust = n / (n + DOUBT)
    return Scale(
        slope=trust * min(max(a_slope / slope2, 0.0), LIMIT) if slope2 > 0 else 0.0,
        value=trust * min(max((av - centre * a) / spread, 0.0), LIMIT) if spread > 1e-6 * v2 else 0.0,
        centre=centre,
    )


@dataclass(frozen=True)
class Control:
    """A control variate for HO terms.

    scales: of every step, from earlier batches only (one fitted on the batch that it serves is biased).
    weight: λ, 1 is unbiased. mode: `network`: g goes back through the network; `linear`: only along the
    linear path of the prediction in x, which takes no network backward; `value`: v alone, g = 0, which takes
    no gradient of the reward either.
    """

    scales: tuple[Scale, ...]
    weight: float = 1.0
    mode: ControlMode = "network"


def added(old: Sums, new: Sums) -> Sums:
    """Sums over both sets of rows."""
    return tuple(a + b for a, b in zip(old, new, strict=True))
