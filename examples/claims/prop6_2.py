"""Prop. 6.2: Var(FO) ≤ Var(likelihood ratio) for every reward satisfying J.1-J.3.

One step, x = v + sigma eps with sigma = 1, R = sin(omega x): smooth, bounded, Lipschitz. The derivative of R
grows with omega, R itself does not: Var(R' (x)) → omega²/2, Var(R(x) eps / sigma) → 1 / (2 sigma²). A ZO step
that perturbs v is the same likelihood ratio with s for sigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, exp
from typing import ClassVar

import torch
from torch import Tensor

from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator
from bench.engine.reward import Reward
from examples import measure
from examples.linear_gaussian import LinearGaussianChain
from examples.measure import Inline, Number, Outcome

SAMPLES = 8_000
SIZE, DRIFT = 8, 0.3


class Wave(Reward):
    """sin(omega x), summed over latents."""

    differentiable: ClassVar[bool] = True
    scale: ClassVar[str] = "-1 to 1"

    def __init__(self, omega: float) -> None:
        """omega: frequency."""
        self.omega = omega

    def score(self, media: Tensor, prompts: Sequence[str]) -> Tensor:
        """[B] of media [B, D]."""
        return torch.sin(self.omega * media).sum(1)


@dataclass(frozen=True)
class Row:
    """Variances of one sample's gradient with respect to v."""

    omega: float
    FO_exact: float
    FO_measured: Number
    LR_exact: float
    LR_measured: Number
    gradient: float


def closed_form(omega: float, v: float) -> tuple[float, float, float]:
    """(Var of pathwise, Var of likelihood ratio, gradient) for sigma = 1, from E[ε² cos(a + bε)] and kin."""
    gradient = omega * cos(omega * v) * exp(-(omega**2) / 2)
    b = 2 * omega
    pathwise = omega**2 / 2 * (1 + cos(b * v) * exp(-(b**2) / 2))
    ratio = (1 - (1 - b**2) * exp(-(b**2) / 2) * cos(b * v)) / 2
    return pathwise - gradient**2, ratio - gradient**2, gradient


def run(samples: int, seed: int = 0) -> Outcome:
    """samples: rollouts per frequency and estimator."""
    chain = LinearGaussianChain(1, noise=1.0)
    chain.a, chain.b = torch.zeros(1), torch.ones(1)
    with torch.no_grad():
        chain.weight.zero_()
        chain.drift.fill_(DRIFT)
    rows = []
    for omega in (0.5, 2.0, 20.0):
        pathwise, ratio, gradient = closed_form(omega, DRIFT)
        measured = [one_sample_variance(chain, omega, kind, samples, seed) for kind in (Kind.FO, Kind.HO)]
        rows.append(Row(omega, pathwise, measured[0], ratio, measured[1], gradient))
    checks = {
        "Var(FO) ≤ Var(likelihood ratio) for every omega": all(r.FO_exact <= r.LR_exact for r in rows),
        "Monte Carlo agrees with the closed form": all(
            r.FO_measured.sigmas_from(r.FO_exact) < 3.5 and r.LR_measured.sigmas_from(r.LR_exact) < 3.5
            for r in rows
        ),
    }
    return Outcome([rows], checks)


def one_sample_variance(
    chain: LinearGaussianChain, omega: float, kind: Kind, samples: int, seed: int
) -> Number:
    """Of d/dv, from batches of independent samples without a baseline."""
    plan = Plan((Segment(kind, 0, 1),), (1.0,))
    update = measure.first_update(Inline(lambda rng: plan, 1, Estimator(baseline="none", one_plan=True)))
    batches = measure.batches_of(samples, SIZE)
    found = measure.batch_gradients(chain, Wave(omega), update, batches=batches, size=SIZE, seed=seed)
    return measure.variance(found[:, 1:]) * SIZE
