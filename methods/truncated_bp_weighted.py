"""Truncated backpropagation of a random length K, reweighted so that the truncation costs no bias.

Ours; the truncation is that of DRaFT-K (Clark et al. 2023) and AlignProp (Prabhudesai et al. 2023), the
weights are those of randomised truncation ("Russian roulette"; Tallec & Ollivier 2017, ARTBP). With g_k
what the k-th step from the image end contributes to the gradient, and K drawn independently of noise and
reward,

    E[ Σ_{k ≤ K} g_k / P(K ≥ k) ]  =  Σ_k E[ 1{K ≥ k} ] E[g_k] / P(K ≥ k)  =  Σ_{k ≤ T} E[g_k],

the whole gradient: every step is covered with positive probability and its weight is 1 over it. A weight
per step, not per chain: the cotangent that x carries on to earlier steps is not weighted.

The law is given by its survival function: P(K ≥ k) = 1 for k ≤ k_min, then decay^(k - k_min), never below
`floor`. The mean of K is its sum, what a sample costs; the largest weight is 1/floor. Differs from
AlignProp's code, which draws K too and drops what is cut without reweighting.
"""

import random
from typing import ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod


class TruncatedBpWeightedConfig(Strict):
    """Settings of weighted truncation."""

    k_min: int = Field(default=1, ge=1, description="steps at the image end that are always backpropagated")
    decay: float = Field(default=0.8, gt=0, le=1, description="P(K ≥ k + 1) / P(K ≥ k) beyond k_min")
    floor: float = Field(
        default=0.1, gt=0, le=1, description="smallest P(K ≥ k); 1/floor is the largest weight of a step"
    )
    stratified: bool = Field(default=True, description="the lengths of a batch spread evenly over their law")
    eta: float = Field(default=0.0, ge=0, description="noise scale at every step")


@final
class TruncatedBpWeighted(PlanMethod):
    """SKIP × (T - K), FO × K with K random and step k from the end weighted 1/P(K ≥ k)."""

    name: ClassVar[str] = "truncated-bp-weighted"
    Config: ClassVar[type[Strict]] = TruncatedBpWeightedConfig
    biased = False
    needs_reward_grad = True

    def __init__(self, config: TruncatedBpWeightedConfig, steps: int) -> None:
        """Raises BenchError if k_min > T."""
        super().__init__(config, steps)
        if config.k_min > steps:
            raise BenchError(
                f"truncated-bp-weighted.k_min is {config.k_min}, but the chain has only {steps} steps "
                "(model.steps)"
            )

    def survival(self) -> list[float]:
        """P(K ≥ k) for k = 1 … T."""
        c: TruncatedBpWeightedConfig = self.config
        return [max(c.decay ** max(k - c.k_min, 0), c.floor) for k in range(1, self.steps + 1)]

    def plan(self, rng: random.Random) -> Plan:
        """Draw K from one uniform number, by the inverse of its distribution function."""
        survival, u = self.survival(), rng.random()
        k = sum(p > u for p in survival)  # the largest k with P(K ≥ k) > u, as P does not rise with k
        cut = self.steps - k
        head = (Segment(Kind.SKIP, 0, cut),) if cut else ()
        tail = (Segment(Kind.FO, i, i + 1, 1 / survival[self.steps - i - 1]) for i in range(cut, self.steps))
        return Plan((*head, *tail), (self.config.eta,) * self.steps)

    def estimator(self) -> Estimator:
        """No perturbation; one K per sample."""
        return Estimator(stratified=self.config.stratified)
