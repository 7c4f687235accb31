"""Zeroth order: perturb the parameters, weight the perturbation by the reward; no backpropagation at all.

Source: the ZO estimator of the RLR paper (§3.2), evolution strategies (Salimans et al. 2017), SPSA (Spall
1992). Unbiased for the smoothed objective E[R(θ + s z)], which differs from E[R(θ)] by O(s²). Each sample
of a batch has a z of its own, so a batch of B is B perturbations for the price of one forward.

The defaults are the paper's plain form, where every step draws another z, which multiplies the variance by
about T; `shared` draws one per chain, `antithetic` pairs samples with opposite z. Differs from the paper's
form in the leave-one-out baseline (`baseline: none` is theirs). The preset `zo-antithetic` is evolution
strategies' form.
"""

import random
from typing import ClassVar, final

from pydantic import Field

from bench.base.strict import Strict
from bench.engine.advantages import AdvantageConfig
from bench.engine.batch import Perturbation
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod


class ZoConfig(AdvantageConfig):
    """Settings of the zeroth-order estimator."""

    scale: float = Field(default=1e-3, gt=0, description="s, standard deviation of the perturbation")
    shared: bool = Field(default=False, description="one z for all steps of a chain; false: one per step")
    antithetic: bool = Field(default=False, description="pairs of samples with the same noise and opposite z")
    eta: float = Field(default=0.0, ge=0, description="noise scale at every step")


@final
class Zo(PlanMethod):
    """Zeroth order at each of the T steps."""

    name: ClassVar[str] = "zo"
    look = ("orange", "v", "dotted")
    Config: ClassVar[type[Strict]] = ZoConfig
    needs_reward_grad = False

    def __init__(self, config: ZoConfig, steps: int) -> None:
        """Any chain will do."""
        super().__init__(config, steps)
        self.biased = config.biased_advantages

    def plan(self, rng: random.Random) -> Plan:
        """ZO at every step."""
        return Plan((Segment(Kind.ZO, 0, self.steps),), (self.config.eta,) * self.steps)

    def estimator(self) -> Estimator:
        """The perturbation of the settings."""
        c = self.config
        pert = Perturbation(scale=c.scale, shared=c.shared, antithetic=c.antithetic)
        return Estimator(perturbation=pert, baseline=c.baseline, divide=c.divide)
