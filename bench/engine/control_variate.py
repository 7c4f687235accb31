"""The control variate of the half-order term, and the scales that are fitted to earlier batches."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

# The first two or three rows of a run gave slopes of hundreds, and more variance than without a control
# variate (docs/log.md). A one-step prediction may be too flat, so scales above 1 are meant; not above LIMIT.
LIMIT = 3.0
DOUBT = 16.0  # rows at which a fit counts for half: a first batch's few hardly count, a hundred nearly whole

ControlMode = Literal["network", "linear", "value"]


@dataclass(frozen=True)
class Sums:
    """What scales are fitted to: sums over rows of 1, v, v², A, A v, A s and s², where s = σ εᵀg."""

    rows: float = 0.0
    v: float = 0.0
    v2: float = 0.0
    a: float = 0.0
    av: float = 0.0
    a_s: float = 0.0
    s2: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        """Sums over both sets of rows."""
        return Sums(*(x + y for x, y in zip(astuple(self), astuple(other), strict=True)))

    def faded(self, factor: float) -> Sums:
        """The same sums, every row counting only so much."""
        return Sums(*(factor * x for x in astuple(self)))


@dataclass(frozen=True)
class Scale:
    """c, κ and m of one step: how far g and v are to be trusted, and the typical v."""

    slope: float = 0.0
    value: float = 0.0
    centre: float = 0.0


def scale_of(sums: Sums) -> Scale:
    """Least squares of A on s = σ εᵀg and on v.

    A perfect prediction has slope and value 1, a useless one 0. Fits to few rows are wild, so they are kept
    between 0 and LIMIT and shrunk towards 0.
    """
    n, v2 = sums.rows, sums.v2
    centre = sums.v / n if n > 0 else 0.0
    spread = v2 - n * centre**2
    trust = n / (n + DOUBT)
    slope = min(max(sums.a_s / sums.s2, 0.0), LIMIT) if sums.s2 > 0 else 0.0
    value = min(max((sums.av - centre * sums.a) / spread, 0.0), LIMIT) if spread > 1e-6 * v2 else 0.0
    return Scale(slope=trust * slope, value=trust * value, centre=centre)


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
