"""RLR's variance decreases with the block's length h (§4.2, Table 9).

Trace of one sample's gradient covariance over |g|² of the estimator's own target, with the paper's settings
(eta = 0.1, s = 1e-3) and a leave-one-out baseline: with a z of its own for every ZO step (the paper's), with
one z shared by a sample's ZO steps, and for the HO term alone. Linear-Gaussian chain, T = 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from examples import measure
from examples.claims.theorem6_3 import own_target
from examples.linear_gaussian import LinearGaussianChain, QuadraticReward
from examples.measure import Number, Outcome
from methods.rlr import Rlr, RlrConfig

SAMPLES = 1_600
SIZE, STEPS = 16, 12
LENGTHS = (0, 1, 2, 4, 8, 11)
HO_ALONE = {"completion": "none", "weights": {"fo": 0.0}}


@dataclass(frozen=True)
class Row:
    """Variances of one sample's gradient over |g|²."""

    h: int
    ZO_steps: int
    paper: Number
    paper_per_ZO_step: Number | None
    shared_z: Number
    HO_alone: Number | None


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: rollouts per variance."""

    def cell(h: int, **settings: Any) -> Number:
        return relative_variance(RlrConfig.model_validate({"h": h} | settings), samples, seed)

    rows = []
    for h in LENGTHS:
        paper, count = cell(h), STEPS - 1 - h
        each = paper * (1 / count) if count else None
        rows.append(Row(h, count, paper, each, cell(h, shared=True), cell(h, **HO_ALONE) if h else None))
    zo = [row for row in rows if row.ZO_steps]
    alone = [row.HO_alone for row in rows if row.HO_alone]
    checks = {
        "ZO dominates wherever it is used": all(
            row.shared_z.value > 10 * row.HO_alone.value for row in zo if row.HO_alone
        ),
        "h acts through the number of ZO steps alone": constant([r.paper_per_ZO_step for r in zo]),
        "with a shared z, h makes no difference": constant([r.shared_z for r in zo]),
        "the HO term's own variance decreases with h": alone[-1].value < alone[0].value,
    }
    return Outcome([rows], checks)


def relative_variance(config: RlrConfig, samples: int, seed: int) -> Number:
    """Of one sample, from batches of SIZE."""
    chain, reward = LinearGaussianChain(STEPS), QuadraticReward([1.0])
    method, batches = Rlr(config, STEPS), measure.batches_of(samples, SIZE)
    update = measure.first_update(method)
    found = measure.batch_gradients(chain, reward, update, batches=batches, size=SIZE, seed=seed)
    return measure.variance(found) * (SIZE / float(own_target(chain, reward, method).square().sum()))


def constant(values: list[Number | None]) -> bool:
    """Whether no value is more than 3 standard errors from the first."""
    known = [v for v in values if v]
    return all(v.sigmas_from(known[0].value) < 3 for v in known)
