"""Full backpropagation through the whole chain, one step's graph at a time.

Source: the FO estimator of the RLR paper (Prop. 6.1), DRaFT with K = T (Clark et al. 2023). Unbiased. The
step-wise pull-back stores only the latents and runs each step a second time, so its memory is that of one
network graph, not the "about 1 TB" that one joint graph over 50 steps would need.
"""

import random
from typing import ClassVar, final

from pydantic import Field

from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan
from bench.engine.plan_method import Estimator, PlanMethod, last_steps


class FullBpConfig(Strict):
    """Settings of full backpropagation."""

    eta: float = Field(default=0.0, ge=0, description="noise scale at every step")


@final
class FullBp(PlanMethod):
    """FO at every step."""

    name: ClassVar[str] = "full_bp"
    look = ("black", "h", "solid")
    Config: ClassVar[type[Strict]] = FullBpConfig
    biased = False
    needs_reward_grad = True

    def plan(self, rng: random.Random) -> Plan:
        """First order on all T steps."""
        return last_steps(Kind.SKIP, self.steps, (self.config.eta,) * self.steps)

    def estimator(self) -> Estimator:
        """No noise, no perturbation."""
        return Estimator()
