"""Truncated backpropagation, DRaFT-K: backpropagate through the last K steps only.

Source: Clark et al. 2023 (DRaFT); "truncated BP" of the RLR paper (Prop. 6.1); K = 1 is its Table 5's "w/o HO
& ZO". Biased: what the first T - K steps contribute is dropped. DRaFT's code keeps K graphs at once; here
they are pulled back one step at a time.
"""

import random
from typing import ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan
from bench.engine.plan_method import Estimator, PlanMethod, last_steps


class TruncatedBpConfig(Strict):
    """Settings of truncated backpropagation."""

    k: int = Field(default=1, ge=1, description="K, number of steps at the image end that are backpropagated")
    eta: float = Field(default=0.0, ge=0, description="noise scale at every step")


@final
class TruncatedBp(PlanMethod):
    """SKIP × (T - K), FO × K."""

    name: ClassVar[str] = "truncated_bp"
    look = ("purple", "P", "dashed")
    Config: ClassVar[type[Strict]] = TruncatedBpConfig
    needs_reward_grad = True

    def __init__(self, config: TruncatedBpConfig, steps: int) -> None:
        """Raises BenchError if K > T."""
        super().__init__(config, steps)
        if config.k > steps:
            raise BenchError(
                f"truncated_bp.k is {config.k}, but the chain has only {steps} steps (model.steps)"
            )
        self.biased = config.k < steps

    def plan(self, rng: random.Random) -> Plan:
        """The last K steps."""
        return last_steps(Kind.SKIP, self.config.k, (self.config.eta,) * self.steps)

    def estimator(self) -> Estimator:
        """Nothing is perturbed and no baseline is needed."""
        return Estimator()
