"""Term weights from earlier batches: how long each term of a gradient is, and how much of it is noise.

The terms of a plan estimate different parts of the gradient and differ in length by orders of magnitude; with
unit weights the longest, which is noise, steers alone. `norms` makes every term as long as the first-order
one. `signal` multiplies each by S / (S + N), where S is the squared length of its mean and N its variance:
of all multiples of an unbiased estimate that one has the least squared error. S is measured, too, and of a
term that is nearly all noise it is mostly the error of that measurement. So it counts as far as it exceeds
two standard errors, and a term of which no signal can be seen is as good as left out.

Both are relative to the first-order term, whose weight stays as it is, since an optimizer such as Adam takes
out a common scale; `signal` never makes a term longer than `norms` does. Weights depend on earlier batches
alone, so they are independent of the gradient that they multiply; other weights than one leave it biased.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import astuple, dataclass
from typing import Any, Literal

from bench.base.errors import BenchError
from bench.engine.batch import Term
from bench.engine.plan import Kind

Balance = Literal["none", "norms", "signal"]

FORGET = 0.95  # per batch, of the sums
ERRORS = 2.0  # standard errors that a signal has to exceed
LEAST = 1e-6  # of a weight, relative to the first-order term's: a term without a weight could not be measured


@dataclass(frozen=True)
class Seen:
    """Sums over earlier batches: their number, a term's squared length, the part of it that is signal, and
    that part squared."""

    batches: float = 0.0
    square: float = 0.0
    signal: float = 0.0
    signal_square: float = 0.0

    def after(self, square: float, signal: float) -> Seen:
        """With one more batch."""
        new = (1.0, square, signal, signal**2)
        return Seen(*(FORGET * old + value for old, value in zip(astuple(self), new, strict=True)))

    def share(self, errors: float = 0.0) -> float:
        """S / (S + N), with S less so many standard errors; 0 where nothing is left of it."""
        if self.batches <= 1 or self.square <= 0:
            return 0.0
        mean = self.signal / self.batches
        spread = max(0.0, self.signal_square / self.batches - mean**2) / (self.batches - 1)
        return max(0.0, mean - errors * spread**0.5) * self.batches / self.square


def balanced(weights: Mapping[Kind, float], balance: Balance, state: Mapping[Any, Any]) -> dict[Kind, float]:
    """The weights of the next batch, from those of the settings and the sums in `state`.

    Before anything is known of a term, its weight is LEAST times the settings'.
    """
    if balance == "none":
        return dict(weights)
    first = _seen(state, Kind.FO)
    return {
        kind: weight * (1.0 if kind is Kind.FO else _factor(balance, _seen(state, kind), first))
        for kind, weight in weights.items()
    }


def _factor(balance: Balance, own: Seen, first: Seen) -> float:
    if not (own.square > 0 and first.square > 0):
        return LEAST
    equal = (first.square / own.square) ** 0.5
    if balance == "norms":
        return equal
    known = first.share()
    return min(max(own.share(ERRORS) / known, LEAST), equal) if known > 0 else LEAST


def learn(
    terms: Mapping[str, Term],
    weights: Mapping[Kind, float],
    balance: Balance,
    state: MutableMapping[Any, Any],
) -> None:
    """Add a batch's terms, which were weighted by `weights`, to the sums in `state`.

    Raises BenchError where `signal` has no variance to go by, which takes two micro-batches.
    """
    for kind, weight in weights.items():
        term = terms.get(kind.value.lower())
        if term is None or weight == 0:
            continue
        if term.variance is None and balance == "signal":
            raise BenchError(
                "balance=signal measures noise between micro-batches, and each batch has one alone: set "
                "train.micro_batch to half of a batch's samples, or less"
            )
        square = term.norm**2 / weight**2
        signal = square - (term.variance or 0.0) / weight**2
        state[_key(kind)] = astuple(_seen(state, kind).after(square, signal))  # plain, as checkpoints want it


def _key(kind: Kind) -> str:
    return f"balance {kind.value}"


def _seen(state: Mapping[Any, Any], kind: Kind) -> Seen:
    return Seen(*state.get(_key(kind), ()))
