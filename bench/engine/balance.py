"""Term weights from earlier batches: how long each term of a gradient is, and how much of it is noise.

The terms of a plan estimate different parts of the gradient and differ in length by orders of magnitude; with
unit weights the longest, which is noise, steers alone. `norms` makes every term as long as the first-order
one. `signal` multiplies each by S / (S + N), where S is the squared length of its mean and N its variance:
of all multiples of an unbiased estimate that one has the least squared error. Both are relative to the
first-order term, whose weight stays as it is, since an optimizer such as Adam takes out a common scale;
`signal` never makes a term longer than `norms` does. Weights depend on earlier batches alone, so they are
independent of the gradient that they multiply; other weights than one leave it biased.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Literal

from bench.base.errors import BenchError
from bench.engine.batch import Term
from bench.engine.plan import Kind

Balance = Literal["none", "norms", "signal"]

FORGET = 0.9  # per batch, of the sums
LEAST = 1e-6  # of a weight, relative to the first-order term's: a term without a weight could not be measured


def balanced(weights: Mapping[Kind, float], balance: Balance, state: Mapping[Any, Any]) -> dict[Kind, float]:
    """The weights of the next batch, from those of the settings and the sums in `state`.

    Before anything is known of a term, its weight is LEAST times the settings'.
    """
    if balance == "none":
        return dict(weights)
    first = _sums(state, Kind.FO)
    return {
        kind: weight * (1.0 if kind is Kind.FO else _factor(balance, _sums(state, kind), first))
        for kind, weight in weights.items()
    }


def _factor(balance: Balance, own: tuple[float, float], first: tuple[float, float]) -> float:
    """own, first: sums of squared lengths and of their signal."""
    if not (own[0] > 0 and first[0] > 0):
        return LEAST
    equal = (first[0] / own[0]) ** 0.5
    if balance == "norms":
        return equal
    if first[1] <= 0:  # as good as no signal is known of either
        return LEAST
    return min(max((own[1] / own[0]) / (first[1] / first[0]), LEAST), equal)


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
        square, old = term.norm**2 / weight**2, _sums(state, kind)
        signal = square - (term.variance or 0.0) / weight**2
        state[_key(kind)] = [FORGET * old[0] + square, FORGET * old[1] + signal]


def _key(kind: Kind) -> str:
    return f"balance {kind.value}"


def _sums(state: Mapping[Any, Any], kind: Kind) -> tuple[float, float]:
    square, signal = state.get(_key(kind), (0.0, 0.0))
    return square, signal
