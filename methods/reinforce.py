"""REINFORCE: the plain likelihood-ratio gradient of a stochastic chain, a baseline and nothing else.

Source: Williams 1992; h = 1 in the RLR paper (arXiv:2502.00639, §3.2); DPOK (Fan et al. 2023) and DDPO-SF
(Black et al. 2023) without their extras. Every step injects noise and is a one-step HO block, so the mean of
A Σ_i J_θ(i)ᵀ ε_i/σ_i is the gradient of E[R]: unbiased, whatever the reward is made of.

`drawn: m` pulls back only m of a sample's T steps, drawn without replacement and weighted T/m, so that a
sample costs m backward evaluations instead of T. A step is drawn with probability m/T, and the draw is
independent of noise and reward, so this is unbiased too, at a larger variance.

Differs from DDPO's code: no clipped re-use, no whitening, log-probabilities summed over latent dimensions.
"""

import random
from typing import ClassVar, final

from pydantic import Field

from bench.base.errors import BenchError
from bench.base.strict import Strict
from bench.engine.advantages import AdvantageConfig
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod


class ReinforceConfig(AdvantageConfig):
    """Settings of REINFORCE."""

    drawn: int | None = Field(
        default=None,
        ge=1,
        description="so many steps per sample, drawn at random without replacement, are pulled back, each "
        "weighted T/drawn; null: all",
    )
    eta: float = Field(default=1.0, gt=0, description="noise scale at every step")


@final
class Reinforce(PlanMethod):
    """A half-order block of one step at each of the T steps."""

    name: ClassVar[str] = "reinforce"
    Config: ClassVar[type[Strict]] = ReinforceConfig
    needs_reward_grad = False

    def __init__(self, config: ReinforceConfig, steps: int) -> None:
        """Raises BenchError if more steps are to be drawn than there are."""
        super().__init__(config, steps)
        if config.drawn is not None and config.drawn > steps:
            raise BenchError(
                f"reinforce.drawn is {config.drawn}, but the chain has only {steps} steps (model.steps)"
            )
        self.biased = config.biased_advantages

    def plan(self, rng: random.Random) -> Plan:
        """Noise at every step; the drawn steps are HO, the others are dropped."""
        steps, count = self.steps, self.config.drawn or self.steps
        drawn = set(rng.sample(range(steps), count))
        segments = tuple(
            Segment(Kind.HO, i, i + 1, steps / count) if i in drawn else Segment(Kind.SKIP, i, i + 1)
            for i in range(steps)
        )
        return Plan(segments, (self.config.eta,) * steps)

    def estimator(self) -> Estimator:
        """Only the advantages are a setting."""
        return Estimator(baseline=self.config.baseline, divide=self.config.divide)
