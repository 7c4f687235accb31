"""Prop. 6.1: truncated BP's bias is the sum of the terms of the steps it drops; FO is unbiased.

Linear-Gaussian chain, T = 5, noise at every step. The dropped terms are exact: derivatives of the closed-form
E[R] with respect to each step's own copy of the parameters. Gradients are (d/dw, d/dv).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from examples import measure
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward, exact_contributions
from examples.measure import Number, Outcome
from methods.truncated_bp import TruncatedBp, TruncatedBpConfig

SAMPLES = 20_000
SIZE, STEPS = 256, 5


@dataclass(frozen=True)
class Row:
    """Backpropagation through the last K steps. z: of the bias; z_of_formula: bias against dropped terms."""

    K: int
    mean: Sequence[Number]
    bias: Sequence[Number]
    dropped_terms: Sequence[Number]
    relative_bias: Number
    z: float
    z_of_formula: float


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: rollouts per K."""
    chain, reward = LinearGaussianChain(STEPS), QuadraticReward([1.0])
    terms = exact_contributions(chain, reward, [1.0] * STEPS)
    exact, batches = terms.sum(0), measure.batches_of(samples, SIZE)
    rows = []
    for k in range(1, STEPS + 1):
        update = measure.first_update(TruncatedBp(TruncatedBpConfig(k=k, eta=1.0), STEPS))
        found = measure.batch_gradients(chain, reward, update, batches=batches, size=SIZE, seed=seed)
        dropped, bias = terms[: STEPS - k].sum(0), measure.bias(found, exact)
        formula = measure.bias(found, exact - dropped)
        columns = (measure.components(found), measure.components(exact - found), measure.numbers(dropped))
        rows.append(Row(k, *columns, bias.relative, bias.z, formula.z))
    checks = {
        "truncation is biased at every K < T": all(r.z > 3 for r in rows[:-1]),
        "the bias is the sum of the dropped terms": all(r.z_of_formula < 3 for r in rows),
        "FO (K = T) is unbiased": rows[-1].z < 3,
    }
    return Outcome([rows], checks)
