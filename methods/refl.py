"""ReFL: the reward of the one-step prediction at a late step, backpropagated through that step alone.

Source: Xu et al. 2023 (ImageReward, algorithm 1). The chain runs without a graph to a random step m close to
the image end; there x_0 is predicted in one step, and dR/dx̂_0 goes back through that prediction only. Its
objective is E[R(x̂_0(x_m))], a mixture over m, not the deployed sampler's; the estimate is biased for it,
too, as what x_m owes to the parameters is dropped.

Differs from the authors' code: the reward is maximised as it is, not as relu(2 - R) · 1e-3; no pre-training
loss is mixed in; classifier-free guidance is used where the model has it (theirs has none). Their m is 30 to
39 of 40 steps: the last quarter.
"""

import math
import random
from typing import ClassVar, final

from pydantic import Field

from bench.base.strict import Strict
from bench.engine.plan import Kind, Plan, Segment
from bench.engine.plan_method import Estimator, PlanMethod


class ReflConfig(Strict):
    """Settings of ReFL."""

    first: float = Field(
        default=0.75, ge=0, lt=1, description="the earliest step of the prediction, as a share of T"
    )


@final
class Refl(PlanMethod):
    """SKIP × m, FO through the prediction x̂_0(x_m)."""

    name: ClassVar[str] = "refl"
    Config: ClassVar[type[Strict]] = ReflConfig
    biased = True
    needs_reward_grad = True

    def plan(self, rng: random.Random) -> Plan:
        """Draw m; later steps do not run."""
        first = min(math.ceil(self.config.first * self.steps), self.steps - 1)
        m = rng.randrange(first, self.steps)
        head = (Segment(Kind.SKIP, 0, m),) if m else ()
        return Plan((*head, Segment(Kind.FO, m, m + 1)), (0.0,) * (m + 1), readout=m)

    def estimator(self) -> Estimator:
        """One m for the batch, as the authors draw it."""
        return Estimator(one_plan=True)
